package client

import (
	"context"
	"errors"
	"fmt"
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
	a, err := l.begin(ctx, flags, payload)
	if err != nil {
		return 0, err
	}
	defer l.exit()
	return a.run(ctx)
}

// AppendAsync is Append that returns once payload is copied, and calls done from another goroutine when it is
// over. Entries that one goroutine appends so take ascending positions, in the order of the calls, unless one loses its position (to a hole
// filler, or because an epoch ends) and takes a later one. It blocks while MaxOutstanding appends are in flight, or 8 of more than a page. An error means that nothing was
// begun and done is not called. ctx bounds the append, not only the call.
func (l *Log) AppendAsync(ctx context.Context, payload []byte, done func(layout.Position, error)) error {
	return l.appendAsyncAs(ctx, 0, payload, done)
}

// appendAsyncAs is AppendAsync of an entry whose pages have these flags besides.
func (l *Log) appendAsyncAs(ctx context.Context, flags wire.PageFlags, payload []byte, done func(layout.Position, error)) error {
	if len(payload) > l.PagePayload() {
		return l.appendLargeAsync(ctx, flags, payload, done)
	}
	a, err := l.begin(ctx, flags, payload)
	if err != nil {
		return err
	}
	a.ctx, a.done, a.turn = ctx, done, l.takeTurn()
	select {
	case l.attempts.jobs <- a:
	default:
		go l.work(a) // ends with the Log; there are never more than MaxOutstanding
	}
	return nil
}

// begin enters the log and takes an attempt with the payload in it.
func (l *Log) begin(ctx context.Context, flags wire.PageFlags, payload []byte) (*attempt, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	if l.full() {
		l.exit()
		l.m.calls.refused(opAppend, ErrFull)
		return nil, ErrFull
	}
	a, err := l.attempts.get(ctx)
	if err != nil {
		l.exit()
		l.m.calls.refused(opAppend, err)
		return nil, err
	}
	a.load(payload)
	a.flags |= flags
	return a, nil
}

// work runs appends of AppendAsync, first a and then those that are handed over.
func (l *Log) work(a *attempt) {
	for {
		done := a.done
		p, err := a.run(a.ctx)
		l.exit() // before done, which may call into the log again
		done(p, err)
		select {
		case a = <-l.attempts.jobs:
		case <-l.ctx.Done():
			return
		}
	}
}

// outcome is what became of one try.
type outcome int

const (
	outDone    outcome = iota // durable at its position
	outLost                   // somebody else's entry or junk stands there: it is not in the log
	outNothing                // nothing was published; the error says why
	outUnknown                // the error came when the CAS at the head was posted, or later
)

// run appends what was loaded and gives the attempt back to the pool.
func (a *attempt) run(ctx context.Context) (layout.Position, error) {
	l, began := a.l, time.Now()
	defer a.turn.pass()
	p, err := a.untilKnown(ctx)
	l.m.calls.ended(opAppend, began, err)
	return p, err
}

// untilKnown tries until the outcome is known, or cannot be.
func (a *attempt) untilKnown(ctx context.Context) (layout.Position, error) {
	l := a.l
	var b backoff
	for {
		v := l.current()
		out, err := a.try(ctx, v)
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
			if qerr == nil {
				continue
			}
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
	}
}

// try takes a token and does the whole append with it in v's epoch. It passes the attempt's turn on once the token is asked for. Under memory durability, with one append
// outstanding, it makes these calls of the fabric: Do(token), Post(payload to U2 … Uk), Do(U1),
// Do(U2) … Do(Uk).
func (a *attempt) try(ctx context.Context, v *view) (outcome, error) {
	a.view = nil // no token yet
	if err := a.turn.await(ctx); err != nil {
		return outNothing, err
	}
	select {
	case v.gate <- struct{}{}:
		defer func() { <-v.gate }()
	case <-v.replaced:
		return outNothing, errStale
	case <-ctx.Done():
		return outNothing, waiting(ctx.Err(), "other appends to end")
	}
	if mutant.R8 && a.again {
		if err := a.take(ctx, v, a.pos); err != nil {
			return outNothing, err
		}
		return a.publish(ctx, v)
	}
	if err := v.ready(ctx); err != nil {
		return outNothing, err
	}
	if err := v.takes(ctx, a.flags); err != nil {
		return outNothing, err
	}
	if err := a.l.ownID(ctx); err != nil {
		return outNothing, err
	}
	if err := a.token(ctx, v); err != nil {
		return outNothing, err
	}
	return a.publish(ctx, v)
}

// publish writes at the position that was taken, once the head's window is there.
func (a *attempt) publish(ctx context.Context, v *view) (outcome, error) {
	for {
		out, err := a.write(ctx, v)
		if !errors.Is(err, errWindow) {
			return out, err
		}
		// All slots are given back first: what clears the window may need them.
		if err := a.quiesce(ctx); err != nil {
			return outNothing, err
		}
		a.settleSlots()
		if err := a.l.clearWindow(ctx, v, a.place.Chain.Head(), a.place.Address); err != nil {
			return outNothing, err
		}
	}
}

// token takes a position, and with it the place and a fresh attempt id.
func (a *attempt) token(ctx context.Context, v *view) error {
	s, err := v.seq.get(ctx)
	if err != nil {
		return waiting(err, "a session with the sequencer")
	}
	a.seq.Reset()
	i := a.seq.FetchAdd(s.word, 1)
	a.seqOn = s.pipe
	if a.turn == nil {
		err = s.pipe.do(ctx, a.seq)
	} else if err = s.pipe.post(ctx, a.seq); err == nil {
		a.turn.pass() // what is posted behind it on this connection is executed behind it
		err = s.pipe.wait(ctx, a.seq)
	}
	if err := s.check(err); err != nil {
		return waiting(err, "the sequencer's answer") // the token, if one was taken, becomes a hole
	}
	p, err := s.next(v, a.seq.Old(i))
	if err != nil {
		return err
	}
	a.l.m.tokens.Inc()
	v.saw(p + 1)
	return a.take(ctx, v, p)
}

// take makes the attempt one at position p, which was handed out in v's epoch.
func (a *attempt) take(ctx context.Context, v *view, p layout.Position) (err error) {
	a.pos = p
	if a.place, err = v.layout.Locate(p); err != nil {
		return err
	}
	if len(a.place.Chain.Units) > maxReplicas {
		return fmt.Errorf("client: a chain of %d replicas: at most %d", len(a.place.Chain.Units), maxReplicas)
	}
	a.id, err = a.l.attemptID(ctx)
	a.view = v
	return err
}

// errOther: at a later replica the word was not EMPTY of this epoch. A helper was there, the window is not there yet, or
// the epoch is over: settle tells them apart.
var errOther = errors.New("a later replica was not as expected")

// errWindow: the head's window has not reached the address.
var errWindow = errors.New("window has not reached the address")

// write publishes the page at the attempt's position: head first, then down the chain (rule R2).
func (a *attempt) write(ctx context.Context, v *view) (outcome, error) {
	reps := a.replicas(len(a.place.Chain.Units))
	if err := a.prepare(ctx, v, reps); err != nil {
		return outNothing, err
	}
	// The payload travels to all replicas at once; each gets it on the queue pair of its CAS, before it (rule R6).
	for i := 1; i < len(reps); i++ {
		r := &reps[i]
		if err := r.s.check(r.s.appends.post(ctx, r.write)); err != nil {
			return outNothing, err
		}
	}
	if mutant.R2 {
		for i := len(reps) - 1; i > 0; i-- {
			if err := a.publishNext(ctx, v, &reps[i]); err != nil {
				return outUnknown, err
			}
		}
	}
	out, err := a.publishHead(ctx, v, &reps[0])
	if out != outDone {
		return out, err
	}
	for i := 1; i < len(reps) && !mutant.R2; i++ {
		if err := a.publishNext(ctx, v, &reps[i]); err != nil {
			return outUnknown, err
		}
	}
	if v.flash() {
		if err := a.awaitAcks(ctx, reps); err != nil {
			return outUnknown, err
		}
	}
	return outDone, nil
}

// prepare seals the page, takes a slot at each replica and fills the lists.
func (a *attempt) prepare(ctx context.Context, v *view, reps []replica) error {
	for i, id := range a.place.Chain.Units {
		s, err := v.unit(ctx, id)
		if err != nil {
			return waiting(err, "a session with unit %d", id)
		}
		reps[i].s = s
	}
	if err := a.takeSlots(ctx, v, reps); err != nil {
		return err
	}
	g := v.layout.Geometry
	wire.SealPage(a.page.Bytes(), wire.Header{
		Flags: a.flags, Length: a.size, Extension: a.ext, Log: v.layout.Log, Position: a.pos, Epoch: v.epoch(), Attempt: a.id,
	})
	gen := g.Generation(a.place.Address)
	for i := range reps {
		r := &reps[i]
		r.write.Reset()
		r.pub.Reset()
		if i == 0 {
			r.pub.Write(a.sealed(), r.s.own(r.slot))
		} else {
			r.write.Write(a.sealed(), r.s.own(r.slot))
		}
		// The epoch stands in the compared value: in any other epoch this fails by value.
		r.cas = r.pub.CompareSwap(r.s.word(a.place.Address), uint64(wire.EmptyWord(gen, v.epoch())),
			uint64(wire.MakeWord(wire.Written, gen, r.use.Tag())))
		if r.s.bellDue(v.layout.Durability) {
			var msg [16]byte
			r.pub.SendInline(wire.Doorbell{Address: a.place.Address}.Append(msg[:0]))
		}
	}
	return nil
}

// takeSlots takes a slot at each replica, in the order of their ids: attempts that
// wait for each other's slots would wait for ever if chains name units in different orders.
func (a *attempt) takeSlots(ctx context.Context, v *view, reps []replica) error {
	var last layout.UnitID
	for range reps {
		var next *replica
		for i := range reps {
			if r := &reps[i]; r.s.id > last && (next == nil || r.s.id < next.s.id) {
				next = r
			}
		}
		last = next.s.id
		var waiter chan<- wire.State
		if v.flash() {
			waiter = a.acks
		}
		slot, use, err := next.s.slots.acquire(ctx, a.place.Address, waiter)
		if err != nil {
			return waiting(err, "a free staging slot at %s, which acknowledges late", next.s.who)
		}
		next.slot, next.use, next.holding, next.waiting, next.posted = slot, use, true, v.flash(), false
	}
	return nil
}

// publishHead does the CAS that decides the position. Its error is errWindow if the window is not there yet.
func (a *attempt) publishHead(ctx context.Context, v *view, r *replica) (outcome, error) {
	r.posted = true
	if err := r.s.check(r.s.appends.do(ctx, r.pub)); err != nil {
		if !r.pub.InFlight() && r.pub.Result() == nil {
			r.posted = false // Post failed: nothing was done
			return outNothing, err
		}
		return outUnknown, waiting(err, "the answer of %s", r.s.who)
	}
	switch found := a.found(v, r); found {
	case foundEmpty:
		a.published(r)
		return outDone, nil
	case foundEntry, foundPast:
		return outLost, nil
	case foundAhead:
		return outNothing, errWindow
	default:
		return outNothing, &sessionError{r.s.who, errStale}
	}
}

// publishNext does the CAS at a later replica, now that the one before is known to hold this entry (rule R2).
func (a *attempt) publishNext(ctx context.Context, v *view, r *replica) error {
	r.posted = true
	if err := r.s.check(r.s.appends.do(ctx, r.pub)); err != nil {
		if !r.pub.InFlight() && r.pub.Result() == nil {
			r.posted = false
		}
		return waiting(err, "the answer of %s", r.s.who)
	}
	if err := r.s.check(r.s.appends.wait(ctx, r.write)); err != nil { // complete already: it stood before on the same connection
		return err
	}
	if a.found(v, r) != foundEmpty {
		return errOther
	}
	a.published(r)
	return nil
}

func (a *attempt) published(r *replica) {
	r.holding = false
	r.s.slots.publish(r.slot)
}

func (a *attempt) found(v *view, r *replica) found {
	return classify(wire.Word(r.pub.Old(r.cas)), v.layout.Geometry.Generation(a.place.Address), v.epoch())
}

// ackPatience is how long an Ack may take before the words are looked at: a helper may have
// got it, or the doorbell may have been lost with a connection.
const ackPatience = 50 * time.Millisecond

// awaitAcks waits until every replica has the page on flash (rule R3).
func (a *attempt) awaitAcks(ctx context.Context, reps []replica) error {
	a.wait.Reset(ackPatience)
	defer a.wait.Stop()
	for range reps {
		select {
		case st := <-a.acks:
			if st == wire.Corrupt {
				return a.l.foundCorrupt(a.pos)
			}
			if st == stateBroken {
				return &sessionError{"acknowledgement", errStale}
			}
		case <-a.wait.C:
			a.l.m.ackMissed.Inc()
			return a.l.awaitDurable(ctx, a.view, a.place, a.pos)
		case <-ctx.Done():
			return waiting(ctx.Err(), "the units to have it on flash")
		}
	}
	for i := range reps {
		reps[i].waiting = false
	}
	return nil
}
