package server

import (
	"corfu/layout"
	"corfu/unit/flash"
)

// runBytes is how much a run reads with one I/O.
const runBytes = 64 << 10

// runs reads pages at ascending addresses, several with one I/O. What page gives may be up to a run old: it is for pages that
// nobody else writes meanwhile.
type runs struct {
	store *flash.Store
	size  int    // bytes of a page
	buf   []byte // of one page at least
	first layout.Address
	count int // pages in buf
}

func (s *Server) newRuns(pageSize int) *runs {
	return &runs{store: s.store, size: pageSize, buf: flash.Buffer(max(pageSize, runBytes/pageSize*pageSize))}
}

// page gives the page of a, valid until the next call. Pages up to below are wanted soon; none from there on is read.
func (r *runs) page(a, below layout.Address) ([]byte, error) {
	if a < r.first || a >= r.first+layout.Address(r.count) {
		want := min(layout.Address(len(r.buf)/r.size), max(below, a+1)-a)
		n, err := r.store.ReadRun(a, r.buf[:int(want)*r.size])
		if err != nil { // of which page, only a read of each tells
			n, err = 1, r.store.ReadPage(a, r.buf[:r.size])
		}
		if err != nil {
			r.count = 0
			return nil, err
		}
		r.first, r.count = a, n
	}
	i := int(a-r.first) * r.size
	return r.buf[i : i+r.size], nil
}

// forget makes the next call read anew.
func (r *runs) forget() { r.count = 0 }
