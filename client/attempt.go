package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// maxCounter is the last count of one client id.
const maxCounter = 1<<32 - 1

func makeAttempt(c layout.ClientID, n uint64) layout.Attempt { return wire.MakeAttempt(c, uint32(n)) }

// attempt is one append and all that it needs, kept for the next one: the fast path
// allocates nothing. It belongs to one goroutine at a time; while it is in the pipeline, to the stage that it has come to.
type attempt struct {
	l     *Log
	home  *attempts      // where it goes when it is over
	page  rdma.Local     // header and payload, as written to all replicas
	flags wire.PageFlags // of the page
	ext   int            // bytes of extensions behind the header
	size  int            // bytes behind the header: extensions and payload
	reps  []replica
	acks  ackChan     // one for each replica at most
	wait  *time.Timer // for Acks; stopped while not in use

	// Of the running try.
	view  *view
	pos   layout.Position
	place layout.Place
	id    layout.Attempt

	again bool // with the token that it has, which breaks rule R8

	flight // of the pipeline
}

// replica is an attempt's part at one unit.
type replica struct {
	s       *unitSession
	slot    int // of s; meaningful while holding
	use     wire.Use
	holding bool
	waiter  ackWaiter // of the Ack that is awaited; nil: none is

	compare  uint64 // of the CAS
	posted   bool   // the CAS was posted
	answered bool   // its answer is known:
	old      uint64 // what it found

	// Of an attempt that goes alone. In the pipeline the lists are the chain's.
	write *rdma.Batch // the payload alone, to U2 … Uk while U1 is asked
	pub   *rdma.Batch // the CAS, at U1 with the payload before it
	cas   int         // its place in its list
	mine  bool        // the CAS is in pub
}

// own says that the CAS goes in the attempt's own list.
func (r *replica) own() { r.mine = true }

// learn notes what the CAS in the attempt's own list found, once that is complete.
func (r *replica) learn() {
	if r.mine && r.posted && !r.answered && !r.pub.InFlight() && r.pub.Result() == nil {
		r.answered, r.old = true, r.pub.Old(r.cas)
	}
}

// published says that the CAS published the slot.
func (r *replica) published() {
	r.holding = false
	r.s.slots.publish(r.slot)
}

const maxReplicas = 16 // of a chain, as far as this client goes

// attempts is a pool of attempts: at most most of them, made as they are needed.
type attempts struct {
	l    *Log
	most int
	free chan *attempt

	mu     sync.Mutex
	made   int
	memory []*rdma.Memory
}

// attemptsAtOnce share one piece of memory.
const attemptsAtOnce = 16

func (as *attempts) setup(l *Log, most int) {
	as.l, as.most, as.free = l, most, make(chan *attempt, most)
}

// get waits for an attempt that nobody uses.
func (as *attempts) get(ctx context.Context) (*attempt, error) {
	select {
	case a := <-as.free:
		return a, nil
	default:
	}
	if err := as.grow(); err != nil {
		return nil, err
	}
	select {
	case a := <-as.free:
		return a, nil
	case <-ctx.Done():
		return nil, waiting(ctx.Err(), "one of %d appends in flight to end", as.most)
	case <-as.l.ctx.Done():
		return nil, ErrClosed
	}
}

func (as *attempts) grow() error {
	as.mu.Lock()
	defer as.mu.Unlock()
	n := min(attemptsAtOnce, as.most-as.made)
	if n <= 0 || len(as.free) > 0 {
		return nil
	}
	size := as.l.frames.pageSize
	mem, err := as.l.dev.Alloc(n * size)
	if err != nil {
		return fmt.Errorf("client: memory for %d appends: %w", n, err)
	}
	as.memory = append(as.memory, mem)
	as.made += n
	for i := range n {
		t := time.NewTimer(time.Hour)
		t.Stop()
		as.free <- &attempt{l: as.l, home: as, page: mem.Slice(i*size, size), acks: make(ackChan, maxReplicas), wait: t,
			flight: flight{result: make(chan ending, 1)}}
	}
	return nil
}

// use is how many are in flight, and the memory that all have, in bytes.
func (as *attempts) use() (inFlight, bytes int) {
	as.mu.Lock()
	defer as.mu.Unlock()
	for _, m := range as.memory {
		bytes += m.Len()
	}
	return as.made - len(as.free), bytes
}

func (as *attempts) close() {
	as.mu.Lock()
	defer as.mu.Unlock()
	for _, m := range as.memory {
		_ = m.Close()
	}
	as.memory = nil
}

// load takes the payload.
func (a *attempt) load(payload []byte) {
	a.flags, a.ext = wire.FlagData, 0
	a.size = copy(a.page.Bytes()[wire.HeaderSize:], payload)
}

// loadFragment takes a part of a larger payload.
func (a *attempt) loadFragment(f wire.Fragment, part []byte) {
	body := a.page.Bytes()[wire.HeaderSize:]
	a.flags = wire.FlagData | wire.FlagFragment | wire.FlagExtension
	a.ext = len(f.Append(body[:0]))
	a.size = a.ext + copy(body[a.ext:], part)
}

// sealed is the part of the page that matters.
func (a *attempt) sealed() rdma.Local {
	return a.page.Mem.Slice(a.page.Off, wire.HeaderSize+a.size)
}

// replicas gives room for the n replicas of a chain.
func (a *attempt) replicas(n int) []replica {
	for len(a.reps) < n {
		a.reps = append(a.reps, replica{write: rdma.NewBatch(1), pub: rdma.NewBatch(3)})
	}
	return a.reps[:n]
}

// inFlight tells whether a device may still touch the attempt's memory.
func (a *attempt) inFlight() bool {
	for i := range a.reps {
		if a.reps[i].write.InFlight() || a.reps[i].pub.InFlight() {
			return true
		}
	}
	return false
}

// quiesce waits until nothing of the attempt is in flight. The watchdog bounds it.
func (a *attempt) quiesce(ctx context.Context) error {
	for i := range a.reps {
		r := &a.reps[i]
		for _, b := range []*rdma.Batch{r.write, r.pub} {
			if !b.InFlight() {
				continue
			}
			_ = r.s.check(r.s.appends.wait(ctx, b))
			if b.InFlight() {
				return ctx.Err()
			}
		}
	}
	return nil
}

// settleSlots gives back the slots of a try that is over. Nothing is in flight.
func (a *attempt) settleSlots() {
	for i := range a.reps {
		r := &a.reps[i]
		if r.waiter != nil {
			r.s.slots.forget(r.slot, r.use, r.waiter)
			r.waiter = nil
		}
		if r.holding {
			r.holding = false
			r.learn()
			switch {
			case !r.posted || (r.answered && r.old != r.compare):
				r.s.slots.release(r.slot)
			case r.answered:
				r.s.slots.publish(r.slot)
			default: // Unknown: the session broke, and its slots with it.
			}
		}
		r.posted = false
	}
	for len(a.acks) > 0 {
		<-a.acks
	}
}

// recycle puts the attempt back into the pool, at once or when nothing of it is in flight any more. decide says
// that its position may be a hole, or published at the head alone, and is to be decided and completed for others' sake.
func (a *attempt) recycle(decide bool) {
	l := a.l
	if !a.inFlight() && !decide {
		a.settleSlots()
		a.free()
		return
	}
	p := a.pos
	l.background(func(ctx context.Context) {
		_ = a.quiesce(context.Background())
		a.settleSlots()
		a.free()
		if decide {
			ctx, cancel := context.WithTimeout(ctx, 2*l.o.OpTimeout)
			defer cancel()
			_ = l.fill(ctx, p)
		}
	})
}

// free gives the attempt to the next append.
func (a *attempt) free() {
	a.view = nil
	a.land()
	a.home.free <- a
}
