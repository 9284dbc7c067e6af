package flash

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// trimsOf are trims of addresses.
func trimsOf(as ...layout.Address) []unit.Trim {
	var list []unit.Trim
	for _, a := range as {
		list = append(list, unit.Trim{Address: a})
	}
	return list
}

func stateOf(t *testing.T, s *Store, a layout.Address) wire.State {
	t.Helper()
	page := alignedBytes(4096)
	must(t, s.ReadPage(a, page))
	state, _ := unit.Classify(page, testLog, layout.Position(a))
	return state
}

// diskUsed is what the file system says the segments take.
func diskUsed(t *testing.T, dir string) int64 {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "seg-*"))
	must(t, err)
	sum := int64(0)
	for _, path := range all {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		sum += st.Blocks * 512
	}
	return sum
}

// punched waits until the space of all trims was given back.
func punched(t *testing.T, s *Store) {
	t.Helper()
	eventually(t, "space of trims", func() bool {
		s.punchMu.Lock()
		defer s.punchMu.Unlock()
		if len(s.toPunch)+len(s.punch) > 0 {
			return false
		}
		for _, n := range s.numbers() {
			g := s.find(n)
			// The puncher has the list: it is done with a segment when it has touched it.
			if m := g.trims.marks.Load(); m != nil && !bytes.Equal(*m, g.given()) {
				return false
			}
		}
		return true
	})
}

func (g *segment) given() bitmap {
	if p := g.trims.given.Load(); p != nil {
		return *p
	}
	return nil
}

// A trimmed address reads as a trim's mark, alone and in a scan, before and after a restart, over both volumes; others do not change.
func TestTrimmedReadsAsItsMark(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		for a := range layout.Address(40) {
			must(t, s.Write([]Page{entryPage(a)}))
		}
		list := trimsOf(3, 20, 3, 21, 39)
		must(t, s.Trim(list))
		want := func(s *Store) {
			t.Helper()
			check := func(a layout.Address, b []byte) error {
				state, h := unit.Classify(b, testLog, layout.Position(a))
				switch a {
				case 3, 20, 21, 39:
					if state != wire.Trimmed || h.Length != 0 {
						t.Errorf("address %d is %v", a, state)
					}
				default:
					if e := entryPage(a); !bytes.Equal(b, e.Bytes) {
						t.Errorf("address %d is not what was written", a)
					}
				}
				return nil
			}
			page := alignedBytes(4096)
			for a := range layout.Address(40) {
				must(t, s.ReadPage(a, page))
				must(t, check(a, page))
			}
			must(t, s.Scan(0, 40, check))
		}
		want(s)
		punched(t, s)
		want(s)
		must(t, s.Close())
		want(open(t, path, Options{}))
	})
}

// The used space is what the file system says, to the byte: after writes, after trims, after a restart. A trim gives its page back.
func TestUsedIsWhatTheFileSystemSays(t *testing.T) {
	s := ready(t, Options{})
	for a := range layout.Address(48) {
		must(t, s.Write([]Page{entryPage(a)}))
	}
	want := func(s *Store, what string) int64 {
		t.Helper()
		used := s.Stats().Used
		if disk := diskUsed(t, s.Dir()); used != disk {
			t.Errorf("%s: used %d bytes, and the file system says %d", what, used, disk)
		}
		return used
	}
	full := want(s, "written")
	must(t, s.Trim(trimsOf(1, 2, 3, 9, 17, 18, 40)))
	punched(t, s)
	if left := want(s, "trimmed"); left != full-7*4096 && supportsPunch(t) {
		t.Errorf("7 trims gave %d bytes back", full-left)
	}
	dir := s.Dir()
	must(t, s.Close())
	s = open(t, dir, Options{})
	want(s, "after a restart")
	must(t, s.DropBelow(16))
	want(s, "after a trim of all below")
	must(t, s.Wipe())
	if used := want(s, "wiped"); used != 0 {
		t.Errorf("wiped, and %d bytes used", used)
	}
}

// supportsPunch tells whether the temporary directory's file system gives blocks back.
func supportsPunch(t *testing.T) bool {
	f, err := openFile(filepath.Join(t.TempDir(), "x"), os.O_RDWR|os.O_CREATE, false)
	must(t, err)
	defer f.Close()
	must(t, f.allocate(8192))
	return f.Punch(0, 4096) == nil
}

// Single trims make room: a store that is full by its capacity takes another segment after as many as a segment takes.
func TestSingleTrimsMakeRoom(t *testing.T) {
	if !supportsPunch(t) {
		t.Skip("the file system gives no blocks back")
	}
	s := ready(t, Options{Capacity: 3 * segmentSize})
	for a := range layout.Address(48) {
		must(t, s.Write([]Page{entryPage(a)}))
	}
	if err := s.Write([]Page{entryPage(48)}); !errors.Is(err, ErrFull) {
		t.Fatalf("not full: %v", err)
	}
	s.Ahead(0, 40)
	eventually(t, "that it says so", func() bool { return s.Stats().Full })
	for a := layout.Address(0); a < 48; a += 2 {
		must(t, s.Trim(trimsOf(a)))
	}
	eventually(t, "room", func() bool { return s.Limit(0) == 64 })
	must(t, s.Write([]Page{entryPage(48)}))
	punched(t, s) // or more comes back between the two looks
	if st := s.Stats(); st.Used > 3*segmentSize || st.Used != diskUsed(t, s.Dir()) {
		t.Fatalf("%+v", st)
	}
}

// A file system that gives no blocks back: trims work all the same, nothing comes back, and the log says so once.
func TestWithoutPunchTrimsWork(t *testing.T) {
	fallocate = func(fd int, mode uint32, off, n int64) error {
		if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
			return unix.EOPNOTSUPP
		}
		return unix.Fallocate(fd, mode, off, n)
	}
	defer func() { fallocate = unix.Fallocate }()
	var log bytes.Buffer
	s, err := Open(t.TempDir(), 1, Options{SegmentPages: 16}, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	must(t, s.UpdateMeta(func(m *Meta) { m.Log, m.Layout = LogID(testLog), testLayout(4096) }))
	for a := range layout.Address(4) {
		must(t, s.Write([]Page{entryPage(a)}))
		must(t, s.Trim(trimsOf(a)))
		punched(t, s)
	}
	if used := s.Stats().Used; used != segmentSize || stateOf(t, s, 2) != wire.Trimmed {
		t.Errorf("used %d bytes, address 2 is %v", used, stateOf(t, s, 2))
	}
	must(t, s.Close())
	if n := strings.Count(log.String(), "give no space back"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

// Trims that come together cost one change of each segment's record, and what failed is said of each.
func TestTrimsGoTogether(t *testing.T) {
	files := map[string]*watch{}
	s := ready(t, Options{Wrap: func(path string, f File) File {
		w := &watch{File: f}
		files[filepath.Base(path)] = w
		return w
	}})
	for a := range layout.Address(32) {
		must(t, s.Write([]Page{entryPage(a)}))
	}
	one, two := files["seg-000000000000"], files["seg-000000000001"]
	one.writes, two.writes = 0, 0
	must(t, s.Trim(trimsOf(1, 20, 2, 21, 3)))
	if one.writes != 2 || two.writes != 2 || one.unsynced+two.unsynced != 0 {
		t.Fatalf("%d and %d writes, %d and %d without sync", one.writes, two.writes, one.unsynced, two.unsynced)
	}
	one.fail = unix.EIO
	list := trimsOf(4, 22, 5)
	if err := s.Trim(list); !errors.Is(err, unix.EIO) || !list[0].Failed || list[1].Failed || !list[2].Failed {
		t.Fatalf("%v %+v", err, list)
	}
	if stateOf(t, s, 4) != wire.Durable || stateOf(t, s, 22) != wire.Trimmed {
		t.Fatal("what failed is trimmed, or what did not is not")
	}
	one.fail = nil
	must(t, s.Trim(list))
	if stateOf(t, s, 4) != wire.Trimmed || list[0].Failed {
		t.Fatal("what failed cannot be tried again")
	}
}

// power is a supply that fails after so many changes of the disk: the one then is cut off in its middle, and nothing after it is made.
type power struct {
	mu   sync.Mutex
	left int
}

var errPower = errors.New("the power is off")

// use tells how much of a change of n blocks is made.
func (p *power) use(n int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left--
	switch {
	case p.left > 0:
		return n, nil
	case p.left == 0:
		return n / 2, errPower
	}
	return 0, errPower
}

// cutFile is a segment on that supply. Its units are parts of 512 bytes: a block may be torn.
type cutFile struct {
	File
	p *power
}

func (c cutFile) Write(bufs [][]byte, off int64, sync bool) error {
	b := bytes.Join(bufs, nil)
	n, err := c.p.use(len(b) / 512)
	if err == nil {
		return c.File.Write(bufs, off, sync)
	}
	whole := alignedBytes(len(b))
	if err := c.File.Read(whole, off); err != nil {
		return err
	}
	copy(whole, b[:n*512])
	return errors.Join(err, c.File.Write([][]byte{whole}, off, true))
}

func (c cutFile) Punch(off, n int64) error {
	k, err := c.p.use(int(n / 512))
	if err == nil {
		return c.File.Punch(off, n)
	}
	if k > 0 {
		err = errors.Join(err, c.File.Punch(off, int64(k)*512))
	}
	return err
}

// The power is cut at every change that trims make on the disk, marks and punches, in its middle: what was told is TRIMMED, what was
// not is that or the entry as it was, and nothing is CORRUPT or EMPTY. The next start trims on.
func TestEveryCrashPointOfATrim(t *testing.T) {
	notInLab(t)
	overBoth(t, func(t *testing.T, path string) {
		for point := 1; ; point++ {
			path := filepath.Join(filepath.Dir(path), fmt.Sprintf("%s-%d", filepath.Base(path), point))
			if strings.HasSuffix(t.Name(), "device") {
				must(t, errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, deviceBytes)))
			}
			p := &power{left: 1 << 30}
			s, err := Open(path, 1, Options{SegmentPages: 16, NoSync: true, Wrap: func(_ string, f File) File { return cutFile{f, p} }}, quiet())
			must(t, err)
			must(t, s.UpdateMeta(func(m *Meta) {
				m.Log, m.Layout, m.SettledBelow = LogID(testLog), testLayout(4096), 20
			}))
			for a := range layout.Address(20) {
				must(t, s.Write([]Page{entryPage(a)}))
			}
			p.mu.Lock()
			p.left = point
			p.mu.Unlock()
			asked, told := map[layout.Address]bool{}, map[layout.Address]bool{}
			for _, list := range [][]unit.Trim{trimsOf(2, 3, 17), trimsOf(5), trimsOf(3, 6, 18)} {
				_ = s.Trim(list)
				for _, x := range list {
					asked[x.Address] = true
					told[x.Address] = told[x.Address] || !x.Failed
				}
			}
			_ = s.Close()
			over := p.left > 0
			afterCut(t, path, point, asked, told)
			if over {
				if point < 8 {
					t.Fatalf("only %d changes", point)
				}
				return
			}
		}
	})
}

// afterCut starts on what is left, as a unit does.
func afterCut(t *testing.T, path string, point int, asked, told map[layout.Address]bool) {
	t.Helper()
	s, err := Open(path, 1, Options{NoSync: true}, quiet())
	must(t, err)
	defer func() { must(t, s.Close()) }()
	u := unit.New(1, testLog, 1)
	m := &window{make([]wire.Word, 64), alignedBytes(64 * 4096)}
	u.SetMemory(testLayout(4096), m)
	must(t, u.Load(s, 20, 0))
	for a := range layout.Address(20) {
		state := stateOf(t, s, a)
		good := state == wire.Durable && !told[a] || state == wire.Trimmed && asked[a]
		if !good || m.words[a].State() != state {
			t.Errorf("cut at change %d: address %d is %v, its word %v; asked %v, told %v", point, a, state, m.words[a], asked[a], told[a])
		}
	}
	must(t, s.Trim(trimsOf(2, 9)))
	if stateOf(t, s, 2) != wire.Trimmed || stateOf(t, s, 9) != wire.Trimmed {
		t.Errorf("cut at change %d: no trim after it", point)
	}
}

// A crash before the punch: the next one who opens the segment does it.
func TestSpaceComesBackAfterACrash(t *testing.T) {
	if !supportsPunch(t) {
		t.Skip("the file system gives no blocks back")
	}
	dir := t.TempDir()
	s := readyAt(t, dir, Options{Wrap: func(_ string, f File) File { return noPunch{f} }})
	for a := range layout.Address(16) {
		must(t, s.Write([]Page{entryPage(a)}))
	}
	must(t, s.Trim(trimsOf(4, 5)))
	punched(t, s)
	before := s.Stats().Used
	must(t, s.Close())
	s = open(t, dir, Options{})
	if stateOf(t, s, 4) != wire.Trimmed {
		t.Fatal("not trimmed")
	}
	eventually(t, "the space", func() bool { return s.Stats().Used == before-2*4096 })
}

type noPunch struct{ File }

func (noPunch) Punch(int64, int64) error { return errPower }

// A copy of the trims that the disk spoiled costs nothing, and the next trim writes it anew; fsck tells. Both gone: the pages are
// CORRUPT, never EMPTY below what was noted, and fsck tells.
func TestSpoiltTrimRecords(t *testing.T) {
	dir := filled(t, 16, 16)
	trim := func(as ...layout.Address) {
		s := open(t, dir, Options{})
		must(t, s.Trim(trimsOf(as...)))
		punched(t, s)
		must(t, s.Close())
	}
	states := func() (all string) {
		s := open(t, dir, Options{})
		for a := range layout.Address(8) {
			all += stateOf(t, s, a).String()[:1]
		}
		must(t, s.Close())
		return all
	}
	spoil := func(i int64) { damage(t, dir, "seg-000000000000", (16+i)*4096+64, []byte{0x55}) }
	trim(1, 3)
	for i := range int64(2) {
		spoil(i)
		if got := states(); got != "DTDTDDDD" {
			t.Fatalf("copy %d spoilt: %s", i, got)
		}
		if sum, all := fsck(t, dir); len(all) != 1 || sum.Trimmed != 2 || !strings.Contains(all[0].What, fmt.Sprintf("copy %d of its trims", i)) {
			t.Fatalf("copy %d spoilt: %+v %+v", i, sum, all)
		}
		trim(1, 3) // nothing new: nothing is written
		trim(layout.Address(5 + 2*i))
		if _, all := fsck(t, dir); len(all) != 0 {
			t.Fatalf("not written anew: %+v", all)
		}
		dir = filled(t, 16, 16)
		trim(1, 3)
	}
	spoil(0)
	spoil(1)
	sum, all := fsck(t, dir)
	if sum.Trimmed != 0 || len(all) != 3 || !strings.Contains(all[0].What, "its trims are lost") {
		t.Fatalf("both spoilt: %+v %+v", sum, all)
	}
}

// blindAbove fails reads from off on while blind is set.
type blindAbove struct {
	File
	off   int64
	blind *atomic.Bool
}

func (f blindAbove) Read(b []byte, off int64) error {
	if off >= f.off && f.blind.Load() {
		return unix.EIO
	}
	return f.File.Read(b, off)
}

// A disk that could not read the trims of a segment for a while, a path that was switched over, has not lost them: the next trim there adds to them.
func TestTrimsThatCouldNotBeReadAreNotLost(t *testing.T) {
	dir := filled(t, 16, 16)
	s := open(t, dir, Options{})
	must(t, s.Trim(trimsOf(1)))
	must(t, s.Close())
	var blind atomic.Bool
	blind.Store(true)
	s = open(t, dir, Options{Wrap: func(_ string, f File) File { return blindAbove{f, 16 * 4096, &blind} }})
	stateOf(t, s, 0) // opens the segment
	blind.Store(false)
	must(t, s.Trim(trimsOf(3)))
	must(t, s.Close())
	s = open(t, dir, Options{})
	for a, want := range []wire.State{wire.Durable, wire.Trimmed, wire.Durable, wire.Trimmed} {
		if got := stateOf(t, s, layout.Address(a)); got != want {
			t.Errorf("address %d is %v, want %v", a, got, want)
		}
	}
}

// A store of the release before, which knew no trims but marks in place, is read; from then on it can give space back, and that
// release refuses it. A release to come is refused with a line that says why.
func TestStoreOfTheReleaseBefore(t *testing.T) {
	dir := filled(t, 20, 20)
	for n := range uint64(2) {
		must(t, os.Truncate(segmentPath(dir, n), 16*4096))
	}
	mark := alignedBytes(4096)
	unit.Mark(mark, wire.Trimmed, testLog, 4, 1)
	damage(t, dir, "seg-000000000000", 4*4096, mark)
	meta := filepath.Join(dir, metaName)
	b, err := os.ReadFile(meta)
	must(t, err)
	must(t, os.WriteFile(meta, bytes.Replace(b, []byte("meta 4"), []byte("meta 1"), 1), 0o600))
	if sum, all := fsck(t, dir); len(all) != 0 || sum.Entries != 19 || sum.Trimmed != 1 {
		t.Fatalf("%+v %+v", sum, all)
	}
	s := open(t, dir, Options{})
	if b, _ := os.ReadFile(meta); !bytes.HasPrefix(b, []byte("corfu unit meta 4 ")) {
		t.Fatalf("%.30s", b)
	}
	wantPage(t, s, entryPage(3))
	if stateOf(t, s, 4) != wire.Trimmed {
		t.Fatal("a mark in place is not known any more")
	}
	must(t, s.Trim(trimsOf(3, 19)))
	punched(t, s)
	if used := s.Stats().Used; used != diskUsed(t, dir) {
		t.Fatalf("used %d", used)
	}
	must(t, s.Close())
	if sum, all := fsck(t, dir); len(all) != 0 || sum.Entries != 17 || sum.Trimmed != 3 {
		t.Fatalf("%+v %+v", sum, all)
	}
	must(t, os.WriteFile(meta, bytes.Replace(b, []byte("meta 4"), []byte("meta 5"), 1), 0o600))
	if _, err := Open(dir, 1, Options{}, quiet()); !errors.Is(err, ErrBadMeta) || !strings.Contains(err.Error(), "reads 1 to 4") {
		t.Fatal(err)
	}
}
