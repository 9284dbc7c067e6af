package tcp

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"corfu/rdma"
)

// initiator is the half of a connection that posts: a ring of the batches in
// flight, which are sent and answered in the order of their tags.
//
//	 answered │ sent, answer awaited │ not sent (or in part) │ free
//	──────────┼──────────────────────┼───────────────────────┼──────
//	        done                  cursor.tag               posted
//
// Whoever posts while nobody writes becomes the writer and sends all there is, so
// posters that come meanwhile share its next system call. While few lists are in
// flight that is the poster itself, the shortest way; with more in flight it is a
// goroutine, which leaves the poster free to post the next and so sends more at a time. It
// also takes over what a socket does not take at once: no poster ever waits for a socket.
type initiator struct {
	c    *conn
	w    *tryWriter
	room *semaphore.Weighted // of SendDepth operations

	mu      sync.Mutex
	ring    []*rdma.Batch // by tag modulo its length, a power of two
	done    uint32        // tag of the first batch in flight
	posted  uint32        // tag of the next batch
	cursor  cursor
	writing bool   // someone is the writer
	sender  bool   // the goroutine runs
	gone    bool   // nothing is posted any more
	buf     []byte // of the writer
	rest    []byte // of the writer: the part of buf that the socket did not take yet

	wake chan struct{} // makes the goroutine the writer

	answers answers
}

func (in *initiator) setup(c *conn, w *tryWriter) {
	n := 1
	for n < c.opts.SendDepth {
		n <<= 1
	}
	in.c, in.w, in.ring = c, w, make([]*rdma.Batch, n)
	in.room = semaphore.NewWeighted(int64(c.opts.SendDepth))
	in.wake = make(chan struct{}, 1)
	in.answers.setup(c.out)
}

func (in *initiator) at(tag uint32) **rdma.Batch { return &in.ring[tag&uint32(len(in.ring)-1)] }

// post implements Conn.Post.
func (in *initiator) post(ctx context.Context, b *rdma.Batch) error {
	if err := in.check(b); err != nil {
		return err
	}
	n := int64(len(b.Ops))
	if err := in.room.Acquire(ctx, n); err != nil {
		return fmt.Errorf("tcp: post: %w", err)
	}
	in.mu.Lock()
	if in.gone || in.c.isBroken() {
		in.mu.Unlock()
		in.room.Release(n)
		return in.c.closedErr()
	}
	b.Begin()
	*in.at(in.posted) = b
	in.posted++
	switch {
	case in.writing:
		in.mu.Unlock()
	case in.posted-in.done > few:
		in.writing = true
		in.handOver()
	default:
		in.writing = true
		in.send()
	}
	return nil
}

// check refuses what could not be sent as it is.
func (in *initiator) check(b *rdma.Batch) error {
	if b.InFlight() {
		return fmt.Errorf("tcp: post: %w: batch in flight", rdma.ErrInvalid)
	}
	if n := len(b.Ops); n < 1 || n > rdma.MaxBatch || n > in.c.opts.SendDepth {
		return fmt.Errorf("tcp: post: %w: list of %d operations", rdma.ErrInvalid, n)
	}
	total := 0
	for i := range b.Ops {
		op := &b.Ops[i]
		if err := checkOp(op); err != "" {
			return fmt.Errorf("tcp: post: %w: operation %d, %v: %s", rdma.ErrInvalid, i, op.Kind, err)
		}
		if total += int(describe(op).length); total > maxTransfer {
			return fmt.Errorf("tcp: post: %w: more than %d bytes in a list", rdma.ErrInvalid, maxTransfer)
		}
	}
	return nil
}

func checkOp(op *rdma.Op) string {
	switch op.Kind {
	case rdma.OpCompareSwap, rdma.OpFetchAdd:
		if op.Remote.Addr%rdma.WordSize != 0 {
			return "word not aligned"
		}
		return ""
	case rdma.OpSend:
		if op.Inline != 0 {
			return ""
		}
	case rdma.OpWrite, rdma.OpRead:
	default:
		return "unknown kind"
	}
	l := op.Local
	if l.Mem == nil || l.Off < 0 || l.Len < 1 || l.Len > maxTransfer || l.Len > l.Mem.Len()-l.Off {
		return "outside of local memory"
	}
	return ""
}

// few is how many lists in flight are still sent by their posters.
const few = 3

// send is what a poster does as the writer: one write, and the goroutine has what
// is left or came meanwhile. Entered with mu held, it leaves it unlocked.
func (in *initiator) send() {
	if !in.encode() {
		in.mu.Unlock()
		return
	}
	in.mu.Unlock()
	n, err := in.w.write(in.buf)
	if err != nil {
		in.c.fail(err)
	}
	in.mu.Lock()
	if in.rest = in.buf[n:]; len(in.rest) > 0 || in.cursor.tag != in.posted {
		in.handOver()
		return
	}
	in.writing = false
	in.mu.Unlock()
}

// handOver makes the goroutine the writer. Entered with mu held, it leaves it unlocked.
func (in *initiator) handOver() {
	defer in.mu.Unlock()
	if in.gone {
		return
	}
	if !in.sender {
		// abandon, which sets gone, runs before running can reach zero: it is not awaited yet.
		in.sender = true
		in.c.running.Add(1)
		go in.runSender()
	}
	in.wake <- struct{}{} // has room: there is one writer
}

func (in *initiator) runSender() {
	defer in.c.running.Done()
	for {
		select {
		case <-in.wake:
		case <-in.c.broken:
			return
		}
		for in.next() {
			if _, err := in.c.out.Write(in.rest); err != nil {
				in.c.fail(err)
			}
			in.rest = nil
		}
	}
}

// next tells the goroutine whether it is still the writer, and gives it something to write.
func (in *initiator) next() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.rest) > 0 {
		return true
	}
	ok := in.encode()
	in.rest = in.buf
	return ok
}

// encode fills buf. It reports false if there is nothing to send or nobody to send it
// to: then there is no writer any more. Entered with mu held.
//
// Local memory is read here and only here, and not once gone is set.
func (in *initiator) encode() bool {
	in.buf = in.buf[:0]
	if in.gone || in.cursor.tag == in.posted || in.c.isBroken() {
		in.writing = false
		return false
	}
	for in.cursor.tag != in.posted && len(in.buf) < bufferSize {
		in.buf = in.cursor.encode(in.buf, *in.at(in.cursor.tag))
	}
	return true
}

// cursor is how far sending has come: everything before byte sent of operation op
// of batch tag is encoded. Operation -1 stands for the header.
type cursor struct {
	tag     uint32
	started bool // the header is encoded
	op      int
	sent    int // bytes of the data of op; only within an operation
	within  bool
}

// encode appends as much of b, the batch at the cursor, as fits into a buffer.
func (cur *cursor) encode(buf []byte, b *rdma.Batch) []byte {
	if !cur.started {
		cur.started = true
		buf = batchHeader(b, cur.tag).append(buf)
	}
	for cur.op < len(b.Ops) {
		op := &b.Ops[cur.op]
		if !cur.within {
			cur.within, cur.sent = true, 0
			buf = appendOp(buf, op)
		}
		data := payload(op)
		n := min(len(data)-cur.sent, max(0, bufferSize-len(buf)))
		buf = append(buf, data[cur.sent:cur.sent+n]...)
		if cur.sent += n; cur.sent < len(data) {
			return buf
		}
		cur.op, cur.within = cur.op+1, false
	}
	*cur = cursor{tag: cur.tag + 1}
	return buf
}

func batchHeader(b *rdma.Batch, tag uint32) requestHeader {
	h := requestHeader{ops: len(b.Ops), tag: tag}
	for i := range b.Ops {
		h.body += opSize + describe(&b.Ops[i]).data()
	}
	return h
}

// describe gives the operation as it stands on the wire.
func describe(op *rdma.Op) wireOp {
	o := wireOp{kind: op.Kind, remote: op.Remote, length: uint32(op.Local.Len)}
	switch op.Kind {
	case rdma.OpCompareSwap, rdma.OpFetchAdd:
		o.length = rdma.WordSize
	case rdma.OpSend:
		o.remote = rdma.Remote{}
		if op.Inline != 0 {
			o.length = uint32(op.Inline)
		}
	}
	return o
}

// appendOp appends the operation and the operands of an atomic.
func appendOp(buf []byte, op *rdma.Op) []byte {
	buf = describe(op).append(buf)
	switch op.Kind {
	case rdma.OpCompareSwap:
		buf = le.AppendUint64(buf, op.Compare)
		buf = le.AppendUint64(buf, op.Swap)
	case rdma.OpFetchAdd:
		buf = le.AppendUint64(buf, op.Swap)
	}
	return buf
}

// payload is what follows in the local memory.
func payload(op *rdma.Op) []byte {
	switch {
	case op.Kind == rdma.OpSend && op.Inline != 0:
		return op.Msg[:op.Inline]
	case op.Kind == rdma.OpSend || op.Kind == rdma.OpWrite:
		return op.Local.Bytes()
	}
	return nil
}
