package flash

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"corfu/layout"
)

// segment is one that exists, opened when it is needed first.
type segment struct {
	s  *Store
	n  uint64
	mu sync.RWMutex // held for reading by I/O, for writing by what opens and closes

	opening sync.Mutex // before mu: of those who find it not open one opens it

	file File // nil: not open

	users users // of the file

	// fresh: no page was written to it since it was made, so it may still be filled with zeros. fill is held
	// by whoever writes zeros, and by whoever ends that.
	fresh atomic.Bool
	fill  sync.Mutex

	trims trims

	// bytes is what it takes of the volume, as it was counted last; touched: that may have changed since.
	bytes   atomic.Int64
	touched atomic.Bool
}

// touch says that g may take more or less space than before.
func (g *segment) touch() {
	if g.touched.Load() || g.touched.Swap(true) {
		return
	}
	g.s.touchMu.Lock()
	g.s.touched = append(g.s.touched, g)
	g.s.touchMu.Unlock()
}

// account counts the space of the segments anew whose space may have changed.
func (s *Store) account() {
	s.touchMu.Lock()
	list := s.touched
	s.touched = nil
	s.touchMu.Unlock()
	for _, g := range list {
		g.touched.Store(false)
		if err := s.accountFor(g); err != nil {
			s.log.Warn("the space of a segment is not known", "segment", g.n, "error", err)
		}
	}
}

func (s *Store) accountFor(g *segment) error {
	f, err := s.acquire(g)
	if f == nil {
		return err // gone: it was subtracted
	}
	defer g.release()
	n, err := f.Used()
	if err == nil {
		s.used.Add(n - g.bytes.Swap(n))
	}
	return err
}

// acquire gives the file of g and keeps it open until g is released; nil: the segment is gone.
func (s *Store) acquire(g *segment) (File, error) {
	if !g.users.enter() {
		return nil, nil
	}
	for {
		g.mu.RLock()
		if g.file != nil {
			return g.file, nil
		}
		g.mu.RUnlock()
		if err := s.openSegment(g); err != nil {
			g.users.leave()
			return nil, err
		}
	}
}

// release undoes acquire.
func (g *segment) release() {
	g.mu.RUnlock()
	g.users.leave()
}

// users counts who uses something, until nobody may any more.
type users struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed once nobody uses it; nil: it may be used
}

// enter reports whether it may be used. If so, leave follows.
func (u *users) enter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.idle != nil {
		return false
	}
	u.n++
	return true
}

func (u *users) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 && u.idle != nil {
		close(u.idle)
	}
}

// end lets nobody in any more, and returns once nobody is left.
func (u *users) end() {
	u.mu.Lock()
	if u.idle == nil {
		u.idle = make(chan struct{})
		if u.n == 0 {
			close(u.idle)
		}
	}
	u.mu.Unlock()
	<-u.idle
}

func (s *Store) openSegment(g *segment) error {
	g.opening.Lock()
	defer g.opening.Unlock()
	// Whoever comes too late must not ask for mu: behind him all I/O would wait for that which has begun, writes for a read that hangs.
	g.mu.RLock()
	done := g.file != nil
	g.mu.RUnlock()
	if done {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file != nil {
		return nil
	}
	x := s.shape.Load()
	f, err := s.vol.open(g.n, x.segmentBytes())
	if err != nil {
		return err
	}
	g.file = s.wrap(g.n, f)
	if err := s.loadTrims(g, x); err != nil {
		g.file = nil
		return errors.Join(fmt.Errorf("flash: segment %d: %w", g.n, err), f.Close())
	}
	g.touch()
	return nil
}

func (s *Store) wrap(n uint64, f File) File {
	if buffered(f) {
		s.buffered.Do(func() {
			s.log.Warn("the file system refuses O_DIRECT: writing through the page cache, with fdatasync", "dir", s.dir)
		})
	}
	below := osFileOf(f)
	if s.opts.Wrap != nil {
		f = s.opts.Wrap(segmentPath(s.dir, n), f)
	}
	return metered{f, s, below}
}

// find gives segment n, or nil if it does not exist.
func (s *Store) find(n uint64) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.segments[n]
}

// make gives segment n, and makes it if it does not exist. It fails with ErrFull, ErrClosed or ErrNoGeometry.
func (s *Store) make(n uint64) (*segment, error) {
	if g := s.find(n); g != nil {
		return g, nil
	}
	s.growMu.Lock()
	defer s.growMu.Unlock()
	if g := s.find(n); g != nil {
		return g, nil
	}
	if s.isClosed() {
		return nil, fmt.Errorf("flash: %w", ErrClosed)
	}
	x := s.shape.Load()
	if x.pageSize == 0 {
		return nil, fmt.Errorf("flash: %w", ErrNoGeometry)
	}
	size := x.segmentBytes()
	s.account()
	if used := s.used.Load(); s.opts.Capacity > 0 && used+size > s.opts.Capacity {
		return nil, fmt.Errorf("flash: %s: %d of %d bytes used, a segment takes %d: %w", s.dir, used, s.opts.Capacity, size, ErrFull)
	}
	f, err := s.vol.create(n, size)
	if err != nil {
		return nil, err
	}
	g := &segment{s: s, n: n, file: s.wrap(n, f), trims: newTrims(x.trimTwin(n))}
	g.fresh.Store(s.vol.slow())
	g.touch()
	if err := s.accountFor(g); err != nil {
		return nil, errors.Join(err, g.close(), s.vol.remove([]uint64{n}))
	}
	s.undead = slices.DeleteFunc(s.undead, func(x uint64) bool { return x == n })
	s.mu.Lock()
	s.segments[n] = g
	s.mu.Unlock()
	return g, nil
}

func (s *Store) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// numbers gives the segments that exist, in order.
func (s *Store) numbers() []uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.segments))
}

// Wipe forgets all pages. Durable when it returns nil; a crash leaves some or none of them.
func (s *Store) Wipe() error {
	s.dropped.Store(0)
	return s.drop(func(uint64) bool { return true })
}

// DropBelow gives the space of addresses below a back, as far as they fill whole segments. They read as never
// written, and what is written there later is dropped, too: the caller has made it durable that they were given up.
func (s *Store) DropBelow(a layout.Address) error {
	first := uint64(a) / uint64(s.shape.Load().perFile)
	s.dropped.Store(max(s.dropped.Load(), first))
	return s.drop(func(n uint64) bool { return n < first })
}

func (s *Store) drop(which func(n uint64) bool) error {
	s.growMu.Lock()
	defer s.growMu.Unlock()
	var gone []*segment
	s.mu.Lock()
	for n, g := range s.segments {
		if which(n) {
			gone = append(gone, g)
			delete(s.segments, n)
		}
	}
	s.mu.Unlock()
	ns := s.undead
	if len(gone)+len(ns) == 0 {
		return nil
	}
	var errs []error
	for _, g := range gone {
		g.use() // ends the zeroing
		errs = append(errs, g.close())
		ns = append(ns, g.n)
	}
	err := s.vol.remove(ns)
	if s.undead = nil; err != nil {
		s.undead = ns
		errs = append(errs, err)
	}
	for _, g := range gone {
		s.used.Add(-g.bytes.Swap(0))
	}
	s.nudge()
	return errors.Join(errs...)
}

// close waits for the I/O of the segment: not in mu, behind which all who come would wait as long.
func (g *segment) close() error {
	g.users.end()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		return nil
	}
	err := g.file.Close()
	g.file = nil
	return err
}
