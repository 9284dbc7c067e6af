package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// byItself appends on the caller's goroutine.
func (a *attempt) byItself(ctx context.Context) (layout.Position, error) {
	v := a.l.current()
	out, err := a.try(ctx, v)
	return a.conclude(ctx, v, ending{out, err})
}

// try takes a token and does the whole append with it in v's epoch, on the caller's goroutine: the shortest way, for one that is alone,
// and for one that is tried again. Under memory durability it makes these calls of the fabric: Do(token), Post(payload to U2 … Uk),
// Do(U1), Do(U2) … Do(Uk).
func (a *attempt) try(ctx context.Context, v *view) (outcome, error) {
	a.view = nil // no token yet
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
	out, err := a.write(ctx, v)
	return a.pastWindow(ctx, v, out, err)
}

// pastWindow is what a write came to, out and err, unless the head's window had not reached the address: then it is written again once
// the window is there.
func (a *attempt) pastWindow(ctx context.Context, v *view, out outcome, err error) (outcome, error) {
	for errors.Is(err, errWindow) {
		// All slots are given back first: what clears the window may need them.
		if err := a.quiesce(ctx); err != nil {
			return outNothing, err
		}
		a.settleSlots()
		if err := a.l.clearWindow(ctx, v, a.place.Chain.Head(), a.place.Address); err != nil {
			return outNothing, err
		}
		out, err = a.write(ctx, v)
	}
	return out, err
}

// token takes a position, and with it the place and a fresh attempt id.
func (a *attempt) token(ctx context.Context, v *view) error {
	p, err := a.l.positions(ctx, v, 1)
	if err != nil {
		return err
	}
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
	if _, err := a.takeSlots(ctx, v, reps, ackChan(a.acks), true); err != nil {
		return err
	}
	a.seal(v)
	for i := range reps {
		r := &reps[i]
		r.own()
		r.pub.Reset()
		r.write.Reset()
		if i == 0 {
			r.pub.Write(a.sealed(), r.s.own(r.slot))
		} else {
			r.write.Write(a.sealed(), r.s.own(r.slot))
		}
		a.swap(v, r, r.pub)
		if r.s.bellDue(v.layout.Durability, 1) {
			var msg [16]byte
			r.pub.SendInline(wire.Doorbell{Address: a.place.Address}.Append(msg[:0]))
		}
	}
	return nil
}

// seal makes the page one of the attempt's position.
func (a *attempt) seal(v *view) {
	wire.SealPage(a.page.Bytes(), wire.Header{
		Flags: a.flags, Length: a.size, Extension: a.ext, Log: v.layout.Log, Position: a.pos, Epoch: v.epoch(), Attempt: a.id,
	})
}

// swap appends the CAS at a replica to list. The epoch stands in the compared value: in any other epoch this fails by value.
func (a *attempt) swap(v *view, r *replica, list *rdma.Batch) {
	gen := v.layout.Geometry.Generation(a.place.Address)
	r.compare = uint64(wire.EmptyWord(gen, v.epoch()))
	r.cas = list.CompareSwap(r.s.word(a.place.Address), r.compare, uint64(wire.MakeWord(wire.Written, gen, r.use.Tag())))
}

// takeSlots takes a slot at each replica, in the order of their ids: attempts that wait for each other's slots would wait for ever if chains
// name units in different orders. With wait it waits for each; otherwise it takes all that it needs, or none and returns false.
func (a *attempt) takeSlots(ctx context.Context, v *view, reps []replica, waiter ackWaiter, wait bool) (bool, error) {
	if !v.flash() {
		waiter = nil
	}
	var last layout.UnitID
	for range reps {
		var next *replica
		for i := range reps {
			if r := &reps[i]; r.s.id > last && (next == nil || r.s.id < next.s.id) {
				next = r
			}
		}
		last = next.s.id
		slot, use, ok := next.s.slots.tryAcquire(a.place.Address, waiter)
		if !ok && !wait {
			a.settleSlots()
			return false, nil
		}
		if !ok {
			var err error
			if slot, use, err = next.s.slots.acquire(ctx, a.place.Address, waiter); err != nil {
				return false, waiting(err, "a free staging slot at %s, which acknowledges late", next.s.who)
			}
		}
		next.slot, next.use, next.holding, next.waiter, next.posted, next.answered = slot, use, true, waiter, false, false
	}
	return true, nil
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
	r.learn()
	e := a.atHead(v, r)
	return e.out, e.err
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
	r.learn()
	if a.found(v, r) != foundEmpty {
		return errOther
	}
	r.published()
	return nil
}

// found says what the CAS at r found.
func (a *attempt) found(v *view, r *replica) found {
	return classify(wire.Word(r.old), v.layout.Geometry.Generation(a.place.Address), v.epoch())
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
		reps[i].waiter = nil
	}
	return nil
}
