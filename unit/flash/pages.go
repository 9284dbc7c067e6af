package flash

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// Write writes pages, in the order of their addresses, and returns when all of them are durable.
// If it fails any of them may be on flash, whole or torn. Neighbours in
// address and memory go in one piece. Bytes that are not aligned to 4096 are copied.
func (s *Store) Write(pages []Page) error {
	if len(pages) == 0 {
		return nil
	}
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.touched = s.touched[:0]
	for i := 0; i < len(pages); {
		n, err := s.run(pages[i:])
		if err != nil {
			return err
		}
		f, off, err := s.open(pages[i].Address)
		if err != nil {
			return err
		}
		// One run needs no other sync than its own.
		alone := n == len(pages)
		if err := s.writeRun(f, pages[i:i+n], off, alone); err != nil {
			return err
		}
		if !alone && (len(s.touched) == 0 || s.touched[len(s.touched)-1] != f) {
			s.touched = append(s.touched, f)
		}
		i += n
	}
	for _, f := range s.touched {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// open gives the file that a lives in, made if need be.
func (s *Store) open(a layout.Address) (File, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, off := s.place(a)
	f, err := s.segment(n, true)
	return f, off, err
}

// run counts the pages from the first on that lie one behind the other in one segment.
func (s *Store) run(pages []Page) (int, error) {
	x := s.shape.Load()
	per := uint64(x.perFile)
	first := uint64(pages[0].Address)
	for i, p := range pages {
		if len(p.Bytes) != x.pageSize {
			return 0, fmt.Errorf("flash: page of %d bytes at address %d: must be %d", len(p.Bytes), p.Address, x.pageSize)
		}
		if uint64(p.Address) != first+uint64(i) || uint64(p.Address)/per != first/per {
			return i, nil
		}
	}
	return len(pages), nil
}

func (s *Store) writeRun(f File, pages []Page, off int64, sync bool) error {
	s.bufs = s.bufs[:0]
	var borrowed []*[]byte
	for _, p := range pages {
		b := p.Bytes
		if !aligned(b) {
			page := s.borrow()
			borrowed = append(borrowed, page)
			copy(*page, b)
			b = *page
		}
		s.bufs = join(s.bufs, b)
	}
	err := f.Write(s.bufs, off, sync)
	for _, p := range borrowed {
		s.bounce.Put(p)
	}
	return err
}

// join appends b to bufs, as a part of the last one if it stands right behind it in memory.
func join(bufs [][]byte, b []byte) [][]byte {
	if n := len(bufs); n > 0 {
		last := bufs[n-1]
		if cap(last)-len(last) >= len(b) && &last[:len(last)+1][len(last)] == &b[0] {
			bufs[n-1] = last[:len(last)+len(b)]
			return bufs
		}
	}
	return append(bufs, b)
}

func aligned(b []byte) bool { return uintptr(unsafe.Pointer(&b[0]))%align == 0 }

// borrow gives an aligned buffer of one page.
func (s *Store) borrow() *[]byte {
	n := s.shape.Load().pageSize
	if b, ok := s.bounce.Get().(*[]byte); ok && len(*b) == n {
		return b
	}
	b := alignedBytes(n)
	return &b
}

// alignedBytes gives n aligned bytes of the heap, which does not move.
func alignedBytes(n int) []byte {
	b := make([]byte, n+align)
	skip := (align - int(uintptr(unsafe.Pointer(&b[0]))%align)) % align
	return b[skip : skip+n : skip+n]
}

// ReadPage fills dst (one page) with the page of a; zero if it was never written. It may be called while Write
// runs: then it may see a page that is not durable, or half of one.
func (s *Store) ReadPage(a layout.Address, dst []byte) error {
	if len(dst) != s.shape.Load().pageSize {
		return fmt.Errorf("flash: read into %d bytes: %w", len(dst), unix.EINVAL)
	}
	f, off, unlock, err := s.reader(a)
	if err != nil {
		return err
	}
	defer unlock()
	if f == nil {
		clear(dst)
		return nil
	}
	if aligned(dst) {
		return f.Read(dst, off)
	}
	page := s.borrow()
	defer s.bounce.Put(page)
	if err := f.Read(*page, off); err != nil {
		return err
	}
	copy(dst, *page)
	return nil
}

// reader gives the file of a, or nil if there is none; it stays open until unlock.
func (s *Store) reader(a layout.Address) (f File, off int64, unlock func(), err error) {
	s.mu.RLock()
	n, off := s.place(a)
	if f := s.segments[n]; f != nil {
		return f, off, s.mu.RUnlock, nil
	}
	s.mu.RUnlock()
	s.mu.Lock()
	f, err = s.segment(n, false)
	s.mu.Unlock()
	if err != nil || f == nil {
		return nil, 0, func() {}, err
	}
	s.mu.RLock()
	return s.segments[n], off, s.mu.RUnlock, nil // nil again if it was dropped in between
}

// scanBytes is how much Scan reads at once.
const scanBytes = 1 << 20

// Scan calls fn with every page of the segments that exist, from address from on, in order; the page is valid during the call.
func (s *Store) Scan(from layout.Address, fn func(a layout.Address, page []byte) error) error {
	x := s.shape.Load()
	per, size := uint64(x.perFile), x.pageSize
	ns, err := s.list()
	if err != nil || size == 0 {
		return err
	}
	buf := alignedBytes(scanBytes)
	for _, n := range ns {
		last := layout.Address((n + 1) * per)
		for a := max(from, layout.Address(n*per)); a < last; {
			count := min(scanBytes/size, int(last-a))
			if err := s.readMany(a, buf[:count*size]); err != nil {
				return err
			}
			for i := range count {
				if err := fn(a+layout.Address(i), buf[i*size:(i+1)*size]); err != nil {
					return err
				}
			}
			a += layout.Address(count)
		}
	}
	return nil
}

// readMany fills b (aligned) with pages of one segment.
func (s *Store) readMany(a layout.Address, b []byte) error {
	f, off, unlock, err := s.reader(a)
	if err != nil {
		return err
	}
	defer unlock()
	if f == nil {
		clear(b)
		return nil
	}
	return f.Read(b, off)
}
