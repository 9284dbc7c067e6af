package flash

import (
	"errors"
	"fmt"
	"time"

	"corfu/layout"
)

// Segments are made ahead of need, in the background. Space that was only allocated costs the first write to each
// block a commit of the file system's journal, so a new segment is filled with zeros before pages come, as far
// as there is time: a page that comes first ends that.

const (
	// zeroBytes is how much is zeroed at once: what a write that wants to end the zeroing may have to wait for.
	zeroBytes = 256 << 10
	// maxPause bounds the pauses between, which leave the disk to those who wait for it.
	maxPause = 20 * time.Millisecond
)

// Reserve makes room for the addresses from … to−1 and tells how far there is room: the first address from from on
// that has none. It fails with ErrFull, and tells that all the same.
func (s *Store) Reserve(from, to layout.Address) (layout.Address, error) {
	x := s.shape.Load()
	if x.pageSize == 0 {
		return 0, fmt.Errorf("flash: %w", ErrNoGeometry)
	}
	var err error
	per := layout.Address(x.perFile)
	from = max(from, layout.Address(s.dropped.Load())*per) // what was given up meanwhile stays so
	for n := from / per; n*per < to && err == nil; n++ {
		_, err = s.make(uint64(n))
	}
	s.noRoom.Store(&err)
	return s.Limit(from), err
}

// Limit tells how far there is room from address from on.
func (s *Store) Limit(from layout.Address) layout.Address {
	per := layout.Address(s.shape.Load().perFile)
	from = max(from, layout.Address(s.dropped.Load())*per)
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := from / per
	for s.segments[uint64(n)] != nil {
		n++
	}
	return max(from, n*per)
}

// Ahead asks for room for the addresses from … to−1 and one segment more, and for zeros where no page was written yet;
// it returns at once. Grown
// tells when there is more room. While the store is full it is tried again, a few times a second.
func (s *Store) Ahead(from, to layout.Address) {
	s.want.Store(&span{from, to})
	s.nudge()
}

func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Grown gets a token when Limit may have changed.
func (s *Store) Grown() <-chan struct{} { return s.grown }

// retryFull is how often a store that is full looks for room.
const retryFull = 250 * time.Millisecond

// span are addresses from … to−1.
type span struct{ from, to layout.Address }

// top is the end of the segment behind the one in which the span ends.
func (w *span) top(x *shape) layout.Address {
	per := layout.Address(x.perFile)
	return (w.to/per + 2) * per
}

// prepare makes segments ahead until the store is closed.
func (s *Store) prepare() {
	defer close(s.prepared)
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-s.wake:
		case <-retry.C:
		case <-s.stop:
			return
		}
		for {
			if s.grow() != nil {
				retry.Reset(retryFull)
			}
			if !s.zeroNext() {
				break
			}
		}
	}
}

// grow makes the segments that are wanted.
func (s *Store) grow() error {
	w := s.want.Load()
	x := s.shape.Load()
	if w == nil || x.pageSize == 0 {
		return nil
	}
	before := s.Limit(w.from)
	after, err := s.Reserve(w.from, w.top(x))
	if after != before {
		select {
		case s.grown <- struct{}{}:
		default:
		}
	}
	if full := err != nil; s.full.Swap(full) != full && full {
		what := "flash is full: the unit takes what it has room for, and goes on after a trim"
		if !errors.Is(err, ErrFull) {
			what = "no segment can be made: the unit takes what it has room for, and tries again"
		}
		s.log.Error(what, "room_below", after, "error", err)
	}
	return err
}

// NoRoom returns why the last try to make room failed: ErrFull, or what else kept a segment from being made. Nil means that it did not fail.
func (s *Store) NoRoom() error {
	if err := s.noRoom.Load(); err != nil {
		return *err
	}
	return nil
}

// zeroNext fills the lowest segment that is wanted and fresh with zeros; false: there is none, or the store is closed.
// It comes back early if something else is to be done.
func (s *Store) zeroNext() bool {
	w := s.want.Load()
	if w == nil || s.opts.NoSync || !s.vol.slow() {
		return false
	}
	x := s.shape.Load()
	per := layout.Address(x.perFile)
	for n := w.from / per; n*per < w.top(x); n++ {
		g := s.find(uint64(n))
		if g == nil || !g.fresh.Load() || s.zeroed[g] {
			continue
		}
		done, err := s.zero(g, x.segmentBytes())
		if err != nil {
			s.log.Warn("a segment was not filled with zeros: writes to it are slower", "segment", g.n, "error", err)
		}
		if done || err != nil {
			s.zeroed[g] = true
		}
		return !s.isClosed()
	}
	clear(s.zeroed)
	return false
}

// zero fills a segment. done: it is over, because it is full or because a page came.
func (s *Store) zero(g *segment, size int64) (done bool, err error) {
	f, err := s.acquire(g)
	if f == nil {
		return true, err
	}
	defer g.release()
	zeros := alignedBytes(int(min(zeroBytes, size)))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		select {
		case <-s.stop:
			return true, nil
		default:
		}
		began := time.Now()
		if over, err := g.zeroPiece(f, zeros[:min(int64(len(zeros)), size-off)], off); over || err != nil {
			return true, err
		}
		time.Sleep(min(time.Since(began), maxPause))
	}
	g.touch()
	return true, f.Sync()
}

func (g *segment) zeroPiece(f File, zeros []byte, off int64) (over bool, err error) {
	g.fill.Lock()
	defer g.fill.Unlock()
	if !g.fresh.Load() {
		return true, nil
	}
	return false, f.Write([][]byte{zeros}, off, false)
}

// use says that pages or trims are about to be written to g: no zeros are written to it from now on.
func (g *segment) use() {
	g.touch()
	if g.fresh.Load() {
		g.fill.Lock()
		g.fresh.Store(false)
		g.fill.Unlock()
	}
}
