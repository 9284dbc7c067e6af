package client

import (
	"context"
	"sync"
	"time"

	"corfu/internal/wire"
)

// requests pairs replies with what asked for them, on one session.
type requests struct {
	dead <-chan struct{} // closed once the session's connections are closed for good

	mu      sync.Mutex
	next    wire.RequestID
	waiting map[wire.RequestID]*pending
}

// pending is a request without its reply.
type pending struct {
	id    wire.RequestID
	in    *requests
	reply chan wire.Reply // room for one
}

func (r *requests) add() *pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	p := &pending{id: r.next, in: r, reply: make(chan wire.Reply, 1)}
	r.waiting[p.id] = p
	return p
}

func (r *requests) take(m wire.Reply) {
	r.mu.Lock()
	p := r.waiting[m.Request]
	delete(r.waiting, m.Request)
	r.mu.Unlock()
	if p != nil {
		p.reply <- m
	}
}

// drop forgets the request; a late reply is ignored.
func (p *pending) drop() {
	p.in.mu.Lock()
	delete(p.in.waiting, p.id)
	p.in.mu.Unlock()
}

// wait gives the reply, or errTimeout after patience. broken is closed when the session breaks.
func (p *pending) wait(ctx context.Context, broken <-chan struct{}, patience time.Duration) (wire.Reply, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-t.C:
		return wire.Reply{}, errTimeout
	case m := <-p.reply:
		return m, nil
	case <-broken:
		return wire.Reply{}, &sessionError{"request", errStale}
	case <-ctx.Done():
		return wire.Reply{}, ctx.Err()
	}
}

// drain returns once the peer can no longer act on the request: it replied, or the connection is closed.
func (p *pending) drain() {
	select {
	case <-p.reply:
	case <-p.in.dead:
	}
	p.drop()
}
