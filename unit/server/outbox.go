package server

import (
	"context"
	"errors"
	"sync"

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
	limit   int           // of each
	wake    chan struct{} // one token if there may be something
	fail    func(error)
}

func newOutbox(limit int, fail func(error)) *outbox {
	return &outbox{limit: limit, wake: make(chan struct{}, 1), fail: fail,
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

// take moves what fits into one list to the arrays given.
func (o *outbox) take(acks []wire.Ack, replies []wire.Reply) ([]wire.Ack, []wire.Reply) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(o.acks), sendSlots*wire.MaxAcks)
	acks = append(acks[:0], o.acks[:n]...)
	o.acks = o.acks[:copy(o.acks, o.acks[n:])]
	n = min(len(o.replies), maxReplies)
	replies = append(replies[:0], o.replies[:n]...)
	o.replies = o.replies[:copy(o.replies, o.replies[n:])]
	return acks, replies
}

// run sends until stop is closed or the connection breaks; buf (sendBytes of
// registered memory from off on) holds the messages that are too long to go inline.
func (o *outbox) run(conn rdma.Conn, mem *rdma.Memory, off int, stop <-chan struct{}) {
	var acks []wire.Ack
	var replies []wire.Reply
	var msg wire.Acks
	var scratch [wire.MaxMessage]byte
	batch := rdma.NewBatch(sendSlots + maxReplies)
	for {
		acks, replies = o.take(acks, replies)
		if len(acks)+len(replies) == 0 {
			select {
			case <-o.wake:
				continue
			case <-stop:
				return
			}
		}
		batch.Reset()
		for i, slot := 0, 0; i < len(acks); slot++ {
			msg.N = copy(msg.List[:], acks[i:])
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
		for _, r := range replies {
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
