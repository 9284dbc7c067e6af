package client

import (
	"bytes"
	"context"
	"testing"
	"time"

	"corfu/layout"
	"corfu/rdma"
)

// flippedDevice gives each page that is READ with a bit flipped, as from a unit whose memory is bad.
type flippedDevice struct{ rdma.Device }

type flippedConn struct{ rdma.Conn }

func (d flippedDevice) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	c, err := d.Device.Dial(ctx, addr, private, o)
	if err != nil {
		return nil, err
	}
	return flippedConn{c}, nil
}

func (c flippedConn) Do(ctx context.Context, b *rdma.Batch) error {
	err := c.Conn.Do(ctx, b)
	for i := range b.Ops {
		if op := &b.Ops[i]; err == nil && op.Kind == rdma.OpRead && op.Local.Len == 4096 {
			op.Local.Bytes()[70] ^= 1
		}
	}
	return err
}

// A durable entry whose copy in the unit's memory does not verify is read from its flash. It was looked at again and again, until the context
// ended.
func TestReadOfABadCopyInMemory(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		want := bytes.Repeat([]byte("page"), 100)
		p, err := r.open().Append(r.ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		r.dev = flippedDevice{r.dev}
		reader := r.open()
		ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
		defer cancel()
		if got, err := reader.Read(ctx, p); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q, %v", got, err)
		}
		if err := reader.Fill(ctx, p); err != nil {
			t.Errorf("fill: %v", err)
		}
	})
}
