package tcp

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"time"

	"corfu/rdma"
)

// responder is the half of a connection that executes the peer's requests, one
// after the other, on one goroutine: that is what keeps the order of a list, and a
// WRITE complete before the operation behind it.
type responder struct {
	regions *table
	msgs    *inbox
	sock    net.Conn
	br      *bufio.Reader
	out     []byte // answers not yet written

	maxMessage int
	notReady   time.Duration // how long a message waits for room
	broken     <-chan struct{}

	// Of the batch at hand.
	tag  uint32
	olds [rdma.MaxBatch]uint64
	nold int
}

// refusal ends the connection after a NAK.
type refusal struct {
	kind   rdma.Kind
	remote rdma.Remote
	status status
}

func (r *refusal) Error() string {
	return fmt.Sprintf("refused a %v of the peer (key %#x, address %#x): %v", r.kind, uint32(r.remote.Key), r.remote.Addr, r.status)
}

func (r *responder) setup(t *table, msgs *inbox, sock net.Conn, o rdma.ConnOptions, broken <-chan struct{}) {
	r.regions, r.msgs, r.sock, r.broken = t, msgs, sock, broken
	r.maxMessage, r.notReady = o.MaxMessage, timeout(o)
	r.br = bufio.NewReaderSize(flushBeforeRead{r}, bufferSize)
}

// flushBeforeRead sends the answers just before the responder may have to wait for more
// requests. So a burst of requests is answered with one system call and no answer is held back.
type flushBeforeRead struct{ r *responder }

func (f flushBeforeRead) Read(p []byte) (int, error) {
	if err := f.r.flush(); err != nil {
		return 0, err
	}
	return f.r.sock.Read(p)
}

func (r *responder) flush() error {
	if len(r.out) == 0 {
		return nil
	}
	_, err := r.sock.Write(r.out)
	r.out = r.out[:0]
	return err
}

// serve executes requests until the connection ends; the error says why.
func (r *responder) serve() error {
	for want := uint32(0); ; want++ {
		b, err := r.br.Peek(headerSize)
		if err != nil {
			return err
		}
		h, err := decodeRequestHeader(b)
		if err != nil {
			return err
		}
		_, _ = r.br.Discard(headerSize)
		if h.tag != want {
			return protocolError("tag of request")
		}
		if err := r.batch(h); err != nil {
			return err
		}
	}
}

// batch executes one list and answers it.
func (r *responder) batch(h requestHeader) error {
	r.tag, r.nold = h.tag, 0
	rest := h.body
	for i := range h.ops {
		if rest < opSize {
			return protocolError("operations beyond the request")
		}
		b, err := r.br.Peek(opSize)
		if err != nil {
			return err
		}
		op, err := decodeOp(b)
		if err != nil {
			return err
		}
		_, _ = r.br.Discard(opSize)
		if rest -= opSize; op.data() > rest {
			return protocolError("data beyond the request")
		}
		rest -= op.data()
		if r.isBroken() {
			return io.EOF // the connection fell while the list was on its way: nothing more of it happens
		}
		s, err := r.execute(i, op)
		if err != nil {
			return err
		}
		if s != statusOK {
			return r.refuse(i, op, s)
		}
	}
	if rest != 0 {
		return protocolError("data behind the operations")
	}
	return r.answer(answerHeader{kind: typeDone})
}

func (r *responder) isBroken() bool {
	select {
	case <-r.broken:
		return true
	default:
		return false
	}
}

// answer ends the batch with the old values of its atomics.
func (r *responder) answer(h answerHeader) error {
	h.tag, h.words, h.body = r.tag, uint8(r.nold), uint32(r.nold)*rdma.WordSize
	if err := r.makeRoom(headerSize + int(h.body)); err != nil {
		return err
	}
	r.out = h.append(r.out)
	for _, old := range r.olds[:r.nold] {
		r.out = le.AppendUint64(r.out, old)
	}
	return nil
}

func (r *responder) refuse(i int, op wireOp, s status) error {
	if err := r.answer(answerHeader{kind: typeNak, op: uint8(i), status: s}); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	return &refusal{op.kind, op.remote, s}
}

// makeRoom keeps the answers within one buffer.
func (r *responder) makeRoom(n int) error {
	if len(r.out) > 0 && len(r.out)+n > bufferSize {
		return r.flush()
	}
	return nil
}

// execute performs operation i, whose data comes next. An error ends the connection
// without a word; a status other than OK is told to the peer.
func (r *responder) execute(i int, op wireOp) (status, error) {
	switch op.kind {
	case rdma.OpWrite:
		return r.write(op)
	case rdma.OpRead:
		return r.read(i, op)
	case rdma.OpSend:
		return r.receive(op)
	default:
		return r.atomic(op)
	}
}

// write copies the data as it comes. The region is not held while the peer is awaited,
// so a slow one cannot hold up Region.Close; it may then die between two
// pieces, as it may between two packets on RC.
func (r *responder) write(op wireOp) (status, error) {
	reg := r.regions.find(op.remote.Key, rdma.RemoteWrite)
	if reg == nil || !reg.covers(op.remote.Addr, op.length) {
		return statusAccess, nil
	}
	for done := uint32(0); done < op.length; {
		if r.br.Buffered() == 0 {
			if _, err := r.br.Peek(1); err != nil {
				return statusOK, err
			}
			if r.isBroken() {
				return statusOK, io.EOF
			}
		}
		piece, _ := r.br.Peek(min(r.br.Buffered(), int(op.length-done)))
		if !reg.write(op.remote.Addr+uint64(done), piece) {
			return statusAccess, nil
		}
		_, _ = r.br.Discard(len(piece))
		done += uint32(len(piece))
	}
	return statusOK, nil
}

// read copies the memory into answers, each short enough for one buffer. If the
// region dies in between, the pieces sent are void: a NAK follows.
func (r *responder) read(i int, op wireOp) (status, error) {
	reg := r.regions.find(op.remote.Key, rdma.RemoteRead)
	if reg == nil || !reg.covers(op.remote.Addr, op.length) {
		return statusAccess, nil
	}
	for done := uint32(0); done < op.length; {
		n := min(op.length-done, bufferSize-headerSize)
		if err := r.makeRoom(headerSize + int(n)); err != nil {
			return statusOK, err
		}
		before := len(r.out)
		r.out = answerHeader{kind: typeData, op: uint8(i), body: n, tag: r.tag}.append(r.out)
		var ok bool
		if r.out, ok = reg.read(r.out, op.remote.Addr+uint64(done), n); !ok {
			r.out = r.out[:before]
			return statusAccess, nil
		}
		done += n
	}
	return statusOK, nil
}

func (r *responder) atomic(op wireOp) (status, error) {
	operand, err := r.br.Peek(int(op.data()))
	if err != nil {
		return statusOK, err
	}
	first, last := le.Uint64(operand), le.Uint64(operand[len(operand)-rdma.WordSize:])
	_, _ = r.br.Discard(len(operand))
	reg := r.regions.find(op.remote.Key, rdma.RemoteAtomic)
	if reg == nil {
		return statusAccess, nil
	}
	if op.remote.Addr%rdma.WordSize != 0 {
		return statusRequest, nil
	}
	var old uint64
	var ok bool
	if op.kind == rdma.OpCompareSwap {
		old, ok = reg.compareSwap(op.remote.Addr, first, last)
	} else {
		old, ok = reg.fetchAdd(op.remote.Addr, first)
	}
	if !ok {
		return statusAccess, nil
	}
	r.olds[r.nold] = old
	r.nold++
	return statusOK, nil
}

// receive puts a message into the receive queue.
func (r *responder) receive(op wireOp) (status, error) {
	if int(op.length) > r.maxMessage {
		return statusRequest, nil
	}
	if r.msgs.full() {
		if err := r.flush(); err != nil {
			return statusOK, err
		}
	}
	buf := r.msgs.slot(int(op.length), r.notReady, r.broken)
	if buf == nil {
		return statusNotReady, nil
	}
	if _, err := io.ReadFull(r.br, buf); err != nil {
		return statusOK, err
	}
	r.msgs.put()
	return statusOK, nil
}
