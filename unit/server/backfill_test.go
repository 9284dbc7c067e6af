package server_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma/tcp"
)

// joinedLayout has the unit in the chain from position at on only; before, it is another's.
func joinedLayout(e layout.Epoch, at layout.Position) *layout.Layout {
	l := testLayout(e)
	l.Units = append(l.Units, layout.Unit{ID: 8, Control: "127.0.0.1:3"})
	l.Segments = []layout.Segment{
		{Chains: []layout.Chain{{Units: []layout.UnitID{8}}}},
		{Start: at, Chains: []layout.Chain{{Base: layout.Address(at), Units: []layout.UnitID{8, 7}}}},
	}
	return l
}

func (r *rig) stream(stream grpc.ClientStreamingClient[pb.ReconcileRequest, pb.ReconcileReply], err error, h *pb.ReconcileHeader, entries ...*pb.Entry) error {
	r.t.Helper()
	must(r.t, err)
	_ = stream.Send(&pb.ReconcileRequest{Header: h})
	_ = stream.Send(&pb.ReconcileRequest{Entries: entries})
	_, err = stream.CloseAndRecv()
	return err
}

// TestR17UnitThatJoinedTakesOlderEntriesWhileItServes: in its own epoch, where it serves nothing, and nobody sees them before an epoch
// that maps them is reconciled. A hole among them is no damage then.
func TestR17UnitThatJoinedTakesOlderEntriesWhileItServes(t *testing.T) {
	const at = 1000
	r := newRig(t, tcp.Options{})
	_, err := r.seal(2, 1)
	must(t, err)
	s, err := r.ctl.Reconcile(t.Context())
	must(t, r.stream(s, err, &pb.ReconcileHeader{Layout: pbconv.Layout(joinedLayout(2, at)), Wipe: true}))
	must(t, r.activate(2))
	m := r.session(2)
	m.put(at)
	m.put(at + 1)
	page := func(a layout.Address) *pb.Entry {
		n := m.page(a, 5)
		return &pb.Entry{Address: uint64(a), State: uint32(wire.Durable), Attempt: 5, Page: append([]byte(nil), m.mem.Bytes()[:n]...)}
	}
	backfill := func(e layout.Epoch, entries ...*pb.Entry) error {
		s, err := r.ctl.Backfill(t.Context())
		whole := testLayout(e)
		return r.stream(s, err, &pb.ReconcileHeader{Layout: pbconv.Layout(whole)}, entries...)
	}
	wantCode(t, backfill(1, page(0)), codes.FailedPrecondition) // of another epoch
	wantCode(t, backfill(2, page(at)), codes.InvalidArgument)   // where it serves
	must(t, backfill(2, page(0), page(1), page(997), page(998)))
	must(t, backfill(2, page(0), page(1))) // again
	if got := r.entries(2); len(got) != 2 || got[0].Address != at {
		t.Fatalf("it lists what is not its own: %v", got)
	}
	snap, err := r.seal(3, 2)
	must(t, err)
	if snap.Watermark != at+2 || snap.End != at+2 || snap.IntactEpoch != 2 {
		t.Fatalf("snapshot: %v", snap)
	}
	wantCode(t, backfill(2, page(2)), codes.FailedPrecondition) // a seal ends it

	s, err = r.ctl.Reconcile(t.Context())
	must(t, r.stream(s, err, &pb.ReconcileHeader{Layout: pbconv.Layout(testLayout(3)), Adopts: true, SettledBelow: 999}))
	must(t, r.activate(3))
	st := r.state()
	if st.Watermark != 999 || st.End != at+2 {
		t.Fatalf("state: %v", st)
	}
	snap, err = r.seal(4, 3)
	must(t, err)
	var got []uint64
	for _, e := range r.entries(4) {
		if wire.State(e.State) == wire.Durable {
			got = append(got, e.Address)
		}
	}
	want := []uint64{0, 1, 997, 998, at, at + 1}
	if snap.Watermark != 999 || len(got) != len(want) {
		t.Fatalf("entries %v, want %v; %v", got, want, snap)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entries %v, want %v", got, want)
		}
	}
}

// TestR17CopiesAreRememberedAndLeftoversForgotten: how far a range is copied outlives a restart, and ends with the wipe or the hand-over; what a
// hand-over that came to nothing brought above that is forgotten by the next, since no member may have it.
func TestR17CopiesAreRememberedAndLeftoversForgotten(t *testing.T) {
	const at = 1000
	r := newRig(t, tcp.Options{})
	_, err := r.seal(2, 1)
	must(t, err)
	s, err := r.ctl.Reconcile(t.Context())
	must(t, r.stream(s, err, &pb.ReconcileHeader{Layout: pbconv.Layout(joinedLayout(2, at)), Wipe: true}))
	must(t, r.activate(2))
	m := r.session(2)
	m.put(at)
	page := func(a layout.Address) *pb.Entry {
		n := m.page(a, 5)
		return &pb.Entry{Address: uint64(a), State: uint32(wire.Durable), Attempt: 5, Page: append([]byte(nil), m.mem.Bytes()[:n]...)}
	}
	copied := func(below uint64) []*pb.CopiedRange {
		return []*pb.CopiedRange{{From: 0, To: at, Below: below, Since: 2}}
	}
	s, err = r.ctl.Backfill(t.Context())
	must(t, r.stream(s, err, &pb.ReconcileHeader{Layout: pbconv.Layout(testLayout(2)), Copied: copied(998)}, page(0), page(1)))
	if got := r.state().Copied; len(got) != 1 || got[0].Below != 998 || got[0].Since != 2 || got[0].To != at {
		t.Fatalf("remembered: %v", got)
	}
	if since := r.state().TrimsSince; since != 2 {
		t.Errorf("it knows of trims since %d", since)
	}
	adopt := func(e layout.Epoch, entries ...*pb.Entry) {
		t.Helper()
		_, err := r.seal(e, 2)
		must(t, err)
		s, err := r.ctl.Reconcile(t.Context())
		must(t, r.stream(s, err, &pb.ReconcileHeader{Layout: pbconv.Layout(testLayout(e)), Adopts: true, SettledBelow: 998, Copied: copied(998)}, entries...))
	}
	adopt(3, page(999)) // a member had it, which is gone with that epoch
	if got := r.state().Copied; len(got) != 0 {
		t.Errorf("remembered after the hand-over: %v", got)
	}
	adopt(4)
	must(t, r.activate(4))
	_, err = r.seal(5, 4)
	must(t, err)
	var held []uint64
	for _, e := range r.entries(5) {
		if wire.State(e.State) == wire.Durable {
			held = append(held, e.Address)
		}
	}
	if len(held) != 3 || held[0] != 0 || held[1] != 1 || held[2] != at {
		t.Errorf("it holds %v, want 0, 1 and %d", held, at)
	}
}
