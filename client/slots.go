package client

import (
	"context"
	"sync"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
)

// slots are the staging slots of one session.
//
// Rule R6: a slot is private to one attempt and used again only after its credit came back. So a
// slot is free at first; held from acquire on; and, once a CAS published it, given back by the
// unit's Ack alone. One that was never published is released by its holder, after every
// operation that writes to it completed.
type slots struct {
	first wire.StagingSlot
	free  chan int // indices; room for all
	dead  <-chan struct{}

	mu    sync.Mutex
	state []slot
}

type slot struct {
	count     uint16         // uses so far, with which the next use is tagged
	address   layout.Address // of the use
	held      bool           // its attempt has not yet said what became of it
	published bool           // a word names it (known to the client), no Ack yet
	acked     bool           // the Ack came while it was held
	waiter    ackWaiter
}

// ackWaiter is told the state of an Ack. The slots are locked meanwhile: it neither waits nor asks for a slot.
type ackWaiter interface{ acked(wire.State) }

// ackChan is an ackWaiter. It must have room.
type ackChan chan wire.State

func (c ackChan) acked(st wire.State) { c <- st }

// stateBroken goes to those who wait for an Ack on a session that broke.
const stateBroken wire.State = 15

func newSlots(first wire.StagingSlot, n int, use uint16, dead <-chan struct{}) *slots {
	s := &slots{first: first, free: make(chan int, n), dead: dead, state: make([]slot, n)}
	for i := range s.state {
		s.state[i].count = use & 0xfff
		s.free <- i
	}
	return s
}

// acquire waits for a free slot and takes it for one use at address a; waiter (nil: nobody) gets the state
// of that use's Ack.
func (s *slots) acquire(ctx context.Context, a layout.Address, waiter ackWaiter) (int, wire.Use, error) {
	var i int
	select {
	case i = <-s.free:
	default:
		select {
		case i = <-s.free:
		case <-s.dead:
			return 0, wire.Use{}, &sessionError{"staging slots", errStale}
		case <-ctx.Done():
			return 0, wire.Use{}, ctx.Err()
		}
	}
	return i, s.hold(i, a, waiter), nil
}

// tryAcquire is acquire that does not wait; false: no slot is free.
func (s *slots) tryAcquire(a layout.Address, waiter ackWaiter) (int, wire.Use, bool) {
	select {
	case i := <-s.free:
		return i, s.hold(i, a, waiter), true
	default:
		return 0, wire.Use{}, false
	}
}

func (s *slots) hold(i int, a layout.Address, waiter ackWaiter) wire.Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.state[i]
	use := wire.Use{Slot: s.first + wire.StagingSlot(i), Count: t.count}
	*t = slot{count: (t.count + 1) & 0xfff, address: a, held: true, waiter: waiter}
	return use
}

// publish says that the holder's CAS succeeded.
func (s *slots) publish(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.state[i]
	t.held = false
	if t.acked || mutant.R6 {
		s.free <- i
		return
	}
	t.published = true
}

// release says that no word names the slot, nor will: its CAS was not attempted, or failed by value.
func (s *slots) release(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state[i].held, s.state[i].waiter = false, nil
	s.free <- i
}

// forget stops the notice of the Ack of that use, if it did not come yet: the slot may be somebody else's by now.
func (s *slots) forget(i int, use wire.Use, waiter ackWaiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := &s.state[i]; t.waiter == waiter && (t.count-1)&0xfff == use.Count {
		t.waiter = nil
	}
}

// ack takes an acknowledgement. It is the holder's only if slot, use count and address all are.
func (s *slots) ack(a wire.Ack) {
	i := int(a.Use.Slot) - int(s.first)
	if i < 0 || i >= len(s.state) || a.State == wire.DurableJunk {
		return // of another session's slot, or the tag of a junk word, which names no slot
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.state[i]
	if t.address != a.Address || (t.count-1)&0xfff != a.Use.Count || t.acked || !(t.held || t.published) {
		return // said before
	}
	if t.waiter != nil {
		t.waiter.acked(a.State)
		t.waiter = nil
	}
	if t.held {
		t.acked = true
		return
	}
	t.published = false
	s.free <- i
}

// broke tells everybody who waits for an Ack that none will come.
func (s *slots) broke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.state {
		if w := s.state[i].waiter; w != nil {
			w.acked(stateBroken)
			s.state[i].waiter = nil
		}
	}
}
