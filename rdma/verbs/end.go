package verbs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// flushLimit is how long the flush of a broken queue pair may take before it is destroyed instead.
const flushLimit = 2 * time.Second

// fail breaks the connection, for the first cause given.
func (c *conn) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("verbs: %w", cause)
	close(c.broken)
	go c.takeDown()
}

// watch waits for the peer's goodbye. Answering it is part of the protocol:
// otherwise the peer waits for us.
func (c *conn) watch() {
	defer c.gors.Done()
	for {
		ev, err := c.ec.Next(context.Background())
		switch {
		case errors.Is(err, ib.ErrInterrupted):
			return
		case err != nil:
			c.fail(fmt.Errorf("%w: %w", rdma.ErrBroken, err))
			return
		case ev.Type == ib.Disconnected:
			c.fail(fmt.Errorf("%w: closed by the peer", rdma.ErrBroken))
		case ev.Type == ib.DeviceRemoval:
			c.fail(fmt.Errorf("%w: the device was removed", rdma.ErrBroken))
		}
	}
}

// probeEvery is how long a connection may post nothing before the peer is asked for a sign of life, at least; at most twice that.
const probeEvery = 5 * time.Second

// probe finds out that the peer is gone where nothing is posted that could: a queue pair that only answers sends nothing by itself, and a
// machine that lost its power says no goodbye. What it posts is a WRITE of no bytes, which a responder acknowledges without
// looking at its key (IBTA vol. 1, C9-88).
func (c *conn) probe() {
	defer c.gors.Done()
	b := rdma.NewBatch(1)
	b.Write(rdma.Local{Mem: c.mem}, rdma.Remote{})
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for seen := uint64(0); ; {
		select {
		case <-c.broken:
			return
		case <-t.C:
		}
		c.mu.Lock()
		begun, idle := c.begun, c.inflight == 0
		c.mu.Unlock()
		if begun != seen || !idle {
			seen = begun
			continue
		}
		call, err := c.admit(context.Background(), b)
		if err != nil {
			return // broken, or closed
		}
		seen = begun + 1
		_ = c.do(context.Background(), b, call, 0) // an error breaks the connection
	}
}

// takeDown ends what is in flight. It runs once, in a goroutine of its own: the
// calls below go to the kernel and may take long.
func (c *conn) takeDown() {
	defer close(c.down)
	// The first moves the queue pair to the error state and speaks with the peer; it
	// fails if the peer was first. The second makes sure.
	_ = c.id.Disconnect()
	_ = c.qp.Error()
	// From here on nothing more arrives: a Receive takes what is there, and ends.
	c.rch.Interrupt()
	call := ib.NewCall()
	defer call.Free()
	end := time.Now().Add(flushLimit)
	for pause := 50 * time.Microsecond; c.flying() > 0 && time.Now().Before(end); pause = min(2*pause, 10*time.Millisecond) {
		if !c.cross(call, c.reapAgain) {
			break
		}
		c.settle(call)
		if c.flying() > 0 && call.More == 0 {
			time.Sleep(pause)
		}
	}
	if c.flying() > 0 {
		c.destroy()
	}
}

func (c *conn) flying() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inflight
}

// destroy destroys the queue pair; the device then touches nothing for it, and
// what is still in flight ends with an unknown outcome.
func (c *conn) destroy() {
	<-c.shut(&c.calls)
	c.qp.Destroy()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.slots {
		if b := c.slots[i].b; b != nil {
			c.vacate(uint32(i))
			b.Complete(opError(b.Ops, 0, ib.StatusNotCompleted, 0))
		}
	}
}

// Close ends the connection.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.fail(fmt.Errorf("connection: %w", rdma.ErrClosed))
		c.closed = within(2*watchdog, "the end of a connection", c.shutDown)
	})
	return c.closed
}

func (c *conn) shutDown() error {
	<-c.down
	c.destroy()
	c.sch.Interrupt()
	c.rch.Interrupt()
	c.ec.Interrupt()
	c.gors.Wait()
	idle := c.shut(&c.users)
	// All who are inside are on their way out, but for a Receive whose function
	// runs: it may be the very one that called Close. It frees everything when it leaves.
	patience := watchdog
	if c.recv.inFn.Load() {
		patience = 5 * time.Millisecond
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-idle:
		return c.release()
	case <-t.C:
		go func() {
			<-idle
			_ = c.release()
		}()
		return nil
	}
}
