package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/tcp"
	"corfu/unit/server"
)

// sessions is testGeometry with another max_sessions.
func sessions(n int) layout.Geometry {
	g := testGeometry
	g.MaxSessions = n
	return g
}

// resize is rig.reconcile for an epoch with another max_sessions.
func (r *rig) resize(n layout.Epoch, max int) error {
	stream, err := r.ctl.Reconcile(r.t.Context())
	if err != nil {
		return err
	}
	l := testLayout(n)
	l.Geometry = sessions(max)
	_ = stream.Send(&pb.ReconcileRequest{Header: &pb.ReconcileHeader{Layout: pbconv.Layout(l)}})
	_, err = stream.CloseAndRecv()
	return err
}

func (r *rig) reserve(max int) (*pb.ReserveReply, error) {
	return r.ctl.Reserve(r.t.Context(), &pb.ReserveRequest{Log: logID[:], MaxSessions: uint32(max)})
}

// An epoch brings another max_sessions, more and fewer: what was published before it and not taken in is there, index and ring stay where
// they are, and the unit serves as many clients as the new staging has room for (rules R5, R6, R15, R17, R18).
func TestR15AnEpochBringsAnotherMaxSessions(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	a := layout.Address(0)
	for e, max := layout.Epoch(2), []int{8, 1, 4}; len(max) > 0; e, max = e+1, max[1:] {
		m.put(a)
		if _, old, err := m.write(a+1, wire.MakeAttempt(9, uint32(a)+2), false); err != nil || old.State() != wire.Empty {
			t.Fatal(old, err)
		}
		if e == 2 {
			reply, err := r.reserve(max[0])
			must(t, err)
			if least := uint64(8 * max[0] * 4096); reply.Bytes < least {
				t.Errorf("%d bytes are held, %d are needed for the pages alone", reply.Bytes, least)
			}
		}
		reply, err := r.seal(e, e-1)
		must(t, err)
		if reply.End != uint64(a)+2 || reply.Watermark != reply.End {
			t.Errorf("epoch %d: the seal says watermark %d and end %d, want %d", e, reply.Watermark, reply.End, a+2)
		}
		must(t, r.resize(e, max[0]))
		must(t, r.activate(e))
		want := server.Capacity(sessions(max[0]))
		if got := r.state().SessionsMax; int(got) != want {
			t.Errorf("epoch %d: room for %d sessions, want %d", e, got, want)
		}
		before := m.s
		m = r.session(e)
		if m.s.Index.Addr != before.Index.Addr || m.s.Ring.Addr != before.Ring.Addr {
			t.Errorf("epoch %d: the index moved from %#x to %#x, the ring from %#x to %#x", e, before.Index.Addr, m.s.Index.Addr, before.Ring.Addr, m.s.Ring.Addr)
		}
		for b := range a + 2 {
			if w := m.look(b); w.State() != wire.Durable {
				t.Fatalf("epoch %d: address %d holds %v", e, b, w)
			}
			verify(t, m.ring(b), b)
		}
		a += 2
		r.fill(e, want-1, max[0])
	}
}

// fill opens n sessions, no two of which have a slot in common, and finds the next one refused at once, with the setting's name.
func (r *rig) fill(e layout.Epoch, n, max int) {
	r.t.Helper()
	owner := map[uint32]int{}
	for i := range n + 1 {
		r.clients++
		s, err := r.ctl.OpenSession(r.t.Context(), &pb.OpenSessionRequest{Log: logID[:], Epoch: uint64(e), Client: r.clients})
		if i == n {
			wantCode(r.t, err, codes.ResourceExhausted)
			if want := fmt.Sprintf("max_sessions %d. More: corfu layout set --max-sessions", max); !strings.Contains(err.Error(), want) {
				r.t.Errorf("refused with %q, want %q", err, want)
			}
			return
		}
		must(r.t, err)
		for k := range s.Slots {
			if other, taken := owner[s.FirstSlot+k]; taken || int(s.FirstSlot+k) >= testGeometry.SessionSlots*max {
				r.t.Fatalf("slot %d of session %d: it is session %d's, or there is none", s.FirstSlot+k, i, other)
			}
			owner[s.FirstSlot+k] = i
		}
	}
}

// scarce is a device that has no more memory when it is told so, to map or to register.
type scarce struct {
	rdma.Device
	unmapped, unpinned atomic.Bool
}

func (d *scarce) Alloc(n int) (*rdma.Memory, error) {
	if d.unmapped.Load() {
		return nil, fmt.Errorf("mmap: %w", unix.ENOMEM)
	}
	return d.Device.Alloc(n)
}

func (d *scarce) Register(m *rdma.Memory, off, n int, a rdma.Access) (rdma.Region, error) {
	if d.unpinned.Load() {
		return nil, fmt.Errorf("ibv_reg_mr: %w", unix.ENOMEM)
	}
	return d.Device.Register(m, off, n, a)
}

// A unit that does not get the memory for another max_sessions says so, and nothing has changed: it goes on with the old value, in its
// epoch and in the next.
func TestAnotherMaxSessionsIsRefusedWhole(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.stop()
	d := &scarce{Device: r.dev}
	r.cfg.Device = d
	r.start()
	r.open(1, true)
	m := r.session(1)
	m.put(0)
	for _, less := range []*atomic.Bool{&d.unmapped, &d.unpinned} {
		less.Store(true)
		_, err := r.reserve(64)
		wantCode(t, err, codes.ResourceExhausted)
		if want := "64 takes "; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "MiB") {
			t.Errorf("refused with %q, want %q and the size", err, want)
		}
		less.Store(false)
	}
	m.put(1)

	// It was there when it was asked for, and is gone now.
	_, err := r.seal(2, 1)
	must(t, err)
	d.unmapped.Store(true)
	wantCode(t, r.resize(2, 64), codes.ResourceExhausted)
	_, err = r.seal(3, 1)
	must(t, err)
	must(t, r.reconcile(3, false))
	must(t, r.activate(3))
	m = r.session(3)
	m.put(2)
	if got, want := int(r.state().SessionsMax), server.Capacity(testGeometry); got != want {
		t.Errorf("room for %d sessions, want %d", got, want)
	}

	// An epoch that comes to nothing half-way: the next one is made without its memory.
	d.unmapped.Store(false)
	_, err = r.seal(4, 3)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.ctl.Reconcile(ctx)
	must(t, err)
	l := testLayout(4)
	l.Geometry = sessions(64)
	must(t, stream.Send(&pb.ReconcileRequest{Header: &pb.ReconcileHeader{Layout: pbconv.Layout(l)}}))
	eventually(t, "the beginning of epoch 4", func() bool { return r.state().Watermark == 0 })
	cancel()
	_, err = r.reserve(0)
	must(t, err)
	d.unmapped.Store(true)
	reply, err := r.seal(5, 3)
	must(t, err)
	if reply.Watermark != 3 {
		t.Errorf("watermark %d, want 3", reply.Watermark)
	}
	must(t, r.reconcile(5, false))
	must(t, r.activate(5))
	m = r.session(5)
	m.put(3)
	for a := range layout.Address(4) {
		verify(t, m.ring(a), a)
	}
}
