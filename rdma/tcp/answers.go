package tcp

import (
	"bufio"
	"fmt"
	"io"

	"corfu/rdma"
)

// answers is how far the answer to the first batch in flight has come. It belongs to
// the goroutine that reads them.
type answers struct {
	br *bufio.Reader

	// The READ that the next DATA must continue.
	read int // bytes of it that came
	op   int // every READ before this operation is complete
}

func (a *answers) setup(r io.Reader) { a.br = bufio.NewReaderSize(r, bufferSize/2) }

// readAnswers completes batches until the connection ends; the error says why. A NAK is one way.
func (in *initiator) readAnswers() error {
	a := &in.answers
	for {
		b, err := a.br.Peek(headerSize)
		if err != nil {
			return err
		}
		h, err := decodeAnswerHeader(b)
		if err != nil {
			return err
		}
		_, _ = a.br.Discard(headerSize)
		batch, err := in.awaited(h.tag)
		if err != nil {
			return err
		}
		switch h.kind {
		case typeData:
			err = a.data(batch, h)
		case typeDone:
			if err = a.finish(batch, h); err == nil {
				in.complete(batch, nil)
			}
		case typeNak:
			err = a.nak(batch, h)
			if refused, ok := err.(*rdma.OpError); ok {
				in.c.fail(err) // before the poster learns of it, so that its next post is refused
				in.complete(batch, refused)
			}
		}
		if err != nil {
			return err
		}
	}
}

// awaited gives the first batch in flight, which the tag must name. It must have
// been sent as a whole: the writer may still read what an early answer would free.
func (in *initiator) awaited(tag uint32) (*rdma.Batch, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if tag != in.done || tag == in.cursor.tag {
		return nil, protocolError("answer to what was not asked")
	}
	return *in.at(tag), nil
}

// complete ends the first batch in flight. The batch is the poster's again from then on.
func (in *initiator) complete(b *rdma.Batch, err error) {
	n := int64(len(b.Ops))
	in.mu.Lock()
	*in.at(in.done) = nil
	in.done++
	in.mu.Unlock()
	in.answers.read, in.answers.op = 0, 0
	b.Complete(err)
	in.room.Release(n)
}

// abandon ends all that is in flight, and posting. Nobody touches the batches or their memory after it.
func (in *initiator) abandon(cause error) {
	in.mu.Lock()
	in.gone = true
	in.mu.Unlock()
	for {
		in.mu.Lock()
		b := *in.at(in.done)
		empty := in.done == in.posted
		in.mu.Unlock()
		if empty {
			return
		}
		in.complete(b, &rdma.OpError{Kind: b.Ops[0].Kind, Err: rdma.ErrBroken, Detail: cause.Error()})
	}
}

// data takes a piece of a READ, straight into its target.
func (a *answers) data(b *rdma.Batch, h answerHeader) error {
	op := a.nextRead(b)
	if op == nil || int(h.op) != a.op || int(h.body) > op.Local.Len-a.read {
		return protocolError("data that was not asked for")
	}
	if _, err := io.ReadFull(a.br, op.Local.Bytes()[a.read:a.read+int(h.body)]); err != nil {
		return err
	}
	a.read += int(h.body)
	return nil
}

// nextRead moves to the first READ that is not complete, and gives it; nil if there is none.
func (a *answers) nextRead(b *rdma.Batch) *rdma.Op {
	for a.op < len(b.Ops) {
		op := &b.Ops[a.op]
		if op.Kind == rdma.OpRead && a.read < op.Local.Len {
			return op
		}
		a.op, a.read = a.op+1, 0
	}
	return nil
}

// finish takes the old values of a batch that was executed as a whole.
func (a *answers) finish(b *rdma.Batch, h answerHeader) error {
	if a.nextRead(b) != nil {
		return protocolError("done before the data")
	}
	return a.olds(b, int(h.words), len(b.Ops))
}

// nak takes the old values of what was executed before the refusal. The error is an
// *rdma.OpError if the peer kept to the protocol.
func (a *answers) nak(b *rdma.Batch, h answerHeader) error {
	if int(h.op) >= len(b.Ops) {
		return protocolError("refusal of what was not asked")
	}
	if err := a.olds(b, int(h.words), int(h.op)); err != nil {
		return err
	}
	return &rdma.OpError{Index: int(h.op), Kind: b.Ops[h.op].Kind, Err: h.status.err(), Detail: h.status.String()}
}

// olds gives each atomic before operation end the word it found; there must be just so many.
func (a *answers) olds(b *rdma.Batch, words, end int) error {
	raw, err := a.br.Peek(words * rdma.WordSize)
	if err != nil {
		return err
	}
	next := 0
	for i := range b.Ops[:end] {
		op := &b.Ops[i]
		if op.Kind != rdma.OpCompareSwap && op.Kind != rdma.OpFetchAdd {
			continue
		}
		if next == words {
			return protocolError("too few old values")
		}
		op.Old = le.Uint64(raw[next*rdma.WordSize:])
		next++
	}
	if next != words {
		return protocolError(fmt.Sprintf("%d old values too many", words-next))
	}
	_, err = a.br.Discard(words * rdma.WordSize)
	return err
}
