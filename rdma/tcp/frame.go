package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"

	"corfu/rdma"
)

var le = binary.LittleEndian

// Sizes of the records, in bytes, as the package comment draws them.
const (
	headerSize = 12
	opSize     = 20

	// maxTransfer bounds the data of one batch, each way; so a length always fits its field.
	maxTransfer = 1 << 30
	// maxBody is the longest body of a request: data, and the largest list of operations.
	maxBody = maxTransfer + rdma.MaxBatch*(opSize+2*rdma.WordSize)
	// maxData is the longest body of a DATA frame.
	maxData = bufferSize
)

// Frame types.
const (
	typeRequest = 1
	typeData    = 2
	typeDone    = 3
	typeNak     = 4
)

// status says why a peer refused.
type status uint8

const (
	statusOK       status = 0
	statusAccess   status = 1 // key, bounds or rights
	statusRequest  status = 2 // message too long, word not aligned
	statusNotReady status = 3 // no room for a message within the time-out
)

func (s status) String() string {
	switch s {
	case statusOK:
		return "OK"
	case statusAccess:
		return "NAK, remote access error"
	case statusRequest:
		return "NAK, invalid request"
	case statusNotReady:
		return "NAK, receiver not ready, retries exhausted"
	}
	return fmt.Sprintf("NAK %d", uint8(s))
}

// err is the contract's word for a refusal. A receiver that was not ready refused
// nothing by key, bounds or rights: like IBV_WC_RNR_RETRY_EXC_ERR it is a broken connection.
func (s status) err() error {
	if s == statusAccess || s == statusRequest {
		return rdma.ErrRemoteAccess
	}
	return rdma.ErrBroken
}

// errProtocol is a peer that does not keep to the format.
var errProtocol = errors.New("tcp: peer broke the protocol")

func protocolError(what string) error { return fmt.Errorf("%w: %s", errProtocol, what) }

// requestHeader opens a batch.
type requestHeader struct {
	body uint32 // bytes that follow
	ops  int
	tag  uint32
}

func (h requestHeader) append(b []byte) []byte {
	b = le.AppendUint32(b, h.body)
	b = append(b, typeRequest, byte(h.ops), 0, 0)
	return le.AppendUint32(b, h.tag)
}

func decodeRequestHeader(b []byte) (requestHeader, error) {
	if len(b) != headerSize {
		return requestHeader{}, protocolError("short request header")
	}
	h := requestHeader{body: le.Uint32(b), ops: int(b[5]), tag: le.Uint32(b[8:])}
	switch {
	case b[4] != typeRequest || b[6] != 0 || b[7] != 0:
		return h, protocolError("not a request")
	case h.ops < 1 || h.ops > rdma.MaxBatch:
		return h, protocolError("number of operations")
	case int(h.body) < h.ops*opSize || h.body > maxBody:
		return h, protocolError("length of request")
	}
	return h, nil
}

// wireOp is an operation without its data.
type wireOp struct {
	kind   rdma.Kind
	length uint32
	remote rdma.Remote
}

func (o wireOp) append(b []byte) []byte {
	b = append(b, byte(o.kind), 0, 0, 0)
	b = le.AppendUint32(b, uint32(o.remote.Key))
	b = le.AppendUint64(b, o.remote.Addr)
	return le.AppendUint32(b, o.length)
}

func decodeOp(b []byte) (wireOp, error) {
	if len(b) != opSize {
		return wireOp{}, protocolError("short operation")
	}
	o := wireOp{
		kind:   rdma.Kind(b[0]),
		length: le.Uint32(b[16:]),
		remote: rdma.Remote{Addr: le.Uint64(b[8:]), Key: rdma.RKey(le.Uint32(b[4:]))},
	}
	if b[1]|b[2]|b[3] != 0 {
		return o, protocolError("operation's padding")
	}
	if o.length == 0 || o.length > maxTransfer {
		return o, protocolError("length of operation")
	}
	switch o.kind {
	case rdma.OpWrite, rdma.OpRead:
	case rdma.OpCompareSwap, rdma.OpFetchAdd:
		if o.length != rdma.WordSize {
			return o, protocolError("length of atomic")
		}
	case rdma.OpSend:
		if o.remote != (rdma.Remote{}) {
			return o, protocolError("place of message")
		}
	default:
		return o, protocolError("kind of operation")
	}
	return o, nil
}

// data is how many bytes follow the operation in its frame.
func (o wireOp) data() uint32 {
	switch o.kind {
	case rdma.OpWrite, rdma.OpSend:
		return o.length
	case rdma.OpCompareSwap:
		return 2 * rdma.WordSize
	case rdma.OpFetchAdd:
		return rdma.WordSize
	}
	return 0
}

// answerHeader opens an answer.
type answerHeader struct {
	body   uint32 // bytes that follow
	kind   uint8  // typeData, typeDone or typeNak
	op     uint8
	words  uint8
	status status
	tag    uint32
}

func (h answerHeader) append(b []byte) []byte {
	b = le.AppendUint32(b, h.body)
	b = append(b, h.kind, h.op, h.words, byte(h.status))
	return le.AppendUint32(b, h.tag)
}

func decodeAnswerHeader(b []byte) (answerHeader, error) {
	if len(b) != headerSize {
		return answerHeader{}, protocolError("short answer header")
	}
	h := answerHeader{body: le.Uint32(b), kind: b[4], op: b[5], words: b[6], status: status(b[7]), tag: le.Uint32(b[8:])}
	var ok bool
	switch h.kind {
	case typeData:
		ok = h.body > 0 && h.body <= maxData && h.words == 0 && h.status == statusOK
	case typeDone:
		ok = h.op == 0 && h.status == statusOK
	case typeNak:
		ok = h.status >= statusAccess && h.status <= statusNotReady
	}
	if !ok || h.op >= rdma.MaxBatch || h.words > rdma.MaxBatch {
		return h, protocolError("answer header")
	}
	if h.kind != typeData && h.body != uint32(h.words)*rdma.WordSize {
		return h, protocolError("length of answer")
	}
	return h, nil
}
