package client

import (
	"context"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// publisher publishes entries at one chain, as many as are ready with one list. One list at a time is under way at each replica; what comes
// meanwhile goes with the next one.
type publisher struct {
	l     *Log
	v     *view
	units []layout.UnitID
	head  stage[*attempt]
	later []later // U2 … Uk

	// Of the goroutine that works for head.
	group    []*attempt
	sessions []*unitSession
	lists    []*rdma.Batch // WRITE and CAS at the head; the WRITEs at each later replica
}

// later is the step at one of the later replicas.
type later struct {
	c      *publisher
	number int // index in the chain
	ready  stage[*attempt]
	list   *rdma.Batch
	group  []*attempt
}

// maxListBytes bounds the pages of one list: what comes behind it on the connection waits for them.
const maxListBytes = 256 << 10

func newPublisher(l *Log, v *view, units []layout.UnitID) *publisher {
	c := &publisher{l: l, v: v, units: units, later: make([]later, len(units)-1)}
	c.head.setup(l.starter, c.publish)
	for i := range c.later {
		n := &c.later[i]
		n.c, n.number = c, i+1
		n.ready.setup(l.starter, n.publish)
	}
	return c
}

// publish puts entries into the head, in the order of their positions.
func (c *publisher) publish(ctx context.Context, ready []*attempt) {
	if err := c.open(ctx); err != nil {
		for _, a := range ready {
			a.leave(ending{outNothing, err})
		}
		return
	}
	for len(ready) > 0 {
		ready = ready[c.gather(ctx, ready):]
		if len(c.group) > 0 {
			c.publishHead(c.group)
			clear(c.group)
		}
	}
}

// open gets the sessions of the chain.
func (c *publisher) open(ctx context.Context) error {
	if c.lists == nil {
		c.sessions = make([]*unitSession, len(c.units))
		for range c.units {
			c.lists = append(c.lists, rdma.NewBatch(rdma.MaxBatch))
		}
	}
	for i, id := range c.units {
		s, err := c.v.unit(ctx, id)
		if err != nil {
			return waiting(err, "a session with unit %d", id)
		}
		c.sessions[i] = s
	}
	return nil
}

// gather makes lists of as many entries as fit and as there are staging slots for, at least one, and tells how many of ready that are. It waits for
// slots with an empty list only: nothing that is ready waits for what is not.
func (c *publisher) gather(ctx context.Context, ready []*attempt) int {
	for _, list := range c.lists {
		list.Reset()
	}
	c.group = c.group[:0]
	bytes := 0
	for i, a := range ready {
		// The head's list takes a WRITE, a CAS and at most a doorbell for each.
		if len(c.group) > 0 && (len(c.lists[0].Ops)+len(c.group)+3 > rdma.MaxBatch || bytes+a.sealed().Len > maxListBytes) {
			return i
		}
		reps := a.replicas(len(c.units))
		for j := range reps {
			reps[j].s, reps[j].mine = c.sessions[j], false
		}
		a.expectAcks(c.v, len(reps))
		ok, err := a.takeSlots(ctx, c.v, reps, a, len(c.group) == 0)
		if err != nil {
			a.settleSlots()
			a.leave(ending{outNothing, err})
			continue
		}
		if !ok {
			return i
		}
		a.seal(c.v)
		for j := range reps {
			c.lists[j].Write(a.sealed(), reps[j].s.own(reps[j].slot))
		}
		a.swap(c.v, &reps[0], c.lists[0])
		bytes += a.sealed().Len
		c.group = append(c.group, a)
	}
	return len(ready)
}

// publishHead runs the lists of the head, which decide the positions, and has the payloads travel to the other replicas meanwhile: each on the queue pair of
// its CAS, before it (rule R6). Those that stand at the head go on (rule R2), the others leave.
func (c *publisher) publishHead(group []*attempt) {
	ctx := context.Background() // bounded by the sessions' ends
	posted := 1
	var lost error // of a later replica
	for ; posted < len(c.lists) && lost == nil; posted++ {
		s := c.sessions[posted]
		lost = s.check(s.appends.post(ctx, c.lists[posted]))
	}
	if lost != nil {
		posted--
	}
	var err error
	nothing := lost != nil // nothing was published
	head := c.sessions[0]
	if !nothing {
		head.bells(c.lists[0], c.v.layout.Durability, group)
		for _, a := range group {
			a.reps[0].posted = true
		}
		err = head.check(head.appends.do(ctx, c.lists[0]))
		nothing = err != nil && c.lists[0].Result() == nil // Post failed
	}
	for i := 1; i < posted; i++ { // complete, as a rule: they were posted before
		s := c.sessions[i]
		if werr := s.check(s.appends.wait(ctx, c.lists[i])); lost == nil {
			lost = werr
		}
	}
	next := group[:0]
	for _, a := range group {
		r := &a.reps[0]
		switch {
		case nothing:
			r.posted = false
			a.settleSlots()
			if err == nil {
				err = lost
			}
			a.leave(ending{outNothing, err})
		case err != nil:
			a.leave(ending{outUnknown, err})
		default:
			r.answered, r.old = true, c.lists[0].Old(r.cas)
			if e := a.atHead(c.v, r); e.out != outDone {
				a.leave(e)
			} else if lost != nil {
				a.leave(ending{outUnknown, lost})
			} else {
				next = append(next, a)
			}
		}
	}
	c.pass(0, next)
}

// atHead tells what the CAS at the head came to.
func (a *attempt) atHead(v *view, r *replica) ending {
	switch a.found(v, r) {
	case foundEmpty:
		r.published()
		return ending{}
	case foundEntry, foundPast:
		return ending{out: outLost}
	case foundAhead:
		return ending{outNothing, errWindow}
	}
	return ending{outNothing, &sessionError{r.s.who, errStale}}
}

// pass hands on entries that stand at replica i.
func (c *publisher) pass(i int, group []*attempt) {
	if i < len(c.later) {
		c.later[i].ready.add(group...)
		return
	}
	for _, a := range group {
		a.published()
	}
}

// publish puts entries that stand at the replica before into this one.
func (n *later) publish(_ context.Context, ready []*attempt) {
	if n.list == nil {
		n.list = rdma.NewBatch(rdma.MaxBatch)
	}
	for len(ready) > 0 {
		s := ready[0].reps[n.number].s
		n.list.Reset()
		n.group = n.group[:0]
		for _, a := range ready {
			r := &a.reps[n.number]
			if r.s != s || len(n.list.Ops)+len(n.group)+2 > rdma.MaxBatch {
				break
			}
			a.swap(n.c.v, r, n.list)
			r.posted = true
			n.group = append(n.group, a)
		}
		ready = ready[len(n.group):]
		s.bells(n.list, n.c.v.layout.Durability, n.group)
		n.finish(s.check(s.appends.do(context.Background(), n.list)))
		clear(n.group)
	}
}

// finish takes the answers to the list.
func (n *later) finish(err error) {
	nothing := err != nil && n.list.Result() == nil
	next := n.group[:0]
	for _, a := range n.group {
		r := &a.reps[n.number]
		if err != nil {
			r.posted = !nothing
			a.leave(ending{outUnknown, err})
			continue
		}
		r.answered, r.old = true, n.list.Old(r.cas)
		if a.found(n.c.v, r) != foundEmpty {
			a.leave(ending{outUnknown, errOther})
			continue
		}
		r.published()
		next = append(next, a)
	}
	n.c.pass(n.number, next)
}

// bells appends doorbells for entries that list publishes: one for each run of addresses, if the unit knows runs.
func (s *unitSession) bells(list *rdma.Batch, d layout.Durability, group []*attempt) {
	if !s.bellDue(d, len(group)) {
		return
	}
	var msg [16]byte
	for len(group) > 0 {
		n, first := 1, group[0].place.Address
		for n < min(len(group), s.bellRun) && group[n].place.Address == first+layout.Address(n) {
			n++
		}
		list.SendInline(wire.Doorbell{Address: first, Count: n}.Append(msg[:0]))
		group = group[n:]
	}
}
