package verbs

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// rnrTimer is the pause that a peer makes when no receive buffer is posted: code 24
// is 41 ms, and with 6 retries the connection breaks after a quarter of a second.
// The connection manager's own choice would be 655 ms for each.
const (
	rnrTimer = 24
	rnrRetry = 6
)

// conn is a queue pair with all that belongs to it.
type conn struct {
	d      *Device
	opts   rdma.ConnOptions
	remote string

	ec       *ib.EventChannel
	id       *ib.ID
	sch, rch *ib.CompChannel
	scq, rcq *ib.CQ
	qp       *ib.QP
	mem      *rdma.Memory // receive buffers, then the words of atomics

	mu       sync.Mutex
	users    gate // whole calls of the interface: what they look at is freed after them
	calls    gate // crossings into C on the queue pair, until what they brought back is settled: it is destroyed after them
	slots    []slot
	free     []uint32 // slots
	words    words
	credits  int    // free work requests of the send queue
	inflight int    // batches
	begun    uint64 // batches so far
	idle     []*ib.Call
	waiters  []*waiter // posts that wait for room, in order
	err      error     // why it broke

	broken chan struct{} // closed with err set
	down   chan struct{} // the queue pair is in error and flushed, or destroyed
	once   sync.Once     // Close
	closed error         // its result
	gors   sync.WaitGroup

	recv receiver
}

// slot is a batch in flight. The C side has its twin.
type slot struct {
	b     *rdma.Batch
	gen   uint32
	n     int      // operations: Credits it holds
	words []uint16 // where the old values of its atomics land, in order
}

var _ rdma.Conn = (*conn)(nil)

// options fills in defaults and reports every field that is out of range.
func (d *Device) options(o rdma.ConnOptions) (rdma.ConnOptions, error) {
	o = o.WithDefaults()
	if o.MaxRDAtomic == 0 {
		o.MaxRDAtomic = d.info.MaxRDAtomic
	}
	var errs []error
	in := func(name string, v, lo, hi int) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s is %d, not %d to %d", name, v, lo, hi))
		}
	}
	in("SendDepth", o.SendDepth, 1, min(8192, d.attr.MaxQPWR, d.attr.MaxCQE))
	in("RecvDepth", o.RecvDepth, 1, min(8192, d.attr.MaxQPWR, d.attr.MaxCQE))
	in("MaxMessage", o.MaxMessage, 1, 1<<20)
	in("MaxRDAtomic", o.MaxRDAtomic, 1, d.info.MaxRDAtomic)
	in("RetryCount", o.RetryCount, 1, 6)
	if o.AckTimeout < 0 {
		errs = append(errs, fmt.Errorf("AckTimeout is %v", o.AckTimeout))
	}
	if errs != nil {
		return o, fmt.Errorf("verbs: options: %w: %w", rdma.ErrInvalid, errors.Join(errs...))
	}
	return o, nil
}

// newConn makes a queue pair on an id that is bound to the device, with all
// receive buffers posted. It takes over id and its channel, also when it fails; refuse, unless it is nil, is told why before.
func (d *Device) newConn(ec *ib.EventChannel, id *ib.ID, o rdma.ConnOptions, refuse func(error)) (*conn, error) {
	c := &conn{
		d: d, opts: o, ec: ec, id: id,
		users: newGate(), calls: newGate(),
		broken: make(chan struct{}), down: make(chan struct{}),
		credits: o.SendDepth,
	}
	if err := d.hold(); err != nil {
		return nil, errors.Join(err, id.Close(), ec.Close())
	}
	if err := c.build(); err != nil {
		if refuse != nil {
			refuse(err)
		}
		return nil, errors.Join(fmt.Errorf("verbs: connection: %w", err), c.release())
	}
	return c, nil
}

func (c *conn) build() error {
	o := c.opts
	if !c.d.ctx.Owns(c.id) {
		return fmt.Errorf("%w: the address is not one of %s", rdma.ErrInvalid, c.d.info.Name)
	}
	c.recv.size = (o.MaxMessage + 63) &^ 63
	off := o.RecvDepth * c.recv.size
	var err error
	if c.mem, err = c.d.alloc(off+o.SendDepth*rdma.WordSize, false); err != nil {
		return err
	}
	c.words = words{mem: c.mem, off: off, base: c.mem.Base() + uint64(off), key: c.mem.LKey()}
	c.slots = make([]slot, o.SendDepth)
	for i := o.SendDepth - 1; i >= 0; i-- {
		c.free = append(c.free, uint32(i))
		c.words.free = append(c.words.free, uint16(i))
	}
	if c.sch, err = c.d.ctx.NewCompChannel(); err != nil {
		return err
	}
	if c.rch, err = c.d.ctx.NewCompChannel(); err != nil {
		return err
	}
	if c.scq, err = c.d.ctx.NewCQ(o.SendDepth, c.sch); err != nil {
		return err
	}
	if c.rcq, err = c.d.ctx.NewCQ(o.RecvDepth, c.rch); err != nil {
		return err
	}
	c.qp, err = ib.NewQP(c.id, c.d.pd, c.scq, c.rcq, ib.QPOptions{
		SendDepth: o.SendDepth, RecvDepth: o.RecvDepth, Slots: o.SendDepth,
		MaxInline: rdma.MaxInline, MaxSpinners: max(1, runtime.GOMAXPROCS(0)-1),
		RecvBase: c.mem.Base(), RecvKey: c.mem.LKey(), RecvSize: c.recv.size,
	})
	if err != nil {
		return err
	}
	return c.postAll()
}

// start makes an established connection ready for use.
func (c *conn) start() *conn {
	// A kernel that does not take it leaves the slower timer: correct all the same.
	_ = c.qp.SetRNRTimer(rnrTimer)
	_, peer := c.id.Addrs()
	c.remote = peer.String()
	c.gors.Add(3)
	go c.reap()
	go c.watch()
	go c.probe()
	return c
}

// release frees everything. Nobody uses the connection any more. What the device
// might still touch is leaked: objects fail to close, and say so.
func (c *conn) release() error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	if c.qp != nil {
		add(c.qp.Close())
	}
	if c.scq != nil {
		add(c.scq.Close())
	}
	if c.rcq != nil {
		add(c.rcq.Close())
	}
	if c.sch != nil {
		add(c.sch.Close())
	}
	if c.rch != nil {
		add(c.rch.Close())
	}
	add(c.id.Close())
	add(c.ec.Close())
	if c.mem != nil {
		add(c.mem.Close())
	}
	for _, call := range c.idle {
		call.Free()
	}
	c.idle = nil
	if c.recv.call != nil {
		c.recv.call.Free()
	}
	c.d.release()
	return errors.Join(errs...)
}

func (c *conn) Broken() <-chan struct{} { return c.broken }

func (c *conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *conn) RemoteAddr() string { return c.remote }

// closedErr is the error of a post that came too late: nothing was done, so it
// must not be mistaken for ErrBroken.
func (c *conn) closedErr() error {
	err := c.Err()
	if err == nil || errors.Is(err, rdma.ErrClosed) {
		return fmt.Errorf("verbs: connection: %w", rdma.ErrClosed)
	}
	return fmt.Errorf("verbs: post: %w: %v", rdma.ErrClosed, err)
}

// receiver is the receive side; one goroutine at a time.
type receiver struct {
	size int          // of a buffer, in bytes
	call *ib.RecvCall // C memory
	inFn atomic.Bool  // the user's function runs
}
