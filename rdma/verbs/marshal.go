package verbs

import (
	"fmt"
	"math/bits"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// maxLength bounds one operation, in bytes. InfiniBand allows 2 GiB.
const maxLength = 1 << 30

// check tells whether a list can be posted on a queue of the given depth.
func check(ops []rdma.Op, depth int) error {
	if len(ops) == 0 || len(ops) > min(rdma.MaxBatch, depth) {
		return fmt.Errorf("verbs: %w: a list of %d operations, not 1 to %d", rdma.ErrInvalid, len(ops), min(rdma.MaxBatch, depth))
	}
	for i := range ops {
		if why := checkOp(&ops[i]); why != "" {
			return fmt.Errorf("verbs: %w: %v (operation %d of the list): %s", rdma.ErrInvalid, ops[i].Kind, i, why)
		}
	}
	return nil
}

func checkOp(op *rdma.Op) string {
	switch op.Kind {
	case rdma.OpCompareSwap, rdma.OpFetchAdd:
		if op.Remote.Addr%rdma.WordSize != 0 {
			return "the word is not 8-byte aligned"
		}
		return ""
	case rdma.OpSend:
		if op.Inline > 0 {
			if op.Inline > rdma.MaxInline {
				return "inline message too long"
			}
			return ""
		}
	case rdma.OpWrite, rdma.OpRead:
	default:
		return "unknown operation"
	}
	l := op.Local
	switch {
	case l.Mem == nil:
		return "no local memory"
	case l.Len <= 0 || l.Len > maxLength:
		return fmt.Sprintf("length %d", l.Len)
	case l.Off < 0 || l.Off > l.Mem.Len()-l.Len:
		return "outside the local memory"
	}
	return ""
}

func isAtomic(k rdma.Kind) bool { return k == rdma.OpCompareSwap || k == rdma.OpFetchAdd }

// words is where the old values of atomics land: registered, 8 bytes each. There are as many as credits, so that whoever has
// those finds a word for each of its atomics.
type words struct {
	mem  *rdma.Memory
	off  int    // in mem
	base uint64 // address of the first
	key  uint32 // lkey
	free []uint16
}

func (w *words) load(i uint16) uint64 { return w.mem.Load(w.off + int(i)*rdma.WordSize) }

// fill writes a checked list into the call, and appends the words of its atomics, in order, to taken.
func (w *words) fill(call *ib.Call, ops []rdma.Op, taken []uint16) []uint16 {
	call.N = uint32(len(ops))
	for i := range ops {
		op, wr := &ops[i], &call.WR[i]
		wr.Op, wr.Inline = uint16(op.Kind), 0
		wr.Remote, wr.RKey = op.Remote.Addr, uint32(op.Remote.Key)
		switch {
		case isAtomic(op.Kind):
			last := len(w.free) - 1
			word := w.free[last]
			w.free = w.free[:last]
			taken = append(taken, word)
			wr.Local, wr.Length, wr.LKey = w.base+uint64(word)*rdma.WordSize, rdma.WordSize, w.key
			wr.Compare, wr.Swap = op.Compare, op.Swap
			if op.Kind == rdma.OpFetchAdd {
				wr.Compare, wr.Swap = op.Swap, 0
			}
		case op.Kind == rdma.OpSend && op.Inline > 0:
			wr.Inline, wr.Length = 1, uint32(op.Inline)
			copy(call.Message[i][:], op.Msg[:op.Inline])
		default:
			wr.Local, wr.Length, wr.LKey = op.Local.Mem.Base()+uint64(op.Local.Off), uint32(op.Local.Len), op.Local.Mem.LKey()
		}
	}
	return taken
}

// opError says what a failed operation means for the caller. Only what the peer
// refused is known to have had no effect.
func opError(ops []rdma.Op, index int, s ib.Status, vendor uint32) *rdma.OpError {
	index = min(index, len(ops)-1)
	e := &rdma.OpError{Index: index, Kind: ops[index].Kind, Err: rdma.ErrBroken, Detail: s.String()}
	switch s {
	case ib.StatusRemAccess, ib.StatusRemInvReq, ib.StatusRemOp:
		e.Err = rdma.ErrRemoteAccess
	}
	if vendor != 0 {
		e.Detail = fmt.Sprintf("%v, vendor error %#x", s, vendor)
	}
	return e
}

// ackTimeout is the code n of the time-out 4.096 µs × 2^n that is at least t (IBTA vol. 1, 9.9.1.2).
func ackTimeout(t time.Duration) uint8 {
	const unit = 4096 * time.Nanosecond
	n := bits.Len64(uint64(max(t-1, 0) / unit))
	return uint8(min(max(n, 1), 31))
}
