package tcp

import (
	"bytes"

	"corfu/rdma"
)

// Version is the protocol's. Peers of another version are rejected.
const version = 1

const (
	helloSize   = 128
	replySize   = 128
	maxReason   = 100
	roleForward = 1
	roleReverse = 2
)

var magic = [8]byte{'C', 'o', 'r', 'f', 'u', 'T', 'C', 'P'}

// token pairs the two sockets of a connection. It is random, so that a stranger
// cannot put a socket of its own in the place of the second.
type token [16]byte

// hello is the first record on each socket.
type hello struct {
	version uint16
	role    uint8
	token   token
	private []byte
}

func (h *hello) encode() []byte {
	b := make([]byte, helloSize)
	copy(b, magic[:])
	le.PutUint16(b[8:], h.version)
	b[10] = h.role
	b[11] = byte(len(h.private))
	copy(b[12:], h.token[:])
	copy(b[28:], h.private)
	return b
}

// decodeHello checks all but the version: a peer of another one is told so.
func decodeHello(b []byte) (*hello, error) {
	if len(b) != helloSize || !bytes.Equal(b[:8], magic[:]) {
		return nil, protocolError("not a hello")
	}
	h := &hello{version: le.Uint16(b[8:]), role: b[10]}
	if h.version != version {
		return h, nil // of the rest nothing is known
	}
	copy(h.token[:], b[12:])
	n := int(b[11])
	switch {
	case h.role != roleForward && h.role != roleReverse:
		return nil, protocolError("role")
	case n > rdma.MaxPrivate || !allZero(b[28+n:]):
		return nil, protocolError("private data")
	}
	h.private = bytes.Clone(b[28 : 28+n])
	return h, nil
}

// reply is the listener's answer.
type reply struct {
	version  uint16
	rejected bool
	reason   string // cut to maxReason bytes
}

func (r *reply) encode() []byte {
	b := make([]byte, replySize)
	copy(b, magic[:])
	le.PutUint16(b[8:], r.version)
	if r.rejected {
		b[10] = 1
	}
	b[11] = byte(copy(b[12:12+maxReason], r.reason))
	return b
}

func decodeReply(b []byte) (*reply, error) {
	if len(b) != replySize || !bytes.Equal(b[:8], magic[:]) {
		return nil, protocolError("not a reply")
	}
	r := &reply{version: le.Uint16(b[8:]), rejected: b[10] == 1}
	n := int(b[11])
	switch {
	case b[10] > 1:
		return nil, protocolError("status of reply")
	case n > maxReason || !allZero(b[12+n:]):
		return nil, protocolError("reason")
	case !r.rejected && (r.version != version || n != 0):
		return nil, protocolError("reply")
	}
	r.reason = string(b[12 : 12+n])
	return r, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
