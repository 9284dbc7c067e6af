package verbs

import (
	"errors"
	"fmt"
	"syscall"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// postAll posts every receive buffer, before the queue pair is connected.
func (c *conn) postAll() error {
	c.recv.call = ib.NewRecvCall()
	for i := 0; i < c.opts.RecvDepth; {
		r := c.recv.call
		r.N = 0
		for ; i < c.opts.RecvDepth && r.N < ib.MaxRecv; i++ {
			r.Post[r.N] = uint32(i)
			r.N++
		}
		c.qp.RecvPost(r)
		if r.Err != 0 {
			return &ib.Error{Verb: "ibv_post_recv", Errno: syscall.Errno(r.Err)}
		}
	}
	return nil
}

// Receive delivers what has arrived, or waits for it.
func (c *conn) Receive(fn func(msg []byte)) error {
	if !c.in(&c.users) {
		return c.closedErr()
	}
	defer c.out(&c.users)
	r := c.recv.call
	for {
		if !c.in(&c.calls) {
			return c.Err()
		}
		r.Arm = 1
		c.qp.RecvPoll(r)
		c.out(&c.calls)
		if r.Err != 0 {
			c.fail(fmt.Errorf("%w: the receive queue failed: %w", rdma.ErrBroken, syscall.Errno(r.Err)))
		}
		if r.N > 0 {
			if c.deliver(r, fn) > 0 {
				return nil
			}
			continue
		}
		select {
		case <-c.broken:
			// takeDown has to be through with the queue pair's last messages first.
			if err := c.rch.Wait(); errors.Is(err, ib.ErrInterrupted) {
				return c.lastWords(r, fn)
			}
			continue
		default:
		}
		if err := c.rch.Wait(); err != nil && !errors.Is(err, ib.ErrInterrupted) {
			c.fail(fmt.Errorf("%w: completion channel: %w", rdma.ErrBroken, err))
		}
	}
}

// lastWords delivers what arrived before the queue pair went to the error state.
func (c *conn) lastWords(r *ib.RecvCall, fn func([]byte)) error {
	for c.in(&c.calls) {
		r.Arm = 0
		c.qp.RecvPoll(r)
		c.out(&c.calls)
		if r.N == 0 {
			break
		}
		if c.deliver(r, fn) > 0 {
			return nil
		}
	}
	return c.Err()
}

// deliver hands the messages of r to fn and posts their buffers again, all at once.
func (c *conn) deliver(r *ib.RecvCall, fn func([]byte)) (delivered int) {
	buf := c.mem.Bytes()
	var bad ib.Status
	c.recv.inFn.Store(true)
	for _, m := range r.Msg[:r.N] {
		if m.Status != ib.StatusSuccess {
			bad = m.Status
			continue
		}
		at := int(m.Index) * c.recv.size
		fn(buf[at : at+int(m.Len) : at+int(m.Len)])
		r.Post[delivered] = m.Index
		delivered++
	}
	c.recv.inFn.Store(false)
	if bad != ib.StatusSuccess {
		c.fail(fmt.Errorf("%w: receive: %v", rdma.ErrBroken, bad))
		return delivered
	}
	if !c.in(&c.calls) {
		return delivered
	}
	defer c.out(&c.calls)
	r.N = uint32(delivered)
	if c.qp.RecvPost(r); r.Err != 0 {
		c.fail(fmt.Errorf("%w: ibv_post_recv: %w", rdma.ErrBroken, syscall.Errno(r.Err)))
	}
	return delivered
}
