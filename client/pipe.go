package client

import (
	"context"
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
