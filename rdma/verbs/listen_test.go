package verbs

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// dialRaw connects to a listener with parameters of one's own.
func dialRaw(t *testing.T, d *Device, to netip.AddrPort, p ib.ConnParam) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o, err := d.options(rdma.ConnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ib.NewEventChannel()
	if err != nil {
		t.Fatal(err)
	}
	id, err := ec.NewID()
	if err != nil {
		t.Fatal(err)
	}
	if err := resolve(ctx, ec, id, netip.AddrPortFrom(d.addr, 0), to); err != nil {
		t.Fatal(err)
	}
	c, err := d.newConn(ec, id, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.release()
	if err := id.Connect(p); err != nil {
		t.Fatal(err)
	}
	return expect(ctx, ec, ib.Established)
}

// TestRetriesWithoutEnd: the dialler's retry counts go for the listener's queue pair, too, and 7 is for ever. A peer that asks for
// it could have what is posted to it never end, however long it is gone.
func TestRetriesWithoutEnd(t *testing.T) {
	d := lab(t)
	l, err := d.Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	defer func() { l.Close(); <-done }()
	go func() {
		defer close(done)
		for {
			r, err := l.Accept(t.Context())
			if err != nil {
				return
			}
			if c, err := r.Accept(t.Context(), rdma.ConnOptions{}); err == nil {
				_ = c.Close()
			}
		}
	}()
	to, err := netip.ParseAddrPort(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		retry, rnr uint8
		refused    bool
	}{{5, 6, false}, {7, 6, true}, {5, 7, true}, {6, 6, false}} {
		err := dialRaw(t, d, to, ib.ConnParam{Responder: 1, Initiator: 1, Retry: x.retry, RNRRetry: x.rnr, Private: packPrivate(nil)})
		if errors.Is(err, rdma.ErrRejected) != x.refused || err != nil && !x.refused {
			t.Errorf("retry %d, receiver not ready %d: %v, want it refused: %v", x.retry, x.rnr, err, x.refused)
		}
	}
}
