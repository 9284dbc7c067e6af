package selftest

import (
	"context"
	"errors"
	"fmt"

	"corfu/rdma"
)

// Sizes in bytes: a writer's area is a word that it adds to, one that it compares and swaps, and a page.
const (
	RevokePage  = 4096
	RevokeArea  = 2*rdma.WordSize + RevokePage
	revokeDepth = 16
)

// RevokeWriter keeps lists of FETCH_ADD, WRITE, CAS in flight until its connection breaks, as it must when the
// key of what it writes to is revoked (rule R15). Only it writes to its area.
type RevokeWriter struct {
	Conn   rdma.Conn
	Area   rdma.Remote  // RevokeArea bytes that were zero
	Source *rdma.Memory // of at least RevokePage bytes

	done    uint64 // lists that succeeded
	refused int    // lists of which the FETCH_ADD certainly took effect or certainly did not
	unknown uint64 // lists whose FETCH_ADD may have taken effect
}

// Run posts until the connection breaks. An error is anything but that.
func (w *RevokeWriter) Run(ctx context.Context) error {
	ring := make([]*rdma.Batch, revokeDepth)
	for i := range ring {
		ring[i] = rdma.NewBatch(3)
	}
	for i := 0; ; i++ {
		b := ring[i%revokeDepth]
		if b.InFlight() {
			if broke, err := w.take(ctx, b); broke || err != nil {
				return errors.Join(err, w.drain(ctx, ring, i+1))
			}
		}
		b.Reset()
		b.FetchAdd(w.Area, 1)
		b.Write(w.Source.Slice(0, RevokePage), w.Area.Add(2*rdma.WordSize))
		b.CompareSwap(w.Area.Add(rdma.WordSize), uint64(i), uint64(i+1))
		if err := w.Conn.Post(ctx, b); errors.Is(err, rdma.ErrClosed) {
			return w.drain(ctx, ring, i+1)
		} else if err != nil {
			return errors.Join(fmt.Errorf("post: %w", err), w.drain(ctx, ring, i+1))
		}
	}
}

// drain takes what is in flight, the oldest of it at i first.
func (w *RevokeWriter) drain(ctx context.Context, ring []*rdma.Batch, i int) error {
	for k := range ring {
		if b := ring[(i+k)%revokeDepth]; b.InFlight() {
			if _, err := w.take(ctx, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// take awaits a list and notes what is known of it.
func (w *RevokeWriter) take(ctx context.Context, b *rdma.Batch) (broke bool, err error) {
	err = w.Conn.Wait(ctx, b)
	var op *rdma.OpError
	switch {
	case err == nil:
		w.done++
	case !errors.As(err, &op):
		return true, fmt.Errorf("wait: %w", err)
	case errors.Is(err, rdma.ErrRemoteAccess):
		w.refused++
		if op.Index > 0 {
			w.done++ // what stands before a refused operation took effect
		}
	case errors.Is(err, rdma.ErrBroken):
		w.unknown++
	default:
		return true, fmt.Errorf("wait: %w", err)
	}
	return err != nil, nil
}

// Done is how many lists were acknowledged.
func (w *RevokeWriter) Done() uint64 { return w.done }

// Judge compares the first word of the area, as it stands once the key is dead, with what the writer knows.
func (w *RevokeWriter) Judge(sum uint64) error {
	if sum < w.done || sum > w.done+w.unknown {
		return fmt.Errorf("rule R15: the sum is %d, want %d to %d: acknowledged means done, refused means not done", sum, w.done, w.done+w.unknown)
	}
	if w.refused > 1 {
		return fmt.Errorf("rule R15: %d lists refused; after the first the connection is broken", w.refused)
	}
	return nil
}
