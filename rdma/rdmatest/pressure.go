package rdmatest

import (
	"context"
	"errors"
	"time"

	"corfu/rdma"
)

// testQueueFull lets many goroutines wait for room in a short queue: all get through.
func testQueueFull(e *env) {
	near, _ := e.connect(e.listen(), rdma.ConnOptions{SendDepth: 2})
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, all)
	const workers = 16
	n := trials(300, 30)
	e.parallel(workers, func(i int) error {
		b := rdma.NewBatch(2)
		for range n {
			b.Reset()
			for range 1 + i%2 { // half of them need the whole queue, and must not starve
				b.FetchAdd(r.Remote(0), 1)
			}
			if err := near.Do(e.ctx, b); err != nil {
				return err
			}
		}
		return nil
	})
	if got, want := m.Load(0), uint64(workers*n*3/2); got != want {
		e.Errorf("sum is %d, want %d", got, want)
	}
}

// slowRead is a READ that takes long on any fabric.
const slowRead = 16 << 20

// slow is a connection with room for one operation, and a batch that fills it for a while.
func (e *env) slow() (c rdma.Conn, b *rdma.Batch, word rdma.Remote, sink, source *rdma.Memory) {
	e.Helper()
	c, _ = e.connect(e.listen(), rdma.ConnOptions{SendDepth: 1})
	source, sink = e.alloc(slowRead), e.alloc(slowRead)
	fill(source.Bytes()[slowRead-4096:], 4)
	r := e.register(source, 0, slowRead, all)
	b = rdma.NewBatch(1)
	b.Read(sink.Slice(0, slowRead), r.Remote(0))
	return c, b, r.Remote(0), sink, source
}

// testPostContext ends the context of a Post that waits for room: nothing of it was posted.
func testPostContext(e *env) {
	c, big, word, _, source := e.slow()
	seen := 0
	for i := 0; i < 200 && seen < 3; i++ {
		e.check(c.Post(e.ctx, big))
		ctx, cancel := context.WithTimeout(e.ctx, time.Millisecond)
		b := rdma.NewBatch(1)
		b.FetchAdd(word, 1)
		err := c.Post(ctx, b)
		full := len(big.Done()) == 0 // still, so all the time
		cancel()
		switch {
		case err == nil && full:
			e.Fatal("posted into a full queue")
		case err == nil:
			e.check(c.Wait(e.ctx, b))
			source.Store(0, 0)
		case !errors.Is(err, context.DeadlineExceeded) || b.InFlight():
			e.Fatalf("post: %v, in flight %v, want the context's error", err, b.InFlight())
		default:
			seen++
		}
		e.check(c.Wait(e.ctx, big))
		if got := source.Load(0); got != 0 {
			e.Fatalf("word is %d: a post that failed took effect", got)
		}
	}
	if seen == 0 {
		e.Error("no Post ever had to wait")
	}
	over, cancel := context.WithCancel(e.ctx)
	cancel()
	b := rdma.NewBatch(1)
	b.FetchAdd(word, 1)
	if err := c.Do(over, b); err != nil && !errors.Is(err, context.Canceled) {
		e.Errorf("Do with a context that ended: %v", err)
	}
	if b.InFlight() {
		_ = c.Wait(e.ctx, b)
	}
}

// testWaitContext ends the context of a Wait: the batch stays in flight and a later Wait takes it.
func testWaitContext(e *env) {
	c, big, _, sink, source := e.slow()
	seen := 0
	for i := 0; i < 200 && seen < 3; i++ {
		clear(sink.Bytes())
		// Not Do: on a slow machine the context may end before anything was posted.
		e.check(c.Post(e.ctx, big))
		ctx, cancel := context.WithTimeout(e.ctx, time.Millisecond)
		err := c.Wait(ctx, big)
		cancel()
		if err == nil {
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) || !big.InFlight() {
			e.Fatalf("Wait: %v, in flight %v, want the context's error and in flight", err, big.InFlight())
		}
		seen++
		e.check(c.Wait(e.ctx, big))
		e.same("end of the READ", sink.Bytes()[slowRead-4096:], source.Bytes()[slowRead-4096:])
	}
	if seen == 0 {
		e.Error("no Wait ever had to wait")
	}
}
