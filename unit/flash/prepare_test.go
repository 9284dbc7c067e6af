package flash

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// eventually waits for what the background does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

func (s *Store) idleZero() bool {
	for _, n := range s.numbers() {
		g := s.find(n)
		if !g.fresh.Load() {
			continue
		}
		if !g.mu.TryLock() {
			return false
		}
		g.mu.Unlock()
	}
	return len(s.wake) == 0
}

// One segment is always ready ahead, zeroed, and pages that come while it is being zeroed are not overwritten.
func TestAheadMakesSegmentsAndClobbersNothing(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		limit, err := s.Reserve(0, 20)
		must(t, err)
		if limit != 32 {
			t.Fatalf("room below %d", limit)
		}
		s.Ahead(0, 20)
		for a := range layout.Address(48) {
			if a == 32 {
				<-s.Grown() // a write that came before would have made the segment itself
			}
			must(t, s.Write([]Page{page(a, 0)}))
		}
		eventually(t, "room", func() bool { return s.Limit(0) == 48 })
		eventually(t, "the zeros", s.idleZero)
		for a := range layout.Address(48) {
			wantPage(t, s, page(a, 0))
		}
		if st := s.Stats(); st != (Stats{Used: 3 * segmentSize, Segments: 3}) {
			t.Fatalf("%+v", st)
		}
	})
}

// A zeroed segment has its blocks written: no extent is left that a first write would have to convert.
func TestAheadZeroesForReal(t *testing.T) {
	wrote := map[string]int{}
	s := ready(t, Options{Wrap: func(path string, f File) File { return &counted{f, wrote, filepath.Base(path)} }})
	s.Ahead(0, 16)
	eventually(t, "the zeros", func() bool {
		g := s.find(1)
		return g != nil && s.idleZero() && len(s.grown) == 1 && g.fill.TryLock()
	})
	must(t, s.Close())
	if wrote["seg-000000000000"] != segmentSize || wrote["seg-000000000001"] != segmentSize {
		t.Fatalf("zeros written: %v", wrote)
	}
}

type counted struct {
	File
	wrote map[string]int
	name  string
}

func (c *counted) Write(bufs [][]byte, off int64, sync bool) error {
	for _, b := range bufs {
		c.wrote[c.name] += len(b)
	}
	return c.File.Write(bufs, off, sync)
}

// Capacity is kept exactly, reads and trims go on when it is reached, and so do writes after a trim.
func TestCapacity(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		const segment = segmentSize
		s := readyAt(t, path, Options{Capacity: 3*segment + segment/2})
		limit, err := s.Reserve(0, 100)
		if !errors.Is(err, ErrFull) || limit != 48 {
			t.Fatalf("room below %d, %v", limit, err)
		}
		pages := []Page{page(47, 0), page(48, 0)}
		if err := s.Write(pages); !errors.Is(err, ErrFull) || pages[0].Failed || !pages[1].Failed {
			t.Fatalf("%v %v %v", err, pages[0].Failed, pages[1].Failed)
		}
		wantPage(t, s, page(47, 0))
		s.Ahead(40, 60)
		eventually(t, "that it says so", func() bool { return s.Stats().Full })
		must(t, s.DropBelow(33)) // two segments
		eventually(t, "more room", func() bool { return s.Limit(33) == 80 })
		must(t, s.Write([]Page{page(48, 0)}))
		if st := s.Stats(); st.Used != 3*segment || st.Segments != 3 {
			t.Fatalf("%+v", st)
		}
		// What comes late for an address that was given up leaves nothing behind.
		must(t, s.Write([]Page{page(3, 0)}))
		if n := s.numbers(); len(n) != 3 || n[0] != 2 {
			t.Fatalf("segments %v", n)
		}
		dir := s.Dir()
		must(t, s.Close())
		if st := open(t, dir, Options{}).Stats(); st.Used != 3*segment {
			t.Fatalf("after a restart: %+v", st)
		}
	})
}

// A segment is there with all its space, or not at all: what a crash left is taken away.
func TestHalfMadeSegmentIsTakenAway(t *testing.T) {
	s := ready(t, Options{})
	must(t, s.Write([]Page{page(0, 0)}))
	dir := s.Dir()
	must(t, s.Close())
	half := filepath.Join(dir, "new-000000000001")
	must(t, os.WriteFile(half, make([]byte, 4096), 0o600))
	s = open(t, dir, Options{})
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) || len(s.numbers()) != 1 {
		t.Fatal(err, s.numbers())
	}
}

// A short write is taken up where it ended, an interrupted one again; none at all is an error.
func TestShortWriteIsTakenUp(t *testing.T) {
	s := ready(t, Options{})
	calls := 0
	pwritev2 = func(fd int, iovs [][]byte, off int64, flags int) (int, error) {
		switch calls++; calls {
		case 1:
			return 0, unix.EINTR
		case 2:
			return unix.Pwritev2(fd, [][]byte{iovs[0][:4096]}, off, flags)
		}
		return unix.Pwritev2(fd, iovs, off, flags)
	}
	defer func() { pwritev2 = unix.Pwritev2 }()
	ring := alignedBytes(3 * 4096)
	var pages []Page
	for i := range 3 {
		b := ring[i*4096 : (i+1)*4096]
		copy(b, page(layout.Address(i), 0).Bytes)
		pages = append(pages, Page{Address: layout.Address(i), Bytes: b})
	}
	must(t, s.Write(pages))
	if calls != 3 {
		t.Fatalf("%d calls", calls)
	}
	for i := range 3 {
		wantPage(t, s, page(layout.Address(i), 0))
	}
	pwritev2 = func(int, [][]byte, int64, int) (int, error) { return 0, nil }
	if err := s.Write(pages); err == nil || !pages[2].Failed {
		t.Fatal("nothing was written, and that is no error")
	}
}

// A run that fails does not take the others with it.
func TestOneBadRunFailsAlone(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{Wrap: func(_ string, f File) File { return badBlock{f} }})
		pages := []Page{page(1, 0), page(3, 0), page(4, 0), page(5, 0), page(9, 0), page(23, 0)}
		for range 2 { // side by side, and many runs with one sync
			if err := s.Write(pages); !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
			for _, p := range pages {
				if bad := p.Address >= 3 && p.Address <= 5; p.Failed != bad {
					t.Errorf("page %d: failed is %v", p.Address, p.Failed)
				}
			}
			pages = append(pages, page(25, 0), page(27, 0))
		}
	})
}

// badBlock cannot write the block of address 4.
type badBlock struct{ File }

func (f badBlock) Write(bufs [][]byte, off int64, sync bool) error {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	if off <= 4*4096 && off+n > 4*4096 {
		return unix.EIO
	}
	return f.File.Write(bufs, off, sync)
}

// A disk without room is a full store: nothing is left of the segment that did not fit, what is there can
// be read and overwritten, and it goes on when there is room.
func TestNoSpaceIsFull(t *testing.T) {
	s := ready(t, Options{})
	must(t, s.Write([]Page{page(0, 0)}))
	fallocate = func(int, uint32, int64, int64) error { return unix.ENOSPC }
	defer func() { fallocate = unix.Fallocate }()
	if limit, err := s.Reserve(0, 17); !errors.Is(err, ErrFull) || limit != 16 {
		t.Fatal(limit, err)
	}
	must(t, s.Write([]Page{page(0, 3)}))
	wantPage(t, s, page(0, 3))
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), "*-000000000001")); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
	fallocate = unix.Fallocate
	if limit, err := s.Reserve(0, 17); err != nil || limit != 32 {
		t.Fatal(limit, err)
	}
}

// TestASignalIsNoFullDisk: fallocate may end with EINTR, on tmpfs for one, and is begun again.
func TestASignalIsNoFullDisk(t *testing.T) {
	signals := 2
	fallocate = func(fd int, mode uint32, off, n int64) error {
		if signals--; signals >= 0 {
			return unix.EINTR
		}
		return unix.Fallocate(fd, mode, off, n)
	}
	defer func() { fallocate = unix.Fallocate }()
	s := ready(t, Options{})
	if limit, err := s.Reserve(0, 17); err != nil || limit != 32 {
		t.Error(limit, err)
	}
	if signals >= 0 {
		t.Error("no segment was made")
	}
}
