package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// pipe is a connection that counts what goes in and comes out, so that a watchdog can see
// that nothing moves without a timer for each operation.
type pipe struct {
	conn         rdma.Conn
	posted, done atomic.Uint64

	// Of the watchdog alone.
	seen  uint64
	since time.Time

	moving motion
}

// motion is what a look at the pipe found, for those who ask whether the fabric carries. Any goroutine may look.
type motion struct {
	mu    sync.Mutex
	done  uint64
	since time.Time // when done was first seen, with operations in flight
	moved time.Time // when done had grown
}

// look returns for how long operations have been in flight of which none ended, and when one was last seen to end.
func (p *pipe) look(now time.Time) (stood time.Duration, moved time.Time) {
	m := &p.moving
	m.mu.Lock()
	defer m.mu.Unlock()
	done := p.done.Load()
	switch idle := p.posted.Load() == done; {
	case done != m.done:
		m.done, m.moved, m.since = done, now, now
	case idle || m.since.IsZero():
		m.since = now
	}
	return now.Sub(m.since), m.moved
}

// do posts b and waits for it. If ctx ends first, b may still be in flight: quiesce must
// run before b and what it names are used again.
func (p *pipe) do(ctx context.Context, b *rdma.Batch) error {
	p.posted.Add(1)
	err := p.conn.Do(ctx, b)
	if !b.InFlight() {
		p.done.Add(1)
	}
	return err
}

func (p *pipe) post(ctx context.Context, b *rdma.Batch) error {
	p.posted.Add(1)
	err := p.conn.Post(ctx, b)
	if err != nil {
		p.done.Add(1)
	}
	return err
}

// wait takes the completion of b if it is in flight.
func (p *pipe) wait(ctx context.Context, b *rdma.Batch) error {
	if !b.InFlight() {
		return b.Result()
	}
	err := p.conn.Wait(ctx, b)
	if !b.InFlight() {
		p.done.Add(1)
	}
	return err
}

// stuck tells whether operations were in flight and none ended for longer than limit.
func (p *pipe) stuck(now time.Time, limit time.Duration) bool {
	done := p.done.Load()
	if p.posted.Load() == done || done != p.seen || p.since.IsZero() {
		p.seen, p.since = done, now
		return false
	}
	return now.Sub(p.since) > limit
}
