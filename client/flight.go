package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
)

// phase is how far an attempt in the pipeline has come.
type phase uint8

const (
	phaseAlone      phase = iota // it is not in the pipeline
	phaseQueued                  // it has no position
	phaseGone                    // nor will it: its caller went
	phasePublishing              // it has one, and is on its way down the chain
	phasePublished               // it stands at all replicas; acknowledgements are awaited
	phaseOver                    // it left the pipeline
)

// flight is what the pipeline keeps of an attempt. The fields above mu belong to whoever has the attempt.
type flight struct {
	result chan ending   // to the goroutine that called Append
	gate   chan struct{} // where the attempt holds a place; nil: nowhere

	// Of AppendAsync.
	ctx   context.Context
	done  func(layout.Position, error) // nil: it is not of AppendAsync
	began time.Time
	watch func() bool // ends the watch for ctx's end; nil: ctx has none

	// Of a fragment.
	entry  *tearing // nil: it is none
	number int

	mu      sync.Mutex
	use     uint64 // counts the appends that this attempt served
	phase   phase
	left    bool       // the caller went: nobody wants the ending
	missing int        // acknowledgements
	bad     wire.State // of an acknowledgement that says that the page is not durable; 0: none did
}

var (
	// errGone: the caller of an append went before it had a position.
	errGone = errors.New("the caller is gone")
	// errLate: acknowledgements took longer than ackPatience.
	errLate = errors.New("an acknowledgement is late")
	// errCorrupt: a unit acknowledged the page as corrupt. The append counts and logs that.
	errCorrupt = errors.New("an acknowledgement says that the page is corrupt")
)

// inCompany appends by way of the pipeline.
func (a *attempt) inCompany(ctx context.Context) (layout.Position, error) {
	use := a.queue()
	a.l.pipeline.tokens.add(want{a: a})
	select {
	case e := <-a.result:
		return a.conclude(ctx, a.placedIn(), e)
	case <-ctx.Done():
	}
	if err := a.quit(use, ctx.Err()); err != nil {
		return 0, err
	}
	e := <-a.result
	return a.conclude(ctx, a.placedIn(), e)
}

// goAsync appends by way of the pipeline, and has done called in the end.
func (a *attempt) goAsync(ctx context.Context, done func(layout.Position, error)) {
	p, began, use := &a.l.pipeline, time.Now(), a.queue()
	a.ctx, a.done, a.began = ctx, done, began
	if ctx.Done() != nil {
		a.watch = context.AfterFunc(ctx, func() {
			if err := a.quit(use, ctx.Err()); err != nil {
				p.report(began, callback{done, 0, err})
			}
		})
	}
	p.tokens.add(want{a: a})
}

// queue makes the attempt one that waits for its position.
func (a *attempt) queue() (use uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.phase = phaseQueued
	return a.use
}

// join makes the attempt, which has a position, fragment n of t.
func (a *attempt) join(t *tearing, n int) (use uint64) {
	a.entry, a.number = t, n
	a.mu.Lock()
	defer a.mu.Unlock()
	a.phase = phasePublishing
	return a.use
}

// placedIn is the view of the attempt's position, or the current one if it has none.
func (a *attempt) placedIn() *view {
	if a.view != nil {
		return a.view
	}
	return a.l.current()
}

// placed gives the attempt its position. It fails with errGone if nobody wants it any more.
func (a *attempt) placed(ctx context.Context, v *view, p layout.Position) error {
	err := a.take(ctx, v, p) // before mu: it may wait for a client id, and whoever gives the append up does not
	a.mu.Lock()
	gone := a.phase == phaseGone
	if !gone {
		a.phase = phasePublishing
	}
	a.mu.Unlock()
	if gone {
		a.leaveGate()
		a.recycle(false)
		return errGone
	}
	return err
}

// quit lets go of the append of that use, whose caller's time is over, and returns the caller's error; nil: its ending is known. What is on
// its way goes on, but nobody is told of it.
func (a *attempt) quit(use uint64, cause error) error {
	a.mu.Lock()
	if a.use != use || a.left {
		a.mu.Unlock()
		return nil
	}
	switch a.phase {
	case phaseQueued:
		a.phase = phaseGone
		a.mu.Unlock()
		return a.l.pipeline.notPlaced(cause)
	case phasePublishing, phasePublished:
		a.left = true
		p, id, e := a.pos, a.id, a.placedIn().epoch()
		a.mu.Unlock()
		err := waiting(cause, "the units to have it")
		a.l.noteUnknown(p, err)
		return a.l.unknown(p, id, e, a.l.explain(err))
	}
	a.mu.Unlock()
	return nil
}

// leave takes the attempt out of the pipeline: this is what it came to. Nothing of it is in flight.
func (a *attempt) leave(e ending) {
	a.mu.Lock()
	left := a.left || a.phase == phaseGone
	a.phase = phaseOver
	a.mu.Unlock()
	a.tell(e, left)
}

// tell tells whoever waits for the attempt. It may be called with a session's slots locked: it neither waits nor touches any.
func (a *attempt) tell(e ending, left bool) {
	if left || !errors.Is(e.err, errWindow) && !errors.Is(e.err, errLate) {
		a.leaveGate() // the others need their slots for longer
	}
	async := left || a.done != nil || a.entry != nil
	switch {
	case !async:
		a.result <- e
	case e.out != outDone:
		a.l.background(func(ctx context.Context) { a.resume(ctx, e, left) })
	case left:
		a.recycle(false)
	case a.entry != nil:
		t, n := a.entry, a.number
		a.recycle(false)
		t.ended(n, e)
	default:
		a.unwatch()
		p, c, began := &a.l.pipeline, callback{a.done, a.pos, nil}, a.began
		a.recycle(false)
		p.report(began, c)
	}
}

// resume goes on with an attempt that left the pipeline without being done, on a goroutine of its own.
func (a *attempt) resume(ctx context.Context, e ending, left bool) {
	switch l := a.l; {
	case left:
		// Others may wait for what stands at its position.
		a.recycle(e.out != outLost && a.view != nil && !l.closed.Load())
	case a.entry != nil:
		t, n := a.entry, a.number
		out, err := a.concludeFragment(t.ctx, e)
		t.ended(n, ending{out, err})
	default:
		done, began, watch := a.done, a.began, a.watch
		p, err := a.conclude(a.ctx, a.placedIn(), e)
		if watch != nil {
			watch()
		}
		l.pipeline.report(began, callback{done, p, err})
	}
}

// acked counts an acknowledgement of a page that it waits for. The session's slots are locked.
func (a *attempt) acked(st wire.State) {
	a.mu.Lock()
	a.missing--
	if st == wire.Corrupt || st == stateBroken {
		a.bad = st
	}
	e, over := a.durable()
	left := a.left
	a.mu.Unlock()
	if over {
		a.tell(e, left)
	}
}

// published notes that the attempt stands at all replicas.
func (a *attempt) published() {
	a.mu.Lock()
	a.phase = phasePublished
	e, over := a.durable()
	left, use := a.left, a.use
	a.mu.Unlock()
	if over {
		a.tell(e, left)
	} else {
		a.l.pipeline.late.expect(a, use)
	}
}

// durable tells whether the attempt's end is reached, and what it is. Under mu.
func (a *attempt) durable() (e ending, over bool) {
	switch {
	case a.phase != phasePublished:
		return e, false
	case a.bad == wire.Corrupt:
		e = ending{outUnknown, errCorrupt}
	case a.bad != 0:
		e = ending{outUnknown, &sessionError{"acknowledgement", errStale}}
	case a.missing > 0:
		return e, false
	default:
		for i := range a.reps { // all that came: nothing is left to be forgotten
			a.reps[i].waiter = nil
		}
	}
	a.phase = phaseOver
	return e, true
}

// overdue takes the attempt out of the pipeline if its acknowledgements are still awaited.
func (a *attempt) overdue(use uint64) {
	a.mu.Lock()
	late := a.use == use && a.phase == phasePublished
	if late {
		a.phase = phaseOver
	}
	left := a.left
	a.mu.Unlock()
	if late {
		a.tell(ending{outUnknown, errLate}, left)
	}
}

// expectAcks notes how many acknowledgements are awaited, before the slots are taken that they are for.
func (a *attempt) expectAcks(v *view, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.missing, a.bad = 0, 0
	if v.flash() {
		a.missing = n
	}
}

func (a *attempt) leaveGate() {
	if a.gate != nil {
		<-a.gate
		a.gate = nil
	}
}

func (a *attempt) unwatch() {
	if a.watch != nil {
		a.watch()
	}
}

// land ends the flight; what was begun for it and comes late means nobody.
func (a *attempt) land() {
	a.ctx, a.done, a.watch, a.entry = nil, nil, nil, nil
	a.mu.Lock()
	defer a.mu.Unlock()
	a.use++
	a.phase, a.left, a.bad, a.missing = phaseAlone, false, 0, 0
}

// lateness takes attempts out of the pipeline whose acknowledgements take longer than ackPatience.
type lateness struct {
	l *Log

	mu      sync.Mutex
	list    []expected // by time
	running bool
}

type expected struct {
	a     *attempt
	use   uint64
	until time.Time
}

// expect begins to watch over an attempt.
func (x *lateness) expect(a *attempt, use uint64) {
	until := time.Now().Add(ackPatience)
	x.mu.Lock()
	x.list = append(x.list, expected{a, use, until})
	start := !x.running
	x.running = true
	x.mu.Unlock()
	if start {
		x.l.background(x.run)
	}
}

// run looks now and then, while there is anything to look at. An end of the Log breaks all sessions, and that ends the attempts.
func (x *lateness) run(ctx context.Context) {
	for {
		err := sleep.For(ctx, ackPatience/4)
		now := time.Now()
		x.mu.Lock()
		n := 0
		for n < len(x.list) && (err != nil || x.list[n].until.Before(now)) {
			n++
		}
		due := append([]expected(nil), x.list[:n]...)
		rest := copy(x.list, x.list[n:])
		clear(x.list[rest:])
		x.list = x.list[:rest]
		x.running = rest > 0
		running := x.running
		x.mu.Unlock()
		for _, e := range due {
			e.a.overdue(e.use)
		}
		if !running {
			return
		}
	}
}
