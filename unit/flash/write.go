package flash

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"corfu/unit"
)

// Page is a page and its address. Write sets Failed.
type Page = unit.Record

// run is a piece of one Write: pages one behind the other in one segment, written by one call.
type run struct {
	pages []Page
	seg   *segment
	off   int64
	bufs  [][]byte
	err   error
	sync  bool
	job   *job
}

// job is one Write, kept for the next one.
type job struct {
	s    *Store
	runs []run
	left sync.WaitGroup // runs that workers have
}

// syncRuns is up to how many runs go with a sync each, side by side. More of them go without, and then each file is
// synced once.
const syncRuns = 4

// Write writes pages, in the order of their addresses, and returns when all of them are durable. Those that are not
// known to be are marked Failed, and may be on flash, whole or torn; the error says why. Pages that lie one behind the
// other go as one I/O, straight from their memory; several such I/Os go side by side. Bytes that are not aligned to 4096 are copied.
// Many goroutines may call it at a time, for different addresses.
func (s *Store) Write(pages []Page) error {
	s.turns.beginWrite()
	defer s.turns.endWrite()
	j := s.job()
	defer s.keep(j)
	j.runs = j.runs[:0]
	x := s.shape.Load()
	for i := 0; i < len(pages); {
		n := x.run(pages[i:])
		j.add(x, pages[i:i+n])
		i += n
	}
	each := len(j.runs) <= syncRuns
	for i := range j.runs {
		j.runs[i].sync = each
	}
	j.execute()
	if !each {
		j.syncFiles()
	}
	err := j.result()
	if err == nil {
		s.pages.Add(int64(len(pages)) * int64(x.pageSize))
	}
	return err
}

// keptJobs is how many jobs are kept: more Writes at a time than that allocate.
const keptJobs = 8

// job gives a job, one used before if there is one.
func (s *Store) job() *job {
	select {
	case j := <-s.jobs:
		return j
	default:
		return &job{s: s}
	}
}

// keep takes a job back.
func (s *Store) keep(j *job) {
	select {
	case s.jobs <- j:
	default:
	}
}

// run counts the pages from the first on that lie one behind the other in one segment.
func (x *shape) run(pages []Page) int {
	first := uint64(pages[0].Address)
	for i, p := range pages {
		if uint64(p.Address) != first+uint64(i) || (i > 0 && uint64(p.Address)%uint64(max(1, x.perFile)) == 0) {
			return i
		}
	}
	return len(pages)
}

// add makes a run, with its segment if there is room for one.
func (j *job) add(x *shape, pages []Page) {
	if n := len(j.runs); n < cap(j.runs) {
		j.runs = j.runs[:n+1] // keeps the memory of bufs
	} else {
		j.runs = append(j.runs, run{})
	}
	r := &j.runs[len(j.runs)-1]
	*r = run{pages: pages, bufs: r.bufs[:0], job: j}
	for i := range pages {
		pages[i].Failed = false
		if len(pages[i].Bytes) != x.pageSize && r.err == nil {
			r.err = fmt.Errorf("flash: page of %d bytes at address %d: must be %d", len(pages[i].Bytes), pages[i].Address, x.pageSize)
		}
	}
	if r.err != nil {
		return
	}
	if x.pageSize == 0 {
		r.err = fmt.Errorf("flash: %w", ErrNoGeometry)
		return
	}
	var n uint64
	n, r.off = x.place(pages[0].Address)
	if n < j.s.dropped.Load() {
		return // given up meanwhile, and durably so: nothing is to be written
	}
	r.seg, r.err = j.s.make(n)
}

// execute writes all runs: the first by itself, the others by workers that have nothing to do.
func (j *job) execute() {
	for i := 1; i < len(j.runs); i++ {
		j.left.Add(1)
		select {
		case j.s.work <- &j.runs[i]:
		default:
			j.runs[i].write(j.s)
			j.left.Done()
		}
	}
	if len(j.runs) > 0 {
		j.runs[0].write(j.s)
	}
	j.left.Wait()
}

// worker writes runs until the store is closed.
func (s *Store) worker() {
	defer s.workers.Done()
	for r := range s.work {
		r.write(s)
		r.job.left.Done()
	}
}

func (r *run) write(s *Store) {
	if r.err != nil || r.seg == nil {
		return
	}
	f, err := s.acquire(r.seg)
	if f == nil {
		r.err = err // gone: given up meanwhile
		return
	}
	defer r.seg.release()
	r.seg.use()
	var borrowed []*[]byte
	for _, p := range r.pages {
		b := p.Bytes
		if !aligned(b) {
			page := s.borrow()
			borrowed = append(borrowed, page)
			copy(*page, b)
			b = *page
		}
		r.bufs = join(r.bufs, b)
	}
	bufs := r.bufs
	r.err = f.Write(bufs, r.off, r.sync)
	for _, p := range borrowed {
		s.bounce.Put(p)
	}
}

// syncFiles syncs each file that was written to once; runs of one file stand one behind the other.
func (j *job) syncFiles() {
	var last *segment
	var err error
	for i := range j.runs {
		r := &j.runs[i]
		if r.seg == nil {
			continue
		}
		if r.seg != last {
			last, err = r.seg, j.s.syncSegment(r.seg)
		}
		r.err = errors.Join(r.err, err)
	}
}

func (s *Store) syncSegment(g *segment) error {
	f, err := s.acquire(g)
	if f == nil {
		return err
	}
	defer g.release()
	return f.Sync()
}

// result marks the pages of runs that failed.
func (j *job) result() error {
	var err error
	for i := range j.runs {
		r := &j.runs[i]
		if r.err == nil {
			continue
		}
		for k := range r.pages {
			r.pages[k].Failed = true
		}
		if err == nil {
			err = r.err
		}
		r.seg, r.pages = nil, nil
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
