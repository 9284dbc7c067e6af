package flash

import (
	"fmt"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// ReadPage fills dst (one page) with the page of a; zero if it was never written. It may be called while Write
// runs: then it may see a page that is not durable, or half of one. Many goroutines may call it at a time; it waits while
// the disk has enough to read (Options.Reads).
func (s *Store) ReadPage(a layout.Address, dst []byte) error {
	x := s.shape.Load()
	if len(dst) != x.pageSize || x.pageSize == 0 {
		return fmt.Errorf("flash: read into %d bytes: %w", len(dst), unix.EINVAL)
	}
	s.turns.take()
	defer s.turns.give()
	if aligned(dst) {
		return s.read(x, a, dst)
	}
	page := s.borrow()
	defer s.bounce.Put(page)
	if err := s.read(x, a, *page); err != nil {
		return err
	}
	copy(dst, *page)
	return nil
}

// read fills b (aligned) with pages of one segment, from a on.
func (s *Store) read(x *shape, a layout.Address, b []byte) error {
	n, off := x.place(a)
	g := s.find(n)
	if g == nil {
		clear(b)
		return nil
	}
	f, err := s.acquire(g)
	if f == nil {
		clear(b)
		return err
	}
	defer g.release()
	return s.readMarked(g, f, x, a, b, off)
}

// scanBytes is how much Scan reads at once.
const scanBytes = 1 << 20

// Scan calls fn with every page at from … to−1 of the segments that exist, in order; the page is valid during the
// call, and nil if the disk cannot read it. It ends with fn's error. It takes the same memory for any number of pages.
func (s *Store) Scan(from, to layout.Address, fn func(a layout.Address, page []byte) error) error {
	x := s.shape.Load()
	if x.pageSize == 0 {
		return nil
	}
	per := layout.Address(x.perFile)
	buf := alignedBytes(min(scanBytes, int(x.pageBytes())))
	for _, n := range s.numbers() {
		last := min(to, layout.Address(n+1)*per)
		for a := max(from, layout.Address(n)*per); a < last; {
			count := layout.Address(len(buf) / x.pageSize)
			count = min(count, last-a)
			if err := s.scanPiece(x, a, buf[:int(count)*x.pageSize], fn); err != nil {
				return err
			}
			a += count
		}
	}
	return nil
}

func (s *Store) scanPiece(x *shape, a layout.Address, b []byte, fn func(a layout.Address, page []byte) error) error {
	bad := s.read(x, a, b)
	s.scanned.Add(int64(len(b)))
	for off := 0; off < len(b); off += x.pageSize {
		page := b[off : off+x.pageSize]
		if bad != nil {
			if err := s.read(x, a, page); err != nil {
				s.log.Error("the disk cannot read a page", "address", a, "error", err)
				s.unreadable.Add(1)
				page = nil
			}
		}
		if err := fn(a, page); err != nil {
			return err
		}
		a++
	}
	return nil
}
