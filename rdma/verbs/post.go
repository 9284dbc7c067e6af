package verbs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

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
	call, err := c.begin(ctx, b)
	if err != nil {
		return err
	}
	return c.post(call)
}

// post is Post, once its batch is begun.
func (c *conn) post(call *ib.Call) error {
	call.SpinNS, call.Arm = 0, 0 // it reaps nothing, so that there is nothing to settle
	c.qp.Post(call)
	err := c.posted(call)
	c.mu.Lock()
	c.calls.leave()
	c.putCall(call)
	c.mu.Unlock()
	return err
}

// Do posts b and waits for it: one crossing if the answer comes within Spin. Then it takes the connection's
// mutex twice, before and after the crossing, and that is all.
func (c *conn) Do(ctx context.Context, b *rdma.Batch) error {
	call, err := c.begin(ctx, b)
	if err != nil {
		return err
	}
	return c.do(ctx, b, call, c.opts.Spin)
}

// do is Do, once b is begun.
func (c *conn) do(ctx context.Context, b *rdma.Batch, call *ib.Call, spin time.Duration) error {
	call.SpinNS, call.Arm = int64(spin), 1
	c.qp.Post(call)
	if call.Done != 0 {
		return c.settleOwn(call, b)
	}
	if err := c.posted(call); err != nil {
		c.settle(call)
		c.leave(call)
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
	call := c.enter()
	if call == nil { // Close is about to complete it, or has
		return sleep(ctx, b)
	}
	call.Slot, call.Gen, call.SpinNS, call.Arm = uint32(b.Slot&0xffff), uint32(b.Slot>>16), int64(c.opts.Spin), 1
	if !c.cross(call, c.qp.Wait) { // likewise; what the call holds is its last user's answer
		err := sleep(ctx, b)
		c.leave(call)
		return err
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

// await goes on after a crossing for b, whose results are in call, until b is complete. It leaves the connection.
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
			err := sleep(ctx, b)
			c.qp.Awake()
			c.leave(call)
			return err
		}
		select {
		case <-b.Done():
			c.leave(call)
			return b.Taken()
		default:
		}
		// Gone: another thread reaped it and is on its way to say so. Otherwise the
		// spin ended early, for others' sake, and goes on.
		if gone || ctx.Err() != nil || !c.cross(call, c.qp.Wait) {
			err := sleep(ctx, b)
			c.leave(call)
			return err
		}
	}
}

func (c *conn) reapAgain(call *ib.Call) {
	call.Arm = 0
	c.qp.Reap(call)
}

// cross calls into C, unless the queue pair is about to go. After it comes settle, or settleOwn.
func (c *conn) cross(call *ib.Call, f func(*ib.Call)) bool {
	if !c.in(&c.calls) {
		return false
	}
	f(call)
	return true
}

// begin checks b, waits for room, and takes a slot: b is then in flight, to be posted with the call. The caller is among
// the users, and in C as far as destroy is concerned.
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
	return c.admit(ctx, b)
}

// admit is begin, for a list that can be posted.
func (c *conn) admit(ctx context.Context, b *rdma.Batch) (*ib.Call, error) {
	c.mu.Lock()
	if c.err != nil || !c.users.enter() {
		c.mu.Unlock()
		return nil, c.closedErr()
	}
	call, n := c.takeCall(), len(b.Ops)
	var i uint32
	if len(c.waiters) == 0 && c.credits >= n && len(c.free) > 0 {
		i = c.reserve(n)
	} else {
		w := &waiter{n: n, ready: make(chan struct{})}
		c.waiters = append(c.waiters, w)
		c.mu.Unlock()
		if err := c.waitRoom(ctx, w, call); err != nil {
			c.leave(call)
			return nil, err
		}
		i = w.slot
		c.mu.Lock()
	}
	if !c.calls.enter() { // destroy was here while this one waited
		c.putCall(call)
		c.mu.Unlock()
		return nil, c.closedErr()
	}
	s := &c.slots[i]
	s.b, s.n = b, n
	c.inflight++
	c.begun++
	b.Slot = int(s.gen)<<16 | int(i)
	b.Begin()
	call.Slot, call.Gen = i, s.gen
	s.words = c.words.fill(call, b.Ops, s.words)
	c.mu.Unlock()
	return call, nil
}

// reserve takes n credits and a slot. Under mu.
func (c *conn) reserve(n int) uint32 {
	c.credits -= n
	last := len(c.free) - 1
	i := c.free[last]
	c.free = c.free[:last]
	return i
}

// waitRoom sleeps until w has been served. As nobody else may be waiting for the
// completions that make room, it counts as a sleeper.
func (c *conn) waitRoom(ctx context.Context, w *waiter, call *ib.Call) error {
	call.Arm = 1
	if c.cross(call, c.qp.Reap) {
		defer c.qp.Awake()
		c.settle(call)
		for call.More != 0 && c.cross(call, c.reapAgain) {
			c.settle(call)
		}
	}
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

// posted tells what became of a list that is not complete yet. An error means that nothing was posted.
func (c *conn) posted(call *ib.Call) error {
	if call.Posted == call.N {
		return nil
	}
	errno := syscall.Errno(call.Err)
	call.Err = 0
	if call.Posted == 0 {
		c.takeBack(call.Slot)
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
	b := c.slots[i].b
	c.vacate(i)
	b.Abort()
}

// settle ends a crossing, and finishes the batches that it brought back for others.
func (c *conn) settle(call *ib.Call) {
	if call.Err != 0 {
		c.fail(fmt.Errorf("%w: the completion queue failed: %w", rdma.ErrBroken, syscall.Errno(call.Err)))
	}
	c.mu.Lock()
	cause := c.finishWoken(call)
	c.calls.leave()
	c.mu.Unlock()
	c.failBy(cause)
}

// settleOwn is settle, for a crossing that brought back the caller's own batch too, and leave, all under one lock: this
// is the end of the fast path.
func (c *conn) settleOwn(call *ib.Call, b *rdma.Batch) error {
	c.mu.Lock()
	var cause error
	if call.NWoken > 0 {
		cause = c.finishWoken(call)
	}
	err := c.end(call.Slot, b)
	c.calls.leave()
	c.putCall(call)
	c.mu.Unlock()
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
	words := c.slots[i].words
	for j := 0; len(words) > 0 && j < good; j++ {
		if op := &b.Ops[j]; isAtomic(op.Kind) {
			op.Old, words = c.words.load(words[0]), words[1:]
		}
	}
	c.vacate(i)
	return err
}

// vacate makes slot i free for its next life. Under mu.
func (c *conn) vacate(i uint32) {
	s := &c.slots[i]
	c.credits += s.n
	if len(s.words) > 0 {
		c.words.free = append(c.words.free, s.words...)
		s.words = s.words[:0]
	}
	s.b, s.n = nil, 0
	s.gen++
	c.free = append(c.free, i)
	c.inflight--
	if len(c.waiters) > 0 {
		c.serve()
	}
}

// enter lets the caller in among the users, with a Call; nil if the connection is about to go.
func (c *conn) enter() *ib.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.users.enter() {
		return nil
	}
	return c.takeCall()
}

// leave undoes enter.
func (c *conn) leave(call *ib.Call) {
	c.mu.Lock()
	c.putCall(call)
	c.mu.Unlock()
}

// takeCall takes a Call from the connection's stock. Under mu.
func (c *conn) takeCall() *ib.Call {
	if last := len(c.idle) - 1; last >= 0 {
		call := c.idle[last]
		c.idle = c.idle[:last]
		return call
	}
	return ib.NewCall()
}

// putCall gives a Call back, and its user leaves. Under mu.
func (c *conn) putCall(call *ib.Call) {
	c.idle = append(c.idle, call)
	c.users.leave()
}

// reap finishes batches whose owners sleep, whenever the completion channel speaks.
func (c *conn) reap() {
	defer c.gors.Done()
	call := ib.NewCall()
	defer call.Free()
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
