package verbs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// waiter is a post that waits for room in the send queue.
type waiter struct {
	n     int
	slot  uint32
	ready chan struct{} // closed once the credits and the slot are its own
}

// Post posts b and returns.
func (c *conn) Post(ctx context.Context, b *rdma.Batch) error {
	if !c.users.enter() {
		return c.closedErr()
	}
	defer c.users.leave()
	call, err := c.begin(ctx, b)
	if err != nil {
		return err
	}
	call.SpinNS, call.Arm = 0, 0
	err = c.post(call, b)
	c.putCall(call)
	return err
}

// Do posts b and waits for it: one crossing if the answer comes within Spin.
func (c *conn) Do(ctx context.Context, b *rdma.Batch) error {
	if !c.users.enter() {
		return c.closedErr()
	}
	defer c.users.leave()
	call, err := c.begin(ctx, b)
	if err != nil {
		return err
	}
	call.SpinNS, call.Arm = int64(c.opts.Spin), 1
	if err := c.post(call, b); err != nil {
		c.putCall(call)
		return err
	}
	return c.await(ctx, b, call)
}

// Wait waits for a posted batch.
func (c *conn) Wait(ctx context.Context, b *rdma.Batch) error {
	if !b.InFlight() {
		return fmt.Errorf("verbs: wait: %w: the batch is not in flight", rdma.ErrInvalid)
	}
	select {
	case <-b.Done():
		return b.Taken()
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.users.enter() { // Close is about to complete it, or has
		return sleep(ctx, b)
	}
	defer c.users.leave()
	call := c.getCall()
	call.Slot, call.Gen, call.SpinNS, call.Arm = uint32(b.Slot&0xffff), uint32(b.Slot>>16), int64(c.opts.Spin), 1
	if !c.cross(call, c.qp.Wait) {
		c.putCall(call)
		return sleep(ctx, b)
	}
	return c.await(ctx, b, call)
}

func sleep(ctx context.Context, b *rdma.Batch) error {
	select {
	case <-b.Done():
		return b.Taken()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await goes on after a crossing for b, whose results are in call, until b is complete.
func (c *conn) await(ctx context.Context, b *rdma.Batch, call *ib.Call) error {
	for {
		armed, gone := call.Armed != 0, call.Gone != 0
		if call.Done != 0 {
			return c.settleOwn(call, b)
		}
		c.settle(call)
		if armed {
			for call.More != 0 && c.cross(call, c.reapAgain) {
				c.settle(call)
			}
			c.putCall(call)
			err := sleep(ctx, b)
			c.qp.Awake()
			return err
		}
		select {
		case <-b.Done():
			c.putCall(call)
			return b.Taken()
		default:
		}
		// Gone: another thread reaped it and is on its way to say so. Otherwise the
		// spin ended early, for others' sake, and goes on.
		if gone || ctx.Err() != nil || !c.cross(call, c.qp.Wait) {
			c.putCall(call)
			return sleep(ctx, b)
		}
	}
}

func (c *conn) reapAgain(call *ib.Call) {
	call.Arm = 0
	c.qp.Reap(call)
}

// cross calls into C, unless the queue pair is about to go.
func (c *conn) cross(call *ib.Call, f func(*ib.Call)) bool {
	if !c.calls.enter() {
		return false
	}
	f(call)
	c.calls.leave()
	return true
}

// begin checks b, waits for room, and takes a slot: b is then in flight, to be posted with the call.
func (c *conn) begin(ctx context.Context, b *rdma.Batch) (*ib.Call, error) {
	if b.InFlight() {
		return nil, fmt.Errorf("verbs: post: %w: the batch is in flight", rdma.ErrInvalid)
	}
	if err := check(b.Ops, c.opts.SendDepth); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := len(b.Ops)
	c.mu.Lock()
	if c.err == nil && len(c.waiters) == 0 && c.credits >= n && len(c.free) > 0 {
		i := c.reserve(n)
		call := c.take(b, i)
		c.mu.Unlock()
		fill(call, b.Ops, &c.words, c.slots[i].olds)
		return call, nil
	}
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.closedErr()
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	c.waiters = append(c.waiters, w)
	c.mu.Unlock()
	if err := c.waitRoom(ctx, w); err != nil {
		return nil, err
	}
	c.mu.Lock()
	call := c.take(b, w.slot)
	c.mu.Unlock()
	fill(call, b.Ops, &c.words, c.slots[w.slot].olds)
	return call, nil
}

// reserve takes n credits and a slot. Under mu.
func (c *conn) reserve(n int) uint32 {
	c.credits -= n
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	return i
}

// take gives the reserved slot i to b. Under mu.
func (c *conn) take(b *rdma.Batch, i uint32) *ib.Call {
	s := &c.slots[i]
	s.b, s.n = b, len(b.Ops)
	for range atomics(b.Ops) { // never more than credits, of which there are as many as words
		last := len(c.words.free) - 1
		s.olds = append(s.olds, c.words.free[last])
		c.words.free = c.words.free[:last]
	}
	c.inflight++
	b.Slot = int(s.gen)<<16 | int(i)
	b.Begin()
	call := c.popCall()
	call.Slot, call.Gen = i, s.gen
	return call
}

// waitRoom sleeps until w has been served. As nobody else may be waiting for the
// completions that make room, it counts as a sleeper.
func (c *conn) waitRoom(ctx context.Context, w *waiter) error {
	call := c.getCall()
	call.Arm = 1
	if c.cross(call, c.qp.Reap) {
		defer c.qp.Awake()
		c.settle(call)
		for call.More != 0 && c.cross(call, c.reapAgain) {
			c.settle(call)
		}
	}
	c.putCall(call)
	var err error
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.broken:
		err = c.closedErr()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.waiters, w); i >= 0 {
		c.waiters = slices.Delete(c.waiters, i, i+1)
	} else {
		c.credits += w.n
		c.free = append(c.free, w.slot)
	}
	c.serve()
	return err
}

// serve gives room to those who wait for it, first come, first served. Under mu.
func (c *conn) serve() {
	for len(c.waiters) > 0 && c.credits >= c.waiters[0].n && len(c.free) > 0 {
		w := c.waiters[0]
		c.waiters = slices.Delete(c.waiters, 0, 1)
		w.slot = c.reserve(w.n)
		close(w.ready)
	}
}

// post posts a batch that begin prepared. An error means that nothing was posted.
func (c *conn) post(call *ib.Call, b *rdma.Batch) error {
	slot := call.Slot
	if !c.cross(call, c.qp.Post) {
		c.takeBack(slot)
		return c.closedErr()
	}
	if call.Posted == call.N {
		return nil
	}
	errno := syscall.Errno(call.Err)
	if call.Posted == 0 {
		c.takeBack(slot)
		if c.Err() != nil {
			return c.closedErr()
		}
		return &ib.Error{Verb: "ibv_post_send", Errno: errno}
	}
	// A part of the list is under way with no completion to end it: only the end
	// of the queue pair tells when the device is through with it.
	c.fail(fmt.Errorf("%w: ibv_post_send took %d of %d operations: %w", rdma.ErrBroken, call.Posted, call.N, errno))
	return nil
}

// takeBack undoes begin: the batch never was in flight.
func (c *conn) takeBack(i uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.slots[i].b; b != nil {
		c.vacate(i)
		b.Abort()
	}
}

// settle finishes the batches that a crossing brought back for others.
func (c *conn) settle(call *ib.Call) {
	if call.Err != 0 {
		c.fail(fmt.Errorf("%w: the completion queue failed: %w", rdma.ErrBroken, syscall.Errno(call.Err)))
	}
	if call.NWoken == 0 {
		return
	}
	c.mu.Lock()
	cause := c.finishWoken(call)
	c.mu.Unlock()
	c.failBy(cause)
}

// settleOwn is settle, for a call that brought back the caller's own batch too. It puts
// the call back, all under one lock: this is the end of the fast path.
func (c *conn) settleOwn(call *ib.Call, b *rdma.Batch) error {
	c.mu.Lock()
	cause := c.finishWoken(call)
	mine := c.slots[call.Slot].b == b
	var err error
	if mine {
		err = c.end(call.Slot, b)
	}
	c.idle = append(c.idle, call)
	c.mu.Unlock()
	if !mine { // destroy was here in between
		<-b.Done()
		return b.Taken()
	}
	if err != nil {
		c.failBy(err)
	}
	c.failBy(cause)
	return b.Finish(err)
}

// finishWoken completes others' batches; the error is that of one of them. Under mu.
func (c *conn) finishWoken(call *ib.Call) (cause error) {
	for _, i := range call.Woken[:call.NWoken] {
		b := c.slots[i].b
		if b == nil { // destroy was here in between
			continue
		}
		err := c.end(i, b)
		if err != nil {
			cause = err
		}
		b.Complete(err)
	}
	return cause
}

// failBy breaks the connection because an operation failed.
func (c *conn) failBy(cause error) {
	if cause != nil {
		// Unwrapped: of the connection as such no operation was refused; it broke.
		c.fail(fmt.Errorf("%w: %v", rdma.ErrBroken, cause))
	}
}

// end takes b, which is complete as the C side says, out of slot i. Under mu.
func (c *conn) end(i uint32, b *rdma.Batch) error {
	st := c.qp.Slot(i)
	good := len(b.Ops)
	var err error
	if st.Status != ib.StatusSuccess {
		good = min(good, int(st.ErrOp))
		err = opError(b.Ops, int(st.ErrOp), st.Status, st.VendorErr)
	}
	olds := c.slots[i].olds
	for j := 0; len(olds) > 0 && j < good; j++ {
		if op := &b.Ops[j]; isAtomic(op.Kind) {
			op.Old, olds = c.words.load(olds[0]), olds[1:]
		}
	}
	c.vacate(i)
	return err
}

// vacate makes slot i free for its next life. Under mu.
func (c *conn) vacate(i uint32) {
	s := &c.slots[i]
	c.credits += s.n
	c.words.free = append(c.words.free, s.olds...)
	s.b, s.n, s.olds = nil, 0, s.olds[:0]
	s.gen++
	c.free = append(c.free, i)
	c.inflight--
	c.serve()
}

// getCall takes a Call from the connection's stock.
func (c *conn) getCall() *ib.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.popCall()
}

func (c *conn) popCall() *ib.Call {
	if n := len(c.idle); n > 0 {
		call := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return call
	}
	return ib.NewCall()
}

func (c *conn) putCall(call *ib.Call) {
	c.mu.Lock()
	c.idle = append(c.idle, call)
	c.mu.Unlock()
}

// reap finishes batches whose owners sleep, whenever the completion channel speaks.
func (c *conn) reap() {
	defer c.gors.Done()
	call := c.getCall()
	defer c.putCall(call)
	for {
		if err := c.sch.Wait(); err != nil {
			if !errors.Is(err, ib.ErrInterrupted) {
				c.fail(fmt.Errorf("%w: completion channel: %w", rdma.ErrBroken, err))
			}
			return
		}
		for more := true; more; more = call.More != 0 {
			if !c.cross(call, c.reapAgain) {
				return
			}
			c.settle(call)
		}
	}
}
