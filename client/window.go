package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
)

// Why filling ends. To publish at address a, fillIn may find the window of a unit below a, and call clearWindow; that may fill what keeps the window from
// a, and so call fillIn. It always does so for an address below a: the window's base, at most a − W, or an EMPTY address between the base and
// a. So addresses fall strictly from one call to the next, and no call meets itself. They do not fall far: clearWindow fills for one unit
// once at a time (helping), so that calls within each other are of different units, no more than a chain has. Within a call each round
// either finds the window there, or fills its obstacle, or waits for flash; what does not move for other reasons (a full unit, one that is sealed
// or silent, a corrupt head) ends with an error, at the latest with ctx.

// clearWindow is called when unit id's window has not reached address a, and returns when it is worth
// looking again. The window waits for what stands at its base to become durable (rule R4), and moves once something is
// published in its last quarter. Usually that is under way. A hole there lasts until somebody fills
// it: after HoleTimeout this client does. One goroutine does that for all that wait.
func (l *Log) clearWindow(ctx context.Context, v *view, id layout.UnitID, a layout.Address) (err error) {
	l.m.windowWaits.Inc()
	s, err := v.unit(ctx, id)
	if err != nil {
		return err
	}
	defer func() {
		why := ""
		if s.noRoom.Load() {
			why = ", where no room can be made for more pages (it is not full: its log and /readyz say why)"
		}
		err = waiting(err, "the window of %s%s", s.who, why)
	}()
	select {
	case s.helping <- struct{}{}:
		defer func() { <-s.helping }()
	default:
		return sleep.For(ctx, time.Millisecond)
	}
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	o, found, err := s.findObstacle(ctx, a, f)
	if err != nil {
		return err
	}
	if !found {
		if s.stalled++; s.stalled%stalledAsk == 0 {
			if err := l.checkFull(ctx, s, f); err != nil {
				return err
			}
		}
		return sleep.For(ctx, 200*time.Microsecond)
	}
	s.stalled = 0
	if o != s.obstacle || s.since.IsZero() {
		s.obstacle, s.since = o, time.Now()
	}
	p, ok := v.layout.PositionAt(id, o)
	if !ok {
		return fmt.Errorf("client: unit %d address %d: %w", id, o, layout.ErrBeyond)
	}
	wait := l.holeTimeout(false)
	if time.Since(s.since) >= wait {
		long, err := l.onItsWay(ctx, p)
		if err != nil {
			return err
		}
		wait = l.holeTimeout(long)
	}
	if time.Since(s.since) < wait {
		if err := s.bell(ctx, o, f); err != nil {
			return err
		}
		return sleep.For(ctx, min(time.Millisecond, l.o.HoleTimeout))
	}
	l.log.Debug("clearing the window", "unit", id, "position", p, "waiting", a)
	if err := l.fillIn(ctx, v, p); errors.Is(err, ErrCorrupt) {
		// Not even a fill gets past a head that does not verify: the layout server makes a new epoch for that.
		return sleep.For(ctx, max(l.o.HoleTimeout, 100*time.Millisecond))
	} else if err != nil {
		return err
	}
	// The holes of a client that died come in rows: the next one has waited as long as this one.
	if o, found, err = s.findObstacle(ctx, a, f); err == nil && found {
		s.obstacle = o
	}
	return err
}

const (
	// stalledAsk is after how many looks at a window that stands still for no reason to be seen the unit is asked for one.
	stalledAsk = 5
	// fullPause is how long no tokens are taken after a unit was found full: each would be a hole to be filled later.
	fullPause = 100 * time.Millisecond
)

// checkFull fails with ErrFull if the unit has no room for more pages, and waits a little if it cannot make any.
func (l *Log) checkFull(ctx context.Context, s *unitSession, f *frame) error {
	req := s.requests.add()
	m, err := s.ask(ctx, f, req, wire.MaxAddr{Request: req.id}.Append(nil))
	if err != nil {
		req.drop()
		return err
	}
	switch m.Status {
	case wire.StatusFull:
		until := time.Now().Add(fullPause)
		l.fullUntil.Store(&until)
		return fmt.Errorf("%s: %w", s.who, ErrFull)
	case wire.StatusIO:
		// It tries again, and may be left out meanwhile. The position is kept: another one would wait here, too.
		s.noRoom.Store(true)
		return sleep.For(ctx, fullPause)
	}
	s.noRoom.Store(false)
	return nil
}

// findObstacle gives the address that keeps the window from a, if it is one that a fill could help.
func (s *unitSession) findObstacle(ctx context.Context, a layout.Address, f *frame) (layout.Address, bool, error) {
	base, baseOpen := layout.Address(1<<63), false // lowest address in the window, and whether it is not durable
	var published, empty layout.Address            // highest ones
	err := s.scan(ctx, f, func(x layout.Address, w wire.Word) {
		if x < base {
			base, baseOpen = x, !w.State().Terminal()
		}
		if w.State() != wire.Empty {
			published = max(published, x)
		} else if x < a {
			empty = max(empty, x)
		}
	})
	switch w := layout.Address(s.geometry.Window); {
	case err != nil:
		return 0, false, err
	case a < base+w:
		return 0, false, nil // it is there now
	case baseOpen:
		return base, true, nil
	case published > base+w-layout.Address(s.geometry.OpenPages()) || empty < base:
		return 0, false, nil // the unit has all it needs
	}
	return empty, true, nil
}

// scan reads all words of the unit's window, a page at a time.
func (s *unitSession) scan(ctx context.Context, f *frame, fn func(layout.Address, wire.Word)) error {
	g := s.geometry
	most := f.page.Len / wire.WordSize
	for from := 0; from < g.Window; from += most {
		n := min(most, g.Window-from)
		f.b.Reset()
		f.b.Read(f.page.Mem.Slice(f.page.Off, n*wire.WordSize), s.word(layout.Address(from)))
		if err := s.check(f.do(ctx, s.reads)); err != nil {
			return err
		}
		for i := range n {
			w := wire.Word(f.page.Mem.Load(f.page.Off + i*wire.WordSize))
			fn(layout.Address(w.Generation())*layout.Address(g.Window)+layout.Address(from+i), w)
		}
	}
	return nil
}

// full tells whether a unit was found full a moment ago: no token is taken then.
func (l *Log) full() bool {
	until := l.fullUntil.Load()
	return until != nil && time.Now().Before(*until)
}
