package client

import (
	"context"
	"errors"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
)

// Append puts payload (at most MaxPayload bytes, none is allowed) into the log and returns its position once it is as
// durable as the layout says; of one longer than PagePayload the first of its positions, which follow each other. If it
// fails with ErrUnknown the payload may be in the log; with
// any other error (ErrTooLarge, ErrFull, ErrUnavailable, ErrClosed, ErrInvariant, ctx's) it is not and never will be.
func (l *Log) Append(ctx context.Context, payload []byte) (layout.Position, error) {
	return l.appendAs(ctx, 0, payload)
}

// appendAs is Append of an entry whose pages have these flags besides.
func (l *Log) appendAs(ctx context.Context, flags wire.PageFlags, payload []byte) (layout.Position, error) {
	if len(payload) > l.PagePayload() {
		return l.appendLarge(ctx, flags, payload)
	}
	a, alone, err := l.begin(ctx, flags, payload)
	if err != nil {
		return 0, err
	}
	defer l.ends()
	began := time.Now()
	var p layout.Position
	if alone {
		p, err = a.byItself(ctx)
	} else {
		p, err = a.inCompany(ctx)
	}
	l.m.calls.ended(opAppend, began, err)
	return p, err
}

// AppendAsync is Append that returns once payload is copied, and calls done from another goroutine when it is over. Entries of all sizes
// that one goroutine appends so take ascending positions, in the order of the calls; only an entry that loses its position (to a hole
// filler, or because an epoch ends) takes a later one. done is called for one append after another, in no order, and holds up those
// behind it until it returns: it may call AppendAsync, and must not wait for another append's done. AppendAsync blocks while MaxOutstanding
// appends are in flight, or 8 of more than a page. An error means that nothing was
// begun and done is not called. ctx bounds the append, not only the call.
func (l *Log) AppendAsync(ctx context.Context, payload []byte, done func(layout.Position, error)) error {
	return l.appendAsyncAs(ctx, 0, payload, done)
}

// appendAsyncAs is AppendAsync of an entry whose pages have these flags besides.
func (l *Log) appendAsyncAs(ctx context.Context, flags wire.PageFlags, payload []byte, done func(layout.Position, error)) error {
	if len(payload) > l.PagePayload() {
		return l.appendLargeAsync(ctx, flags, payload, done)
	}
	a, _, err := l.begin(ctx, flags, payload)
	if err != nil {
		return err
	}
	a.goAsync(ctx, done)
	return nil
}

// begin enters the log and takes an attempt with the payload in it. It tells whether no other append is in flight.
func (l *Log) begin(ctx context.Context, flags wire.PageFlags, payload []byte) (a *attempt, alone bool, err error) {
	if err := l.enter(); err != nil {
		return nil, false, err
	}
	if l.full() {
		l.exit()
		l.m.calls.refused(opAppend, ErrFull)
		return nil, false, ErrFull
	}
	if a, err = l.attempts.get(ctx); err != nil {
		l.exit()
		l.m.calls.refused(opAppend, err)
		return nil, false, err
	}
	a.load(payload)
	a.flags |= flags
	return a, l.appending.Add(1) == 1, nil
}

// ends undoes begin, once the outcome is known.
func (l *Log) ends() {
	l.appending.Add(-1)
	l.exit()
}

// outcome is what became of one try.
type outcome int

const (
	outDone    outcome = iota // durable at its position
	outLost                   // somebody else's entry or junk stands there: it is not in the log
	outNothing                // nothing was published; the error says why
	outUnknown                // the error came when the CAS at the head was posted, or later
)

// ending is what a try came to.
type ending struct {
	out outcome
	err error
}

// conclude goes on from what the first try, in v, came to, until the outcome is known, or cannot be. Then it gives the attempt back to
// the pool.
func (a *attempt) conclude(ctx context.Context, v *view, e ending) (layout.Position, error) {
	l := a.l
	var b backoff
	out, err := a.afterCompany(ctx, e)
	for {
		if out, err = a.known(ctx, v, out, err); out == outUnknown {
			err = l.unknown(a.pos, a.id, a.view.epoch(), l.explain(err))
			a.recycle(true)
			return 0, err
		}
		var qerr error
		if out != outDone { // a slot is free only when no payload is on its way to it (rule R6)
			if qerr = a.quiesce(ctx); qerr == nil {
				a.settleSlots()
			}
		}
		switch out {
		case outDone:
			p := a.pos
			a.recycle(false)
			return p, nil
		case outLost:
			l.m.casLost.Inc()
			err = qerr
		default:
			// Nothing was published. The token is given up.
			err = l.retry(ctx, v, err, &b)
			a.again = mutant.R8 && (a.view != nil || a.again)
		}
		if err != nil {
			a.recycle(out == outNothing && a.view != nil && !l.closed.Load())
			return 0, err
		}
		v = l.current()
		out, err = a.try(ctx, v)
	}
}

// afterCompany finishes what the pipeline leaves to the append itself: a window that is not there yet, and acknowledgements that are
// late, or say that the page is corrupt. Other endings stay as they are.
func (a *attempt) afterCompany(ctx context.Context, e ending) (outcome, error) {
	defer a.leaveGate()
	switch {
	case errors.Is(e.err, errWindow):
		return a.pastWindow(ctx, a.view, e.out, e.err)
	case errors.Is(e.err, errLate):
		a.l.m.ackMissed.Inc()
		if err := a.l.awaitDurable(ctx, a.view, a.place, a.pos); err != nil {
			return outUnknown, err
		}
		return outDone, nil
	case errors.Is(e.err, errCorrupt):
		return e.out, a.l.foundCorrupt(a.pos)
	}
	return e.out, e.err
}
