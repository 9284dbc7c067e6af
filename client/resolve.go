package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/sleep"
	"corfu/layout"
)

// settle finds out what became of a try that ended with cause after its CAS at the head was posted (rule R9), and
// finishes it if the entry stands. It reports whether the payload is in the log, durable as it should be. An error
// means that this could not be found out: the outcome is unknown. Until settle is through, the payload is not appended again.
//
// In the same epoch the head's word decides. EMPTY there proves nothing yet: packets of the
// connection that broke may still be on their way, and land after the READ. So the word is decided
// with a CAS EMPTY → JUNK of our own. Whatever stands there afterwards stands for ever: if that is
// our entry, the chain is completed; if it is anything else, our CAS has failed or will fail by value, in
// this epoch and, the epoch being part of the compared value, in every other.
//
// In a newer epoch nothing of the old one can land any more, and what of it survived was
// reconciled: the head of the new chain is only read. Ours: completed from the head, in the new epoch (rule R10). Anything
// else, EMPTY included: lost. It is never taken up in mid-chain.
func (a *attempt) settle(ctx context.Context, v *view, cause error) (mine bool, err error) {
	if err := a.quiesce(ctx); err != nil {
		return false, err
	}
	a.settleSlots()
	l := a.l
	helped := errors.Is(cause, errOther)
	if !helped && !transient(cause) {
		return false, cause
	}
	if !helped { // a rejection, an error, a time-out: get the layout first
		_ = l.refresh(ctx, v)
	}
	mine, err = try(ctx, l, func(cur *view) (bool, error) {
		if cur.epoch() == a.view.epoch() {
			return a.settleSame(ctx, cur)
		}
		return a.settleNewer(ctx, cur)
	})
	switch {
	case err != nil:
		l.noteUnknown(a.pos, fmt.Errorf("%w (first: %w)", err, cause))
	case mine && !helped:
		l.m.resolvedMine.Inc()
	case !helped:
		l.m.resolvedLost.Inc()
	}
	return mine, err
}

// known is what a try came to: out and err, unless the outcome was unknown and settle finds out. It is outUnknown only if that fails.
func (a *attempt) known(ctx context.Context, v *view, out outcome, err error) (outcome, error) {
	if out != outUnknown {
		return out, err
	}
	switch mine, err := a.settle(ctx, v, err); {
	case err != nil:
		return outUnknown, err
	case mine:
		return outDone, nil
	}
	return outLost, nil
}

// noteUnknown notes an append whose outcome its caller is told to be unknown.
func (l *Log) noteUnknown(p layout.Position, cause error) {
	if l.closed.Load() {
		l.leftUnknown.note(p)
		return
	}
	l.log.Warn("outcome of an append unknown", "position", p, "cause", cause)
}

func (a *attempt) content() content { return content{attempt: a.id, page: a.sealed()} }

// settleSame decides the head's word in the attempt's own epoch.
func (a *attempt) settleSame(ctx context.Context, v *view) (bool, error) {
	l := a.l
	f, err := l.frames.get()
	if err != nil {
		return false, err
	}
	defer l.put(f)
	head, err := v.unit(ctx, a.place.Chain.Head())
	if err != nil {
		return false, err
	}
	at := spot{head, a.place.Address, a.pos}
	if mutant.R9 {
		if e, err := l.clear(ctx, v, at, f); err != nil || e.kind == entryNone {
			return false, err
		}
	}
	won, err := l.junkHead(ctx, v, at, f)
	if err != nil {
		return false, err
	}
	if won {
		l.m.fills.Inc()
		a.completeLater()
		return false, nil
	}
	e, err := l.clear(ctx, v, at, f)
	if err != nil {
		return false, err
	}
	switch {
	case e.same(a.content()):
		return true, a.finish(ctx, v)
	case e.kind == entryTrimmed:
		return false, ErrTrimmed // it may have been ours
	case e.kind == entryNone:
		return false, &sessionError{head.who, errStale} // it held an entry a moment ago
	}
	return false, nil
}

// settleNewer reads the head of the new chain.
func (a *attempt) settleNewer(ctx context.Context, v *view) (bool, error) {
	l := a.l
	place, err := v.layout.Locate(a.pos)
	if err != nil {
		return false, nil // no chain holds the position any more, so none holds our entry
	}
	f, err := l.frames.get()
	if err != nil {
		return false, err
	}
	defer l.put(f)
	head, err := v.unit(ctx, place.Chain.Head())
	if err != nil {
		return false, err
	}
	e, err := l.clear(ctx, v, spot{head, place.Address, a.pos}, f)
	if err != nil {
		return false, err
	}
	switch {
	case e.same(a.content()):
		a.place, a.view = place, v
		return true, a.finish(ctx, v)
	case e.kind == entryTrimmed:
		return false, ErrTrimmed // it may have been ours
	case e.kind == entryNone:
		// Conclusive only if the unit still serves this epoch after the READ.
		return false, l.showsEpoch(ctx, v, head, f)
	}
	return false, nil
}

// finish completes the chain behind a head that holds our entry, and waits until it is as durable as it should be.
func (a *attempt) finish(ctx context.Context, v *view) error {
	if err := a.l.complete(ctx, v, a.place, a.pos, a.content()); err != nil {
		return err
	}
	if v.flash() {
		return a.l.awaitDurable(ctx, v, a.place, a.pos)
	}
	return nil
}

// completeLater takes our junk down the chain in the background, for those who read there.
func (a *attempt) completeLater() {
	l, p := a.l, a.pos
	l.background(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, 2*l.o.OpTimeout)
		defer cancel()
		_ = l.fill(ctx, p)
	})
}

// clear is inspect that waits until the unit has judged a page that does not verify. A corrupt one is an error.
func (l *Log) clear(ctx context.Context, v *view, at spot, f *frame) (entry, error) {
	for {
		e, err := l.inspect(ctx, v, at, f)
		if err != nil {
			return e, err
		}
		if e.kind == entryCorrupt {
			return e, l.foundCorrupt(at.p)
		}
		if e.kind != entryUnclear {
			return e, nil
		}
		if err := sleep.For(ctx, time.Millisecond); err != nil {
			return e, err
		}
	}
}
