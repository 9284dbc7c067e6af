package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// conn is one end of a connection. Operations travel in order (RC), each at a time of its own; another connection's overtake them.
type conn struct {
	f    *Fabric
	host *Host
	peer *conn
	id   int
	opts rdma.ConnOptions
	rand *rand.Rand

	out   queue[*flight] // towards the peer, to take effect there
	back  queue[*posted] // answers towards this end
	open  []*posted      // without their completion
	posts int            // batches that were ever posted
	inbox [][]byte
	wake  chan struct{} // one token if the inbox may have something

	broken chan struct{}
	err    error // why it broke

	hostile hostile
}

var _ rdma.Conn = (*conn)(nil)

// posted is a batch in flight.
type posted struct {
	b     *rdma.Batch
	since time.Time
	old   []uint64
	read  [][]byte
	err   error // the refusal of the peer
}

// flight is one operation on its way.
type flight struct {
	p    *posted // nil: this end broke, nobody waits for the answer
	i    int
	last bool
	op   rdma.Op
	data []byte // of WRITE and SEND: nil until the NIC has read it
}

// queue is a list of things that happen one after the other.
type queue[T any] struct {
	items []queued[T]
	armed bool
}

type queued[T any] struct {
	at   time.Time
	what T
}

// add puts x behind what is there, not before at.
func (q *queue[T]) add(at time.Time, x T) {
	if n := len(q.items); n > 0 && !at.After(q.items[n-1].at) {
		at = q.items[n-1].at.Add(1)
	}
	q.items = append(q.items, queued[T]{at, x})
}

// connect makes both ends.
func (f *Fabric) connect(a, b *Host, ao, bo rdma.ConnOptions) (*conn, *conn) {
	end := func(h, other *Host, o rdma.ConnOptions) *conn {
		name := "conn " + h.name + " " + other.name
		c := &conn{f: f, host: h, opts: o.WithDefaults(), wake: make(chan struct{}, 1), broken: make(chan struct{})}
		c.rand = f.chanceLocked(name)
		f.lastConn++
		c.id = f.lastConn
		f.conns[c] = struct{}{}
		return c
	}
	x, y := end(a, b, ao), end(b, a, bo)
	x.peer, y.peer = y, x
	return x, y
}

// sortedConns are all ends that stand, in an order that does not change from run to run.
func (f *Fabric) sortedConns() []*conn {
	list := make([]*conn, 0, len(f.conns))
	for c := range f.conns {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].id < list[j].id })
	return list
}

// Post implements rdma.Conn.
func (c *conn) Post(_ context.Context, b *rdma.Batch) error {
	if len(b.Ops) == 0 || len(b.Ops) > rdma.MaxBatch {
		return fmt.Errorf("sim: post: %w: %d operations", rdma.ErrInvalid, len(b.Ops))
	}
	f := c.f
	f.runs(c.host.name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("sim: post: %w: %v", rdma.ErrClosed, c.err)
	}
	b.Begin()
	n := len(b.Ops)
	p := &posted{b: b, since: time.Now(), old: make([]uint64, n), read: make([][]byte, n)}
	c.open = append(c.open, p)
	c.posts++
	at := p.since.Add(f.latency(c.rand))
	for _, i := range f.order(b) {
		c.out.add(at, &flight{p: p, i: i, op: b.Ops[i]})
		at = c.out.items[len(c.out.items)-1].at.Add(time.Duration(1 + c.rand.IntN(2000)))
	}
	c.out.items[len(c.out.items)-1].what.last = true
	if len(f.traps) > 0 && slices.ContainsFunc(b.Ops, func(o rdma.Op) bool { return o.Kind == rdma.OpCompareSwap }) {
		spring := f.traps[0]
		f.traps = f.traps[1:]
		spring(c)
	}
	c.armOut()
	return nil
}

func (c *conn) armOut()  { arm(&c.out, c.fireOut) }
func (c *conn) armBack() { arm(&c.back, c.fireBack) }

func arm[T any](q *queue[T], fire func()) {
	if q.armed || len(q.items) == 0 {
		return
	}
	q.armed = true
	time.AfterFunc(max(0, time.Until(q.items[0].at)), fire)
}

// again is when a packet that did not come through is sent again.
const again = time.Millisecond

// patience is how long the NIC sends again before it gives up.
func (c *conn) patience() time.Duration {
	return c.opts.AckTimeout * time.Duration(c.opts.RetryCount+1)
}

// fireOut lets the next operation take effect at the peer.
func (c *conn) fireOut() {
	f := c.f
	f.mu.Lock()
	defer f.mu.Unlock()
	c.out.armed = false
	if len(c.out.items) == 0 {
		return
	}
	defer c.armOut()
	head := &c.out.items[0]
	now := time.Now()
	if head.at.After(now) {
		return
	}
	x, to := head.what, c.peer
	gone := to.host.dead || to.err != nil
	if gone || f.blocked[[2]string{c.host.name, to.host.name}] {
		if x.p == nil && gone {
			c.out.items = nil // the last of a dead connection: there is nobody any more
			return
		}
		head.at = now.Add(again + time.Duration(c.rand.IntN(1000)))
		if x.p != nil && now.Sub(x.p.since) > c.patience() {
			c.breakLocked(fmt.Errorf("sim: %w: retries exceeded", rdma.ErrBroken), true)
		}
		return
	}
	c.out.items = c.out.items[1:]
	err := to.execute(x)
	if err != nil {
		c.out.items = nil // what stands behind is flushed
	}
	if x.p == nil {
		return
	}
	if err != nil {
		x.p.err = err
		to.breakLocked(fmt.Errorf("sim: %w: refused the peer", rdma.ErrBroken), false)
	}
	if x.last || err != nil {
		c.back.add(now.Add(f.latency(c.rand)), x.p)
		c.armBack()
	}
}

// execute lets an operation of the peer take effect at this end.
func (c *conn) execute(x *flight) error {
	op := &x.op
	refuse := func() error {
		return &rdma.OpError{Index: x.i, Kind: op.Kind, Err: rdma.ErrRemoteAccess, Detail: "simulated"}
	}
	x.fetch()
	h := c.host
	c.before(op.Kind)
	switch op.Kind {
	case rdma.OpSend:
		if len(c.inbox) >= c.opts.RecvDepth || len(x.data) > c.opts.MaxMessage {
			return refuse()
		}
		c.inbox = append(c.inbox, x.data)
		c.signal()
		c.scribble()
	case rdma.OpWrite:
		r, off := h.at(op.Remote, len(x.data), rdma.RemoteWrite)
		if r == nil {
			return refuse()
		}
		c.land(r, off, x.data)
		c.written(r, off, len(x.data))
	case rdma.OpRead:
		r, off := h.at(op.Remote, op.Local.Len, rdma.RemoteRead)
		if r == nil {
			return refuse()
		}
		if x.p != nil {
			x.p.read[x.i] = append([]byte(nil), r.mem.Bytes()[off:off+op.Local.Len]...)
		}
	default:
		r, off := h.at(op.Remote, rdma.WordSize, rdma.RemoteAtomic)
		if r == nil || off%rdma.WordSize != 0 {
			return refuse()
		}
		w := r.mem.Word(off)
		old := atomic.LoadUint64(w)
		if op.Kind == rdma.OpFetchAdd {
			h.writeBack(c.nic(), &rmw{c, w, old + op.Swap})
		} else if old == op.Compare {
			h.writeBack(c.nic(), &rmw{c, w, op.Swap})
			c.publishes(op.Swap)
		}
		if x.p != nil {
			x.p.old[x.i] = old
		}
	}
	return nil
}

// fetch reads the bytes that an operation sends, unless that is done.
func (x *flight) fetch() {
	switch {
	case x.data != nil:
	case x.op.Inline > 0:
		x.data = append([]byte{}, x.op.Msg[:x.op.Inline]...)
	case x.op.Kind == rdma.OpWrite || x.op.Kind == rdma.OpSend:
		x.data = append([]byte{}, x.op.Local.Bytes()...)
	}
}

// fireBack gives this end the next answer.
func (c *conn) fireBack() {
	f := c.f
	f.mu.Lock()
	defer f.mu.Unlock()
	c.back.armed = false
	if len(c.back.items) == 0 {
		return
	}
	defer c.armBack()
	head := &c.back.items[0]
	now := time.Now()
	if head.at.After(now) {
		return
	}
	p := head.what
	switch {
	case f.blocked[[2]string{c.peer.host.name, c.host.name}]:
		head.at = now.Add(again + time.Duration(c.rand.IntN(1000)))
		if now.Sub(p.since) > c.patience() {
			c.breakLocked(fmt.Errorf("sim: %w: retries exceeded", rdma.ErrBroken), true)
		}
		return
	case f.paused[c.host.name] != nil:
		head.at = now.Add(again)
		return
	}
	c.back.items = c.back.items[1:]
	c.open = c.open[1:] // answers come in order
	for i := range p.b.Ops {
		op := &p.b.Ops[i]
		op.Old = p.old[i]
		if p.read[i] != nil {
			copy(op.Local.Bytes(), p.read[i])
		}
	}
	p.b.Complete(p.err)
	if p.err != nil {
		c.breakLocked(fmt.Errorf("sim: %w: %w", rdma.ErrBroken, p.err), false)
	}
}

// strayMost is how late packets of a broken connection may arrive.
const strayMost = 40 * time.Millisecond

// breakLocked breaks this end: what is in flight completes with an unknown outcome, and some of it still takes effect. tell: the
// peer hears of it soon, or once the way is open.
func (c *conn) breakLocked(err error, tell bool) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.broken)
	delete(c.f.conns, c)
	if n := len(c.out.items); n > 0 {
		c.out.items = c.out.items[:c.rand.IntN(n+1)]
	}
	var held time.Duration // by a switch, while the rest of the network went on
	if c.rand.IntN(2) == 0 {
		held = time.Duration(c.rand.Int64N(int64(strayMost)))
	}
	for i := range c.out.items {
		q := &c.out.items[i]
		q.at = q.at.Add(held)
		q.what.fetch()
		q.what.p = nil
	}
	c.back.items = nil
	for _, p := range c.open {
		e := p.err
		if e == nil {
			e = &rdma.OpError{Kind: p.b.Ops[0].Kind, Err: rdma.ErrBroken, Detail: err.Error()}
		}
		p.b.Complete(e)
	}
	c.open = nil
	c.signal()
	if !tell {
		return
	}
	after := c.f.latency(c.rand)
	if c.rand.IntN(2) == 0 { // the disconnect got lost as well
		after += time.Duration(c.rand.Int64N(int64(strayMost)))
	}
	c.tellPeer(after)
}

func (c *conn) tellPeer(after time.Duration) {
	time.AfterFunc(after, func() {
		f := c.f
		f.mu.Lock()
		defer f.mu.Unlock()
		p := c.peer
		switch {
		case p.err != nil || p.host.dead:
		case f.blocked[[2]string{c.host.name, p.host.name}] || f.paused[p.host.name] != nil,
			time.Now().Before(f.muted[[2]string{c.host.name, p.host.name}]):
			c.tellPeer(again)
		default:
			p.breakLocked(fmt.Errorf("sim: %w: closed by the peer", rdma.ErrBroken), false)
		}
	})
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Wait implements rdma.Conn.
func (c *conn) Wait(ctx context.Context, b *rdma.Batch) error {
	if !b.InFlight() {
		return fmt.Errorf("sim: wait: %w: batch not in flight", rdma.ErrInvalid)
	}
	select {
	case <-b.Done():
		return b.Taken()
	default:
	}
	select {
	case <-b.Done():
		return b.Taken()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do implements rdma.Conn.
func (c *conn) Do(ctx context.Context, b *rdma.Batch) error {
	if err := c.Post(ctx, b); err != nil {
		return err
	}
	return c.Wait(ctx, b)
}

// Receive implements rdma.Conn.
func (c *conn) Receive(fn func(msg []byte)) error {
	for {
		c.f.runs(c.host.name)
		c.f.mu.Lock()
		list, err := c.inbox, c.err
		c.inbox = nil
		c.f.mu.Unlock()
		for _, m := range list {
			fn(m)
		}
		switch {
		case len(list) > 0:
			return nil
		case errors.Is(err, rdma.ErrClosed):
			return err
		case err != nil:
			return fmt.Errorf("sim: receive: %w", err)
		}
		<-c.wake
	}
}

// Broken implements rdma.Conn.
func (c *conn) Broken() <-chan struct{} { return c.broken }

// Err implements rdma.Conn.
func (c *conn) Err() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	return c.err
}

// RemoteAddr implements rdma.Conn.
func (c *conn) RemoteAddr() string { return c.peer.host.name }

// Close implements rdma.Conn.
func (c *conn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.breakLocked(fmt.Errorf("sim: connection: %w", rdma.ErrClosed), true)
	return nil
}

// Trap calls spring, under the lock, with the connection on which the next CAS is posted: faults by chance seldom meet one.
func (f *Fabric) Trap(spring func(*conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traps = append(f.traps, spring)
}

// breakSoon breaks the end after a time. If mute is positive, the peer's host hears nothing of it, and of the other connections that
// this one ends for it, for that long. The fabric's lock is held.
func (c *conn) breakSoon(after, mute time.Duration) {
	if mute > 0 {
		c.f.muted[[2]string{c.host.name, c.peer.host.name}] = time.Now().Add(mute)
	}
	time.AfterFunc(after, func() {
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		c.breakLocked(fmt.Errorf("sim: %w: the link failed", rdma.ErrBroken), true)
	})
}

// BreakOne breaks a connection by chance, as seen from one of its ends. It reports whether there was one.
func (f *Fabric) BreakOne(r *rand.Rand) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.sortedConns()
	if r.IntN(4) > 0 { // where it hurts
		list = slices.DeleteFunc(list, func(c *conn) bool { return len(c.open) == 0 })
	}
	if len(list) == 0 {
		return false
	}
	list[r.IntN(len(list))].breakLocked(fmt.Errorf("sim: %w: the link failed", rdma.ErrBroken), true)
	return true
}
