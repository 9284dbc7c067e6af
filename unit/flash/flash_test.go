package flash

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"corfu/layout"
)

var testLog = layout.LogID{7}

func testLayout(pageSize int) *layout.Layout {
	return &layout.Layout{Log: testLog, Epoch: 1, Geometry: layout.Geometry{PageSize: pageSize, Window: 64, SessionSlots: 1, MaxSessions: 1},
		Sequencer: layout.Sequencer{ID: 1, Control: "s"}, Units: []layout.Unit{{ID: 1, Control: "u"}},
		Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1}}}}}}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, 1, o, quiet())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// segmentSize is the space of a segment of 16 pages: and its trims, twice.
const segmentSize = (16 + 2) * 4096

// overBoth runs fn over both kinds of volume, with a path at which no store is yet. A file stands in for the block device: it
// is opened in another way, and nothing else differs.
func overBoth(t *testing.T, fn func(t *testing.T, path string)) {
	t.Run("directory", func(t *testing.T) { fn(t, t.TempDir()) })
	t.Run("device", func(t *testing.T) { fn(t, blank(t)) })
}

// deviceBytes is the size of the device that blank makes: its head takes a little more than 2 MiB.
const deviceBytes = 8 << 20

func blank(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "device")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, deviceBytes)); err != nil {
		t.Fatal(err)
	}
	return path
}

// ready opens a store in a directory that knows its page size, 16 pages in a segment.
func ready(t *testing.T, o Options) *Store {
	t.Helper()
	return readyAt(t, t.TempDir(), o)
}

func readyAt(t *testing.T, path string, o Options) *Store {
	t.Helper()
	o.SegmentPages = 16
	s := open(t, path, o)
	must(t, s.UpdateMeta(func(m *Meta) { m.Log, m.Layout = LogID(testLog), testLayout(4096) }))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func page(a layout.Address, version byte) Page {
	b := alignedBytes(4096)
	for i := range b {
		b[i] = byte(a) + byte(i) + version
	}
	b[0] = 1 // never zero
	return Page{Address: a, Bytes: b}
}

func wantPage(t *testing.T, s *Store, want Page) {
	t.Helper()
	got := make([]byte, 4096)
	must(t, s.ReadPage(want.Address, got))
	if !bytes.Equal(got, want.Bytes) {
		t.Fatalf("page %d is not what was written", want.Address)
	}
}

func TestWriteReadAndScanAfterReopen(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		// A run over a segment's end, a gap, a page that is not aligned, and one far away.
		odd := page(33, 0)
		odd.Bytes = append(make([]byte, 1, 4097), odd.Bytes...)[1:]
		pages := []Page{page(14, 0), page(15, 0), page(16, 0), page(17, 0), page(20, 0), odd, page(1000, 0)}
		must(t, s.Write(pages))
		must(t, s.Write([]Page{page(16, 9)}))
		pages[2] = page(16, 9)
		zero := Page{Address: 18, Bytes: make([]byte, 4096)}
		dir := s.Dir()
		must(t, s.Close())
		s = open(t, dir, Options{})
		for _, p := range append(pages, zero, Page{Address: 5000, Bytes: zero.Bytes}) {
			wantPage(t, s, p)
		}
		var found []layout.Address
		must(t, s.Scan(15, 2000, func(a layout.Address, b []byte) error {
			if b[0] != 0 {
				found = append(found, a)
				if i := slices.IndexFunc(pages, func(p Page) bool { return p.Address == a }); !bytes.Equal(pages[i].Bytes, b) {
					t.Errorf("scan gives something else at %d", a)
				}
			}
			return nil
		}))
		if want := []layout.Address{15, 16, 17, 20, 33, 1000}; !slices.Equal(found, want) {
			t.Fatalf("scan found %v, want %v", found, want)
		}
	})
}

// A directory whose name means something to a shell holds its own pages after a restart, and touches nothing of the one that the name would match.
func TestDirectoryIsTakenAtItsName(t *testing.T) {
	above := t.TempDir()
	dir, other := filepath.Join(above, "unit[1]"), filepath.Join(above, "unit1")
	must(t, os.Mkdir(other, 0o700))
	theirs := filepath.Join(other, "new-000000000000")
	must(t, os.WriteFile(theirs, nil, 0o600))
	p := page(3, 1)
	s := readyAt(t, dir, Options{})
	must(t, s.Write([]Page{p}))
	must(t, s.Close())

	s = open(t, dir, Options{})
	got := make([]byte, 4096)
	must(t, s.ReadPage(3, got))
	if !bytes.Equal(got, p.Bytes) {
		t.Error("a durable page is gone after a restart")
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("a file of another directory: %v", err)
	}
}

func TestNeighboursGoInOnePiece(t *testing.T) {
	ring := alignedBytes(8 * 4096)
	slot := func(i int) []byte { return ring[i*4096 : (i+1)*4096] }
	var bufs [][]byte
	for _, i := range []int{2, 3, 4, 7, 0, 1} {
		bufs = join(bufs, slot(i))
	}
	var sizes []int
	for _, b := range bufs {
		sizes = append(sizes, len(b)/4096)
	}
	if !slices.Equal(sizes, []int{3, 1, 2}) {
		t.Fatalf("pieces of %v pages", sizes)
	}
}

// watch notes what is written and what was made durable.
type watch struct {
	File
	fail     error
	torn     bool
	mu       sync.Mutex
	unsynced int
	writes   int
}

func (w *watch) Write(bufs [][]byte, off int64, sync bool) error {
	if w.fail != nil {
		if w.torn {
			half := alignedBytes(4096)
			copy(half, bufs[0][:2048])
			_ = w.File.Write([][]byte{half}, off, true)
		}
		return w.fail
	}
	w.mu.Lock()
	w.writes++
	if !sync {
		w.unsynced++
	}
	w.mu.Unlock()
	return w.File.Write(bufs, off, sync)
}

func (w *watch) Sync() error {
	if w.fail != nil {
		return w.fail
	}
	w.unsynced = 0
	return w.File.Sync()
}

// R3, as far as the store goes: Write returns when every file it touched was brought to stable storage.
func TestR3WriteLeavesNothingVolatile(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		var files []*watch
		s := readyAt(t, path, Options{Wrap: func(_ string, f File) File {
			files = append(files, &watch{File: f})
			return files[len(files)-1]
		}})
		must(t, s.Write([]Page{page(0, 0)}))
		must(t, s.Write([]Page{page(1, 0), page(3, 0), page(16, 0), page(17, 0), page(40, 0)}))
		must(t, s.Write([]Page{page(2, 0), page(4, 0), page(6, 0), page(17, 0), page(19, 0), page(21, 0), page(40, 0)}))
		if len(files) != 3 {
			t.Fatalf("%d files", len(files))
		}
		for i, f := range files {
			if f.unsynced != 0 || f.writes == 0 {
				t.Errorf("file %d: %d writes not synced, %d writes", i, f.unsynced, f.writes)
			}
		}
	})
}

func TestFailedWriteIsReportedAndRepeated(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		boom := errors.New("boom")
		var f *watch
		s := readyAt(t, path, Options{Wrap: func(_ string, x File) File { f = &watch{File: x}; return f }})
		must(t, s.Write([]Page{page(0, 0)}))
		f.fail, f.torn = boom, true
		if err := s.Write([]Page{page(0, 5)}); !errors.Is(err, boom) {
			t.Fatalf("error is %v", err)
		}
		f.fail = nil
		must(t, s.Write([]Page{page(0, 5)}))
		wantPage(t, s, page(0, 5))
	})
}

func TestDirectoryBelongsToOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "unit")
	s := open(t, dir, Options{})
	if _, err := Open(dir, 1, Options{}, quiet()); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second process: %v", err)
	}
	must(t, s.Close())
	if _, err := Open(dir, 2, Options{}, quiet()); !errors.Is(err, ErrOtherUnit) {
		t.Fatalf("another unit: %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, metaName)))
	must(t, os.WriteFile(filepath.Join(dir, "seg-000000000000"), nil, 0o600))
	if _, err := Open(dir, 1, Options{}, quiet()); !errors.Is(err, ErrBadMeta) {
		t.Fatalf("segments without meta: %v", err)
	}
}

func TestMetaIsKept(t *testing.T) {
	s := ready(t, Options{})
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise, m.TrimmedBelow, m.SettledBelow = 9, 3, 5 }))
	want := s.Meta()
	dir := s.Dir()
	must(t, s.Close())
	// A crash between writing and renaming leaves the old one.
	must(t, os.WriteFile(filepath.Join(dir, "meta.tmp"), []byte("half of a new o"), 0o600))
	got := open(t, dir, Options{}).Meta()
	a, _ := encodeMeta(want)
	b, _ := encodeMeta(got)
	if !bytes.Equal(a, b) || got.Promise != 9 || got.Layout.Geometry.PageSize != 4096 {
		t.Fatalf("meta is\n%s, want\n%s", b, a)
	}
}

func TestDamagedMetaIsRefused(t *testing.T) {
	s := ready(t, Options{})
	path := filepath.Join(s.Dir(), metaName)
	good, err := os.ReadFile(path)
	must(t, err)
	must(t, s.Close())
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if _, err := decodeMeta(bad); !errors.Is(err, ErrBadMeta) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	if _, err := decodeMeta(good); err != nil {
		t.Fatal(err)
	}
}

func TestDropBelowAndWipe(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		must(t, s.Write([]Page{page(0, 0), page(16, 0), page(40, 0)}))
		must(t, s.DropBelow(33))
		wantPage(t, s, Page{Address: 0, Bytes: make([]byte, 4096)})
		wantPage(t, s, Page{Address: 16, Bytes: make([]byte, 4096)})
		wantPage(t, s, page(40, 0))
		must(t, s.Wipe())
		wantPage(t, s, Page{Address: 40, Bytes: make([]byte, 4096)})
		if left, err := s.vol.list(); len(left) != 0 || err != nil || s.Stats().Used != 0 {
			t.Fatalf("left: %v, %v, %+v", left, err, s.Stats())
		}
		must(t, s.Write([]Page{page(0, 3)}))
		wantPage(t, s, page(0, 3))
	})
}

func TestNeedsGeometry(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	if err := s.Write([]Page{page(0, 0)}); err == nil {
		t.Fatal("wrote a page of unknown size")
	}
}

func FuzzMeta(f *testing.F) {
	good, _ := encodeMeta(Meta{Unit: 1, SegmentPages: 16, Log: LogID(testLog), Layout: testLayout(4096)})
	f.Add(good)
	f.Add([]byte("corfu unit meta 1 crc32c 00000000\n"))
	noted, _ := encodeMeta(Meta{Unit: 1, SegmentPages: 64, Corrupt: []layout.Address{3, 40}, MoreCorrupt: true})
	f.Add(noted)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := encodeMeta(m)
		must(t, err)
		if x, err := decodeMeta(again); err != nil || x.Promise != m.Promise {
			t.Fatal(x, err)
		}
	})
}

// BenchmarkWrite: go test -run - -bench Write ./unit/flash
func BenchmarkWrite(b *testing.B) {
	s, err := Open(b.TempDir(), 1, Options{}, quiet())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.UpdateMeta(func(m *Meta) { m.Log, m.Layout = LogID(testLog), testLayout(4096) }); err != nil {
		b.Fatal(err)
	}
	one := []Page{page(0, 0)}
	b.ReportAllocs()
	for b.Loop() {
		one[0].Address = (one[0].Address + 1) % 16384
		if err := s.Write(one); err != nil {
			b.Fatal(err)
		}
	}
}
