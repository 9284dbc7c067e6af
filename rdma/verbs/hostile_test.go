package verbs

import (
	"errors"
	"testing"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// postRaw posts b with its first work request made another operation.
func postRaw(t *testing.T, c *conn, b *rdma.Batch, op uint16) {
	t.Helper()
	call, err := c.begin(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	call.WR[0].Op = op
	if err := c.post(call); err != nil {
		t.Fatal(err)
	}
}

// TestWriteWithImmediate: a WRITE with immediate data takes a receive buffer, puts nothing there, and its completion has the length of what was written
// elsewhere, which may be more than all buffers have. A peer that may write, as each client may into its slots, must not get at
// the receiver that way: nothing is delivered, and the connection breaks.
func TestWriteWithImmediate(t *testing.T) {
	d := lab(t)
	for _, n := range []int{8, 600, 1 << 20} {
		_, r := shared(t, d, n)
		local, _ := shared(t, d, n)
		c, s := pair(t, d, rdma.ConnOptions{RecvDepth: 4})
		first := rdma.NewBatch(1)
		first.SendInline([]byte("a message"))
		if err := c.Do(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		b := rdma.NewBatch(1)
		b.Write(local.Slice(0, n), r.Remote(0))
		postRaw(t, c.(*conn), b, ib.OpWriteImm)
		var got []string
		var err error
		late := time.AfterFunc(10*time.Second, func() { _ = s.Close() })
		for err == nil {
			err = s.Receive(func(m []byte) { got = append(got, string(m[:min(len(m), 16)])) })
		}
		late.Stop()
		if !errors.Is(err, rdma.ErrBroken) || len(got) != 1 || got[0] != "a message" {
			t.Errorf("%d bytes: received %q, then %v; want the message, and ErrBroken", n, got, err)
		}
		_ = c.Wait(t.Context(), b) // whether it is acknowledged before the end does not matter
	}
}
