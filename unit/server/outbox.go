package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"corfu/internal/wire"
	"corfu/rdma"
)

var errSlow = errors.New("the client does not take its acks and replies")

// outbox is what a connection has to send. The loop puts, one goroutine sends: while
// a list is on its way the next one gathers.
type outbox struct {
	mu      sync.Mutex
	acks    []wire.Ack
	replies []wire.Reply
	news    wire.Progress // to be sent, if anew: the newest alone
	anew    bool
	limit   int           // of acks, and of replies
	wake    chan struct{} // one token if there may be something
	fail    func(error)

	followed *atomic.Bool // what acks say of it
}

func newOutbox(limit int, followed *atomic.Bool, fail func(error)) *outbox {
	return &outbox{limit: limit, followed: followed, wake: make(chan struct{}, 1), fail: fail,
		acks: make([]wire.Ack, 0, limit), replies: make([]wire.Reply, 0, 16)}
}

// ack queues an ack. It never waits: a client too slow is cut off.
func (o *outbox) ack(a wire.Ack) {
	o.mu.Lock()
	full := len(o.acks) >= o.limit
	if !full {
		o.acks = append(o.acks, a)
	}
	o.mu.Unlock()
	o.signal(full)
}

func (o *outbox) reply(r wire.Reply) {
	o.mu.Lock()
	full := len(o.replies) >= o.limit
	if !full {
		o.replies = append(o.replies, r)
	}
	o.mu.Unlock()
	o.signal(full)
}

// progress queues what a subscriber is to hear, in place of what it was to hear before.
func (o *outbox) progress(p wire.Progress) {
	o.mu.Lock()
	o.news, o.anew = p, true
	o.mu.Unlock()
	o.signal(false)
}

func (o *outbox) signal(full bool) {
	if full {
		o.fail(errSlow)
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

const maxReplies = 32 // in one list

// parcel is what goes in one list.
type parcel struct {
	acks    []wire.Ack
	replies []wire.Reply
	news    wire.Progress
	anew    bool
}

// take moves what fits into one list to p. It reports whether there is anything.
func (o *outbox) take(p *parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(o.acks), sendSlots*wire.MaxAcks)
	p.acks = append(p.acks[:0], o.acks[:n]...)
	o.acks = o.acks[:copy(o.acks, o.acks[n:])]
	n = min(len(o.replies), maxReplies)
	p.replies = append(p.replies[:0], o.replies[:n]...)
	o.replies = o.replies[:copy(o.replies, o.replies[n:])]
	p.news, p.anew = o.news, o.anew
	o.anew = false
	return p.anew || len(p.acks)+len(p.replies) > 0
}

// run sends until stop is closed or the connection breaks; buf (sendBytes of
// registered memory from off on) holds the messages that are too long to go inline.
func (o *outbox) run(conn rdma.Conn, mem *rdma.Memory, off int, stop <-chan struct{}) {
	var p parcel
	var msg wire.Acks
	var scratch [wire.MaxMessage]byte
	batch := rdma.NewBatch(1 + sendSlots + maxReplies)
	for {
		if !o.take(&p) {
			select {
			case <-o.wake:
				continue
			case <-stop:
				return
			}
		}
		batch.Reset()
		if p.anew {
			batch.SendInline(p.news.Append(scratch[:0]))
		}
		for i, slot := 0, 0; i < len(p.acks); slot++ {
			msg.N, msg.Followed = copy(msg.List[:], p.acks[i:]), o.followed.Load()
			i += msg.N
			b := msg.Append(scratch[:0])
			if len(b) <= rdma.MaxInline {
				batch.SendInline(b)
				continue
			}
			local := mem.Slice(off+slot*sendSlot, len(b))
			copy(local.Bytes(), b)
			batch.Send(local)
		}
		for _, r := range p.replies {
			batch.SendInline(r.Append(scratch[:0]))
		}
		// No deadline: the transport gives up on a dead peer, the session's end closes the
		// connection, and a client that is only slow is cut off when its outbox is full.
		if err := conn.Do(context.Background(), batch); err != nil {
			o.fail(err)
			return
		}
	}
}
