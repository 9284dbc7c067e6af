package flash

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// A trim is a bit of its segment's trim record, which lies behind the pages. It is durable before anything is
// done to the page; then the page's block is given back. An address whose bit is set reads as the mark of a trimmed one, whatever
// its place holds.

// bitmap has a bit for each page of a segment, the lowest bit first. One that readers see does not change.
type bitmap []byte

func newBitmap(pages int) bitmap { return make(bitmap, (pages+7)/8) }

func (m bitmap) has(i int) bool { return i>>3 < len(m) && m[i>>3]&(1<<(i&7)) != 0 }

func (m bitmap) set(i int) { m[i>>3] |= 1 << (i & 7) }

// runs calls fn with each run first … last−1 of bits that m has and without lacks.
func (m bitmap) runs(without bitmap, fn func(first, last int)) {
	first := -1
	for i := range 8*len(m) + 1 {
		in := m.has(i) && !without.has(i)
		if in && first < 0 {
			first = i
		}
		if !in && first >= 0 {
			fn(first, i)
			first = -1
		}
	}
}

// trims are those of one segment.
type trims struct {
	marks atomic.Pointer[bitmap] // durable; nil: none

	turn   chan struct{} // of record: holds something while it is written. No mutex: a simulated clock stands still for those who wait for one
	record twin
	unread bool // the disk could not read the record: it is tried again before it is written over. Of whoever has the turn

	given atomic.Pointer[bitmap] // puncher's: what was done about their blocks
}

func newTrims(record twin) trims { return trims{turn: make(chan struct{}, 1), record: record} }

func (x *shape) trimTwin(n uint64) twin {
	return twin{magic: magicTrims, owner: n, base: x.pageBytes(), size: recordBytes((x.perFile + 7) / 8), best: 1}
}

func (t *trims) has(i int) bool {
	m := t.marks.Load()
	return m != nil && m.has(i)
}

// loadTrims reads the trims of a segment that was just opened, or could not be read then. It fails with errNewer alone.
func (s *Store) loadTrims(g *segment, x *shape) error {
	g.trims.record = x.trimTwin(g.n)
	body, bad, err := g.trims.record.load(g.file)
	if errors.Is(err, errNewer) {
		return err
	}
	g.trims.unread = false
	if err != nil {
		for _, err := range bad {
			g.trims.unread = g.trims.unread || !errors.Is(err, errRecord)
		}
		s.log.Error("the trims of a segment are lost: what was given up there is CORRUPT, or is served again",
			"segment", g.n, "error", err)
		g.trims.record.sequence = 1 << 32 // above what a copy has that can be read some day
		return nil
	}
	for i, err := range bad {
		if err != nil {
			s.log.Warn("one copy of a segment's trims is not valid; the next trim there writes it anew", "segment", g.n, "copy", i, "error", err)
		}
	}
	if body == nil {
		return nil
	}
	m := newBitmap(x.perFile)
	copy(m, body)
	g.trims.marks.Store(&m)
	s.punchLater(g) // a crash may have come before that
	return nil
}

// Trim gives up addresses and returns when that is durable; from then on each reads as the mark of a trimmed address. Those
// of which it is not known are marked Failed; the error says why. Space of their pages comes back a little
// later. Many goroutines may call it at a time. None of the pages may be in a Write.
func (s *Store) Trim(list []unit.Trim) error {
	if len(list) == 0 {
		return nil
	}
	x := s.shape.Load()
	bySegment := map[uint64][]int{}
	for i, t := range list {
		list[i].Failed = false
		n := uint64(t.Address) / uint64(max(1, x.perFile))
		bySegment[n] = append(bySegment[n], i)
	}
	var first error
	for _, n := range slices.Sorted(maps.Keys(bySegment)) {
		err := s.trimSegment(x, n, list, bySegment[n])
		if err == nil {
			continue
		}
		for _, i := range bySegment[n] {
			list[i].Failed = true
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// trimSegment makes the trims of list[which], all of segment n, durable with one change of its record.
func (s *Store) trimSegment(x *shape, n uint64, list []unit.Trim, which []int) error {
	if x.pageSize == 0 {
		return fmt.Errorf("flash: %w", ErrNoGeometry)
	}
	if n < s.dropped.Load() {
		return nil // given up with all below, and durably so
	}
	g, err := s.make(n)
	if err != nil {
		return err
	}
	f, err := s.acquire(g)
	if f == nil {
		return err // gone: given up meanwhile
	}
	defer g.release()
	g.use()
	g.trims.turn <- struct{}{}
	defer func() { <-g.trims.turn }()
	if g.trims.unread {
		if err := s.loadTrims(g, x); err != nil {
			return err
		}
	}
	m := newBitmap(x.perFile)
	if old := g.trims.marks.Load(); old != nil {
		copy(m, *old)
	}
	changed := false
	for _, i := range which {
		slot := int(uint64(list[i].Address) % uint64(x.perFile))
		changed = changed || !m.has(slot)
		m.set(slot)
	}
	if !changed {
		return nil
	}
	if err := g.trims.record.store(f, m); err != nil {
		return fmt.Errorf("flash: trims of segment %d: %w", n, err)
	}
	g.trims.marks.Store(&m)
	s.punchLater(g)
	return nil
}

// readMarked fills b with pages of g from a on, which lie at off: trimmed ones as their marks.
func (s *Store) readMarked(g *segment, f File, x *shape, a layout.Address, b []byte, off int64) error {
	slot := int(uint64(a) % uint64(x.perFile))
	if len(b) == x.pageSize && g.trims.has(slot) {
		x.mark(a, b) // whatever the disk has, or cannot read
		return nil
	}
	// The bits are looked at afterwards: a block is given back after its bit was set.
	if err := f.Read(b, off); err != nil {
		return err
	}
	marks := g.trims.marks.Load()
	if marks == nil {
		return nil
	}
	for i := 0; i*x.pageSize < len(b); i++ {
		if marks.has(slot + i) {
			x.mark(a+layout.Address(i), b[i*x.pageSize:(i+1)*x.pageSize])
		}
	}
	return nil
}

// mark makes page what a trimmed address reads as.
func (x *shape) mark(a layout.Address, page []byte) {
	if x.layout != nil {
		if p, mapped := x.layout.PositionAt(x.id, a); mapped {
			unit.Mark(page, wire.Trimmed, x.log, p, x.layout.Epoch)
			return
		}
	}
	clear(page)
}

// punchLater has the space of the trimmed pages of g given back.
func (s *Store) punchLater(g *segment) {
	s.punchMu.Lock()
	if !slices.Contains(s.toPunch, g) {
		s.toPunch = append(s.toPunch, g)
	}
	s.punchMu.Unlock()
	select {
	case s.punch <- struct{}{}:
	default:
	}
}

// puncher gives space back until the store is closed, and what is left then.
func (s *Store) puncher() {
	defer close(s.punchDone)
	for {
		stop := false
		select {
		case <-s.punch:
		case <-s.stop:
			stop = true
		}
		s.punchMu.Lock()
		list := s.toPunch
		s.toPunch = nil
		s.punchMu.Unlock()
		for _, g := range list {
			if err := s.punchSegment(g); err != nil {
				s.noPunch.Do(func() { s.log.Warn("single trims give no space back here", "error", err) })
			}
		}
		if len(list) > 0 {
			s.nudge() // there may be room now
		}
		if stop {
			return
		}
	}
}

// punchSegment gives the blocks of all trimmed pages of g back. What fails is tried again when the segment is opened next.
func (s *Store) punchSegment(g *segment) error {
	f, err := s.acquire(g)
	if f == nil {
		return err
	}
	defer g.release()
	x := s.shape.Load()
	marks := g.trims.marks.Load()
	if marks == nil {
		return nil
	}
	var given bitmap
	if old := g.trims.given.Load(); old != nil {
		given = *old
	}
	marks.runs(given, func(first, last int) {
		n := int64(x.pageSize)
		err = errors.Join(err, f.Punch(int64(first)*n, int64(last-first)*n))
	})
	g.touch()
	g.trims.given.Store(marks)
	return err
}
