package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
)

// pipeline takes appends that are in flight together from step to step. At each step all that are ready go as one list:
//
//	queue ─► tokens: one FETCH_ADD(n) for the n that wait, positions in the order of the queue
//	           ├─► publisher of each chain: WRITEs at U2 … Uk, and WRITE, CAS, WRITE, CAS … at the head (publisher.go)
//	           │      └─► CASes at U2, and so on down the chain: each entry only after its own CAS before succeeded (rule R2)
//	           │             └─► acknowledgements, counted where they are received ─► the caller, or its callback
//	           └─► large entries: their fragments, in the order of their positions, to the publishers (large.go)
//
// An entry that loses its position, meets a window that is not there, or is refused leaves the pipeline and goes on by itself
// (conclude); the others do not wait for it. Each step but the callbacks takes a bounded time: what the fabric does not answer is ended
// by the watchdog, and whatever waits otherwise ends with the session, the view or the Log.
type pipeline struct {
	l         *Log
	tokens    stage[want]
	callbacks stage[callback]
	late      lateness

	trouble atomic.Pointer[error] // why no tokens are had; nil: they are

	// Of the goroutine that works on tokens.
	group   []want
	chains  [][]*attempt // by stripe
	forgone []layout.Position
}

// want is what waits for positions: an attempt, or a larger entry.
type want struct {
	a *attempt
	t *tearing
}

// report ends an append of AppendAsync.
func (p *pipeline) report(began time.Time, c callback) {
	p.l.m.calls.ended(opAppend, began, c.err)
	p.l.ends() // before the call, which may call into the log again
	p.callbacks.add(c)
}

// callback is a call to be made.
type callback struct {
	done func(layout.Position, error)
	p    layout.Position
	err  error
}

func (p *pipeline) setup(l *Log) {
	p.l = l
	p.tokens.setup(l.starter, p.take)
	// Not in the background of the Log: a callback may close it.
	p.callbacks.setup(func(fn func(context.Context)) func() {
		run := func() { fn(l.ctx) }
		return func() { go run() }
	}, func(_ context.Context, ready []callback) {
		for _, c := range ready {
			c.done(c.p, c.err)
		}
	})
	p.late.l = l
}

// take gives positions to those that wait, until all have one or cannot have any.
func (p *pipeline) take(ctx context.Context, ready []want) {
	l := p.l
	var b backoff
	for len(ready) > 0 {
		v := l.current()
		n, err := p.admit(ctx, v, ready)
		if err == nil && len(p.group) > 0 {
			err = p.fetch(ctx, v)
		}
		if err == nil {
			ready, b = ready[n:], backoff{}
			p.trouble.Store(nil)
			continue
		}
		for _, w := range p.group {
			if w.a != nil {
				w.a.leaveGate()
			}
		}
		why := err
		p.trouble.Store(&why)
		if err = l.retry(ctx, v, err, &b); err != nil {
			for _, w := range ready {
				w.refuse(err)
			}
			return
		}
	}
}

// admit fills the group with those at the front of ready that the gate lets through, at least one, and tells how many of ready that
// are. Those whose time is over, and those that no unit takes, are struck out. The order of the queue stays.
func (p *pipeline) admit(ctx context.Context, v *view, ready []want) (int, error) {
	p.group = p.group[:0]
	if err := v.ready(ctx); err != nil {
		return 0, err
	}
	for i, w := range ready {
		if w.over() {
			ready[i] = want{}
			continue
		}
		if err := v.takes(ctx, w.flags()); errors.Is(err, ErrNoBatches) {
			w.refuse(err)
			ready[i] = want{}
			continue
		} else if err != nil {
			return 0, err
		}
		if w.a != nil {
			select {
			case v.gate <- struct{}{}:
			default:
				if len(p.group) > 0 {
					return i, nil
				}
				select {
				case v.gate <- struct{}{}:
				case <-v.replaced:
					return 0, errStale
				case <-ctx.Done():
					return 0, ErrClosed
				}
			}
			w.a.gate = v.gate
		}
		p.group = append(p.group, w)
	}
	return len(ready), nil
}

// fetch takes positions for the group with one FETCH_ADD and hands its members on.
func (p *pipeline) fetch(ctx context.Context, v *view) error {
	if err := v.ready(ctx); err != nil {
		return err
	}
	if err := p.l.ownID(ctx); err != nil {
		return err
	}
	n := 0
	for _, w := range p.group {
		n += w.positions()
	}
	first, err := p.l.positions(ctx, v, n)
	if err != nil {
		return err
	}
	stripes := len(v.publishers)
	for len(p.chains) < stripes {
		p.chains = append(p.chains, nil)
	}
	for _, w := range p.group {
		if w.a == nil {
			w.t.given(v, first)
		} else if err := w.a.placed(ctx, v, first); errors.Is(err, errGone) {
			p.forgone = append(p.forgone, first)
		} else if err != nil {
			w.a.leave(ending{outNothing, err})
		} else {
			p.chains[w.a.place.Stripe] = append(p.chains[w.a.place.Stripe], w.a)
		}
		first += layout.Position(w.positions())
	}
	for i := range stripes {
		v.publishers[i].head.add(p.chains[i]...)
		clear(p.chains[i])
		p.chains[i] = p.chains[i][:0]
	}
	if len(p.forgone) > 0 {
		p.l.fillLater(p.forgone)
		p.forgone = nil
	}
	return nil
}

// positions takes n positions, which follow each other. Those that are taken when it fails become holes.
func (l *Log) positions(ctx context.Context, v *view, n int) (layout.Position, error) {
	s, err := v.seq.get(ctx)
	if err != nil {
		return 0, waiting(err, "a session with the sequencer")
	}
	f, err := l.frames.get()
	if err != nil {
		return 0, err
	}
	defer l.put(f)
	f.b.Reset()
	i := f.b.FetchAdd(s.word, uint64(n))
	if err := s.check(f.do(ctx, s.pipe)); err != nil {
		return 0, waiting(err, "the sequencer's answer")
	}
	first, err := s.next(v, f.b.Old(i))
	if err != nil {
		return 0, err
	}
	l.m.tokens.Add(float64(n))
	v.saw(first + layout.Position(n))
	return first, nil
}

// notPlaced is the error of an append whose time ended before it had a position.
func (p *pipeline) notPlaced(err error) error {
	if why := p.trouble.Load(); why != nil {
		return p.l.because(fmt.Errorf("%w: %w (last: %w)", ErrUnavailable, err, *why))
	}
	return p.l.because(waiting(err, "the appends before it to take their positions"))
}

func (w want) positions() int {
	if w.a != nil {
		return 1
	}
	return w.t.frag.Count
}

func (w want) flags() wire.PageFlags {
	if w.a != nil {
		return w.a.flags
	}
	return w.t.flags
}

// over tells whether nobody waits for it any more. Then it is not to be used again.
func (w want) over() bool {
	if w == (want{}) {
		return true
	}
	if w.a == nil {
		return w.t.gone()
	}
	w.a.mu.Lock()
	over := w.a.phase == phaseGone
	w.a.mu.Unlock()
	if over {
		w.a.recycle(false)
	}
	return over
}

// refuse ends what cannot have a position.
func (w want) refuse(err error) {
	switch {
	case w.over():
	case w.a != nil:
		w.a.leave(ending{outNothing, err})
	default:
		w.t.placed <- err
	}
}
