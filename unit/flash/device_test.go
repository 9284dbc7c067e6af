package flash

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// A wiped unit gets the same addresses again. Its former pages and trims would verify there, and must not be seen: not in a slot
// that is used again, before and after a restart.
func TestReusedSlotShowsNothingOld(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		write := func(as ...layout.Address) {
			for _, a := range as {
				must(t, s.Write([]Page{entryPage(a)}))
			}
		}
		empty := func(from, to layout.Address) {
			t.Helper()
			for a := from; a < to; a++ {
				if state := stateOf(t, s, a); state != wire.Empty {
					t.Fatalf("address %d is %v", a, state)
				}
			}
		}
		for a := range layout.Address(48) {
			write(a)
		}
		must(t, s.Trim(trimsOf(7, 20)))
		must(t, s.Wipe())
		empty(0, 48)
		_, err := s.Reserve(0, 48)
		must(t, err)
		empty(0, 48)
		write(3)
		must(t, s.Close())
		s = open(t, path, Options{})
		empty(0, 3)
		empty(4, 48)
		// And by the other way: a prefix is given up, and what it took becomes the place of higher addresses.
		for a := range layout.Address(16) {
			write(a)
		}
		must(t, s.DropBelow(16))
		_, err = s.Reserve(48, 64)
		must(t, err)
		empty(0, 16)
		empty(48, 64)
	})
}

// What holds something else is not touched, unless that was asked for; a blank device needs no leave, and a store is
// never formatted.
func TestDeviceIsNotTakenFromOthers(t *testing.T) {
	notInLab(t)
	put := func(path string, at int64, b string) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte(b), at)
		must(t, errors.Join(err, f.Close()))
	}
	for _, c := range []struct {
		at    int64
		bytes string
		what  string
	}{
		{1080, "\x53\xef", "ext4"},
		{0, "XFSB", "xfs"},
		{65600, "_BHRfS_M", "btrfs"},
		{512, "EFI PART", "partition table"},
		{510, "\x55\xaa", "partition table"},
		{4086, "SWAPSPACE2", "swap"},
		{512, "LABELONE", "LVM"},
		{4096, magicMeta, "without its superblock"},
		{300000, "x", "first blocks"},
		{deviceBytes - 700000, "x", "last blocks"},
	} {
		path := blank(t)
		put(path, c.at, c.bytes)
		before, err := os.ReadFile(path)
		must(t, err)
		if _, err := Open(path, 1, Options{SegmentPages: 16}, quiet()); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: %v", c.what, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the device was changed", c.what)
		}
		s, err := Open(path, 1, Options{SegmentPages: 16, Format: true}, quiet())
		must(t, err)
		must(t, s.UpdateMeta(func(m *Meta) { m.Promise = 5 }))
		must(t, s.Close())
		// The same order again, as in a service's file: it is a store now.
		if s, err = Open(path, 1, Options{Format: true}, quiet()); err != nil || s.Meta().Promise != 5 {
			t.Fatal(err)
		}
		if _, err := Open(path, 1, Options{}, quiet()); !errors.Is(err, ErrLocked) {
			t.Errorf("a second process: %v", err)
		}
		must(t, s.Close())
		if _, err := Open(path, 2, Options{Format: true}, quiet()); !errors.Is(err, ErrOtherUnit) {
			t.Errorf("another unit: %v", err)
		}
		put(path, 3, "spoilt")
		put(path, deviceBytes-4000, "spoilt")
		if _, err := Open(path, 1, Options{SegmentPages: 16, Format: true}, quiet()); !errors.Is(err, errSuper) {
			t.Errorf("a damaged store: %v", err)
		}
	}
}

// Devices that cannot be used are refused with a line that says why.
func TestUnusableDevices(t *testing.T) {
	fails := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	openIt := func(path string, pages int) error {
		s, err := Open(path, 1, Options{SegmentPages: pages}, quiet())
		if err == nil {
			must(t, s.Close())
		}
		return err
	}
	fails(openIt("/dev/no-such-device", 0), "there is no device")
	fails(openIt("/dev/null", 0), "neither a directory nor a block device")
	path := blank(t)
	fails(openIt(path, 16384), "too few")
	must(t, openIt(path, 16))
	must(t, os.Truncate(path, deviceBytes-4096))
	fails(openIt(path, 16), "a part of it is missing")
	must(t, os.Truncate(path, deviceBytes+1<<20))
	must(t, openIt(path, 16)) // a larger one is as good
	_, err := OpenInspector(blank(t))
	fails(err, "no unit's store")
}

// One of two superblocks is enough to know whose it is. Without the first one nothing is served until somebody says that
// it is to be written again.
func TestSuperblockIsRestored(t *testing.T) {
	for i, at := range []int64{0, deviceBytes - 4096} {
		path := filledAt(t, blank(t), 20, 20)
		damage(t, path, "", at, make([]byte, 512))
		s, err := Open(path, 1, Options{}, quiet())
		switch {
		case i == 0 && (err == nil || !strings.Contains(err.Error(), "of unit 1: corfu fsck --repair")):
			t.Fatal(err)
		case i == 1 && err != nil:
			t.Fatal(err)
		case i == 1:
			must(t, s.Close())
			if _, all := fsck(t, path); len(all) != 1 || !strings.Contains(all[0].What, "superblock: copy 1") {
				t.Fatalf("%+v", all)
			}
		}
		done, err := RestoreSuperblock(path)
		must(t, err)
		if !done {
			t.Fatal("not done")
		}
		if done, err := RestoreSuperblock(path); done || err != nil {
			t.Fatal("done twice", err)
		}
		if sum, all := fsck(t, path); len(all) != 0 || sum.Entries != 20 {
			t.Fatalf("%+v %+v", sum, all)
		}
	}
}

// Fsck and the tools read a device as they read a directory.
func TestFsckReadsADevice(t *testing.T) {
	path := filledAt(t, blank(t), 40, 36)
	s := open(t, path, Options{})
	must(t, s.Trim(trimsOf(4, 33)))
	if _, err := OpenInspector(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("looked at while it runs: %v", err)
	}
	must(t, s.Close())
	want := Summary{Entries: 38, Trimmed: 2, Settled: 36, Watermark: 40, End: 40}
	if sum, all := fsck(t, path); len(all) != 0 || sum != want {
		t.Fatalf("a sound store: %+v %v", sum, all)
	}
	v, err := openDevice(path, access{readonly: true})
	must(t, err)
	d := v.(*device)
	where := d.super.dataAt + int64(d.table.where[0])*segmentSize
	must(t, v.close())
	damage(t, path, "", where+3*4096+70, []byte{0xff})
	damage(t, path, "", where+4*4096+70, []byte{0xff}) // trimmed
	damage(t, path, "", d.super.tableAt+70, []byte{0xff})
	damage(t, path, "", d.super.metaAt+metaRecord+70, []byte{0xff})
	sum, all := fsck(t, path)
	want.Entries, want.Problems, want.Watermark = 37, 3, 3
	if sum != want || len(all) != 3 || !strings.Contains(all[0].What, "meta: copy 1") || !strings.Contains(all[1].What, "segment table: copy 0") ||
		all[2].Address != 3 {
		t.Fatalf("%+v %+v", sum, all)
	}
	must(t, Repair(path, Summary{Watermark: 38}))
	if m := open(t, path, Options{}).Meta(); m.SettledBelow != 38 {
		t.Fatalf("%+v", m)
	}
}

// A device is full when all its slots are taken, and goes on after a trim.
func TestDeviceIsFullAndGoesOn(t *testing.T) {
	s := readyAt(t, blank(t), Options{})
	limit, err := s.Reserve(0, 1<<20)
	n := int64(limit) / 16
	if !errors.Is(err, ErrFull) || s.Stats().Used != n*segmentSize || n < (deviceBytes-(4<<20))/segmentSize {
		t.Fatal(limit, err, s.Stats())
	}
	must(t, s.Write([]Page{entryPage(limit - 1)}))
	must(t, s.DropBelow(32))
	if to, err := s.Reserve(32, limit+32); err != nil || to != limit+32 {
		t.Fatal(to, err)
	}
	wantPage(t, s, entryPage(limit-1))
	if st := s.Stats(); st.Used != n*segmentSize {
		t.Fatalf("%+v", st)
	}
}

// R3, R14: what a device notes beside the pages, meta and table, is on stable storage when it is told: each write goes with DSYNC.
func TestR3DeviceNotesAreDurable(t *testing.T) {
	s := readyAt(t, blank(t), Options{})
	d := s.vol.(*device)
	if buffered(d.f) {
		t.Skip("no O_DIRECT here: each write is followed by fdatasync")
	}
	var notes, volatile int
	pwritev2 = func(fd int, iovs [][]byte, off int64, flags int) (int, error) {
		if off < d.super.dataAt {
			if notes++; flags&unix.RWF_DSYNC == 0 {
				volatile++
			}
		}
		return unix.Pwritev2(fd, iovs, off, flags)
	}
	defer func() { pwritev2 = unix.Pwritev2 }()
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise = 7 }))
	_, err := s.Reserve(0, 16)
	must(t, err)
	must(t, s.Wipe())
	if notes != 6 || volatile != 0 {
		t.Fatalf("%d notes, %d of them volatile", notes, volatile)
	}
}

// The power is cut at every write to a device, in its middle: formatting, metas, new segments, pages, trims, segments given back, a
// wipe. What was told is there, what was wiped is not, and the next start goes on.
func TestEveryCrashPointOfADevice(t *testing.T) {
	notInLab(t)
	defer func() { pwritev2, fallocate = unix.Pwritev2, unix.Fallocate }()
	fallocate = func(int, uint32, int64, int64) error { return unix.EOPNOTSUPP } // zeros are written
	path := filepath.Join(t.TempDir(), "device")
	for point := 1; ; point++ {
		must(t, errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, deviceBytes)))
		p := &power{left: point}
		pwritev2 = func(fd int, iovs [][]byte, off int64, flags int) (int, error) {
			b := bytes.Join(iovs, nil)
			n, err := p.use(len(b) / align)
			if n > 0 {
				whole := alignedBytes(n * align)
				copy(whole, b)
				if _, err := unix.Pwritev2(fd, [][]byte{whole}, off, flags); err != nil {
					return 0, err
				}
			}
			if err != nil {
				return 0, err
			}
			return len(b), nil
		}
		told := deviceLife(path)
		pwritev2 = unix.Pwritev2
		over := p.left > 0
		deviceAfter(t, path, point, told)
		if over {
			if point < 30 {
				t.Fatalf("only %d writes", point)
			}
			return
		}
	}
}

// lived is what a unit was told before the power went.
type lived struct {
	promise layout.Epoch
	entries map[layout.Address]bool // true: told; false: tried
	trims   map[layout.Address]bool
}

func deviceLife(path string) (l lived) {
	l.entries, l.trims = map[layout.Address]bool{}, map[layout.Address]bool{}
	s, err := Open(path, 1, Options{SegmentPages: 16, NoSync: true}, quiet()) // the supply decides what is on the disk
	if err != nil {
		return l
	}
	defer s.Close()
	put := func(from, to layout.Address) {
		for a := from; a < to; a += 5 {
			l.entries[a] = false
			l.entries[a] = s.Write([]Page{entryPage(a)}) == nil
		}
	}
	promise := func(e layout.Epoch) {
		if s.UpdateMeta(func(m *Meta) { m.Promise, m.Log, m.Layout = e, LogID(testLog), testLayout(4096) }) == nil {
			l.promise = e
		}
	}
	promise(1)
	put(0, 40)
	promise(2)
	l.trims[5] = false
	l.trims[5] = s.Trim(trimsOf(5)) == nil
	if s.DropBelow(16) == nil {
		for a := range layout.Address(16) {
			delete(l.entries, a)
			delete(l.trims, a)
		}
	}
	put(48, 60)
	if s.Wipe() == nil {
		clear(l.entries)
		clear(l.trims)
	} else {
		for a := range l.entries {
			l.entries[a] = false
		}
		for a := range l.trims {
			l.trims[a] = false
		}
	}
	promise(3)
	put(1, 20)
	return l
}

func deviceAfter(t *testing.T, path string, point int, l lived) {
	t.Helper()
	s, err := Open(path, 1, Options{SegmentPages: 16, Format: true, NoSync: true}, quiet())
	if err != nil {
		// Nothing was told yet, and the superblocks were being written.
		if l.promise == 0 && strings.Contains(err.Error(), "fsck --repair") {
			return
		}
		t.Fatalf("cut at write %d: %v", point, err)
	}
	defer func() { must(t, s.Close()) }()
	if got := s.Meta().Promise; got < l.promise {
		t.Fatalf("cut at write %d: promise %d, told %d", point, got, l.promise)
	}
	if s.Meta().Layout == nil {
		return
	}
	for a := range layout.Address(64) {
		state := stateOf(t, s, a)
		told, tried := l.entries[a]
		trimTold, trimTried := l.trims[a]
		good := state == wire.Durable && tried && !trimTold ||
			state == wire.Trimmed && trimTried ||
			state == wire.Empty && !told
		if !good {
			t.Errorf("cut at write %d: address %d is %v; tried %v told %v, trim tried %v told %v", point, a, state, tried, told, trimTried, trimTold)
		}
	}
	must(t, s.Wipe())
	must(t, s.Write([]Page{entryPage(9)}))
	wantPage(t, s, entryPage(9))
}

// In the lab, which has block devices: formatting, exclusive use and a unit's life on a loop device.
func TestBlockDevice(t *testing.T) {
	if os.Getenv("CORFU_LAB") != "1" {
		t.Skip("asks for a block device: runs in the lab")
	}
	path := loopDevice(t)
	s, err := Open(path, 1, Options{SegmentPages: 16}, quiet())
	must(t, err)
	must(t, s.UpdateMeta(func(m *Meta) { m.Log, m.Layout, m.SettledBelow = LogID(testLog), testLayout(4096), 40 }))
	if buffered(s.vol.(*device).f) {
		t.Error("not with O_DIRECT")
	}
	for a := range layout.Address(40) {
		must(t, s.Write([]Page{entryPage(a)}))
	}
	must(t, s.Trim(trimsOf(4)))
	if _, err := Open(path, 1, Options{}, quiet()); !errors.Is(err, ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	must(t, s.Close())
	if sum, all := fsck(t, path); len(all) != 0 || sum.Entries != 39 || sum.Trimmed != 1 {
		t.Fatalf("%+v %+v", sum, all)
	}
	s = open(t, path, Options{})
	u := unit.New(1, testLog, 1)
	m := &window{make([]wire.Word, 64), alignedBytes(64 * 4096)}
	u.SetMemory(testLayout(4096), m)
	must(t, u.Load(s, 40, 0))
	if v := u.View(); v.Watermark != 40 || m.words[4].State() != wire.Trimmed || m.words[5].State() != wire.Durable {
		t.Fatalf("%+v %v %v", v, m.words[4], m.words[5])
	}
	must(t, s.Wipe()) // BLKDISCARD
	_, err = s.Reserve(0, 64)
	must(t, err) // BLKZEROOUT
	for a := range layout.Address(64) {
		if state := stateOf(t, s, a); state != wire.Empty {
			t.Fatalf("address %d is %v", a, state)
		}
	}
}
