package client

import (
	"context"
	"time"

	"corfu/internal/sleep"
	"corfu/layout"
)

// follower waits at the tail for entries to come. It sleeps until the units say that there are some
// (progress); where one that it needs does not, it looks at the tail from time to time.
type follower struct {
	l    *Log
	wake chan struct{} // one token if a unit said something, or a session ended

	view  *view          // in which it hears from the tail of every chain that takes new entries; nil: it does not
	last  layout.Segment // of view: that which takes new entries
	tails []*unitSession // by chain of last

	idle int // polls in a row that found nothing

	hole  layout.Position // something stands above this position, and nothing at it,
	since time.Time       // since then; zero: there is no such position
}

func (l *Log) newFollower() *follower { return &follower{l: l, wake: make(chan struct{}, 1)} }

// subscribing bounds the opening of sessions by a follower. Until they stand it looks at the tail.
const subscribing = 50 * time.Millisecond

// subscribe sees to it that f hears from the tails of v, if they offer that.
func (f *follower) subscribe(ctx context.Context) {
	f.leave()
	if f.l.enter() != nil {
		return
	}
	defer f.l.exit()
	v := f.l.current()
	last := *v.layout.Last()
	var missing []layout.UnitID
	for _, c := range last.Chains {
		if s := v.units[c.Tail()].cur.Load(); s == nil || !s.alive() {
			missing = append(missing, c.Tail())
		}
	}
	if len(missing) > 0 {
		ctx, cancel := context.WithTimeout(ctx, subscribing)
		defer cancel()
		if v.openAll(ctx, missing) != nil {
			return
		}
	}
	f.view, f.last = v, last
	for _, c := range last.Chains {
		s := v.units[c.Tail()].cur.Load()
		if s == nil || !s.progress.offered {
			f.leave()
			return
		}
		f.tails = append(f.tails, s)
		s.progress.join(f)
	}
}

// leave ends what subscribe began. Units are not told: they answer each Subscribe at most once.
func (f *follower) leave() {
	for _, s := range f.tails {
		s.progress.leave(f)
	}
	f.view, f.tails, f.since = nil, nil, time.Time{}
}

// subscribed reports whether f hears of all that comes in the epoch in use.
func (f *follower) subscribed() bool {
	if f.view == nil || f.view != f.l.current() {
		return false
	}
	for _, s := range f.tails {
		if !s.alive() {
			return false
		}
	}
	return true
}

// next waits until there is something to be read from position from on, and returns the position up to
// which. It asks for the tail once in an epoch, and once for each session that ended: a *BeyondTailError
// if that lies below from.
func (f *follower) next(ctx context.Context, from layout.Position) (layout.Position, error) {
	for {
		if !f.subscribed() {
			f.subscribe(ctx)
			tail, err := f.l.Tail(ctx)
			switch {
			case err != nil:
				return 0, err
			case tail < from:
				return 0, &BeyondTailError{Position: from, Tail: tail, Epoch: f.l.current().epoch()}
			case tail > from:
				f.idle = 0
				return tail, nil
			case f.view == nil:
				if err := f.pause(ctx); err != nil {
					return 0, err
				}
				continue
			}
		}
		if to, err := f.wait(ctx, from); err != nil || to > from {
			f.idle = 0
			return to, err
		}
	}
}

// pause is the wait of one that polls.
func (f *follower) pause(ctx context.Context) error {
	f.idle++
	return sleep.For(ctx, min(20*time.Millisecond, time.Millisecond<<min(f.idle, 5)))
}

// wait sleeps until the units say that more can be read, and returns up to which position: from itself
// once f has to subscribe anew.
func (f *follower) wait(ctx context.Context, from layout.Position) (layout.Position, error) {
	for {
		if !f.subscribed() {
			return from, nil
		}
		if err := f.ask(from); err != nil {
			return 0, err
		}
		below, top := f.known(from)
		if below > from {
			f.since = time.Time{}
			return below, nil
		}
		stands, left := f.stands(below, top)
		if stands && left <= 0 {
			f.since = time.Time{}
			return top, nil // a reader waits for a hole, and fills it
		}
		if err := f.sleep(ctx, stands, left); err != nil {
			return 0, err
		}
	}
}

// ask subscribes at all tails that have no subscription, for what comes from position from on.
func (f *follower) ask(from layout.Position) error {
	if err := f.l.enter(); err != nil {
		return err
	}
	defer f.l.exit()
	for i, s := range f.tails {
		f.l.subscribe(s, f.address(i, from))
	}
	return nil
}

// known returns the first position from from on that is not known to be readable, and the first above
// all that are.
func (f *follower) known(from layout.Position) (below, top layout.Position) {
	below, top = layout.MaxPosition+1, from
	for i, s := range f.tails {
		a := f.address(i, from)
		b, t := s.progress.know(a)
		below = min(below, f.position(i, b))
		if t > a {
			top = max(top, f.position(i, t-1)+1)
		}
	}
	return below, max(below, top)
}

// stands reports whether something stands above below and nothing at it, and how long that may stay so: a
// part of the hole time-out, which a reader of the position waits for besides. Chains move one
// after the other, so that it is so for a moment again and again.
func (f *follower) stands(below, top layout.Position) (bool, time.Duration) {
	if top <= below {
		f.since = time.Time{}
		return false, 0
	}
	if f.since.IsZero() || f.hole != below {
		f.hole, f.since = below, time.Now()
	}
	return true, time.Until(f.since.Add(f.l.o.HoleTimeout / 4))
}

// sleep returns when a unit said something, the view is replaced, or, if timed, after d.
func (f *follower) sleep(ctx context.Context, timed bool, d time.Duration) error {
	var late <-chan time.Time
	if timed {
		t := time.NewTimer(d)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-f.wake:
	case <-f.view.replaced:
	case <-late:
	case <-ctx.Done():
		return ctx.Err()
	case <-f.l.ctx.Done():
		return ErrClosed
	}
	return nil
}

// address returns the first address of chain i at or behind position p.
func (f *follower) address(i int, p layout.Position) layout.Address {
	base, n := f.last.Chains[i].Base, uint64(len(f.last.Chains))
	if p <= f.last.Start+layout.Position(i) {
		return base
	}
	return base + layout.Address((uint64(p-f.last.Start)-uint64(i)+n-1)/n)
}

// position returns the position of address a of chain i; of one below the segment, the chain's first.
func (f *follower) position(i int, a layout.Address) layout.Position {
	base, n := f.last.Chains[i].Base, uint64(len(f.last.Chains))
	a = min(max(a, base), f.view.layout.Geometry.MaxAddress()+1)
	return f.last.Start + layout.Position(uint64(a-base)*n) + layout.Position(i)
}
