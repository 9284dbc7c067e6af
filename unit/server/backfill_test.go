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

// R23: an attempt that takes over a range with a hole and comes to nothing leaves a unit that shows as many durable changes as it was noted
// with, under the note of before. It would be refused as an old copy.
func TestR23CountStandsWhereAHandOverWithAHoleCameToNothing(t *testing.T) {
	const at = 1000
	r := newRig(t, tcp.Options{})
	o := orders{n: 2, record: 22, start: r.sealOver(2, layout.RecordRef{}).Start}
	order := func(o orders, h *pb.ReconcileHeader, entries ...*pb.Entry) error {
		h.Record, h.Start = uint64(o.record), uint64(o.start)
		s, err := r.ctl.Reconcile(t.Context())
		return r.stream(s, err, h, entries...)
	}
	must(t, order(o, &pb.ReconcileHeader{Layout: pbconv.Layout(joinedLayout(2, at)), Wipe: true}))
	must(t, r.activateFor(o))
	base := layout.RecordRef{Epoch: 2, ID: 22}
	m := r.session(2)
	m.put(at)
	m.put(at + 1)
	noted := r.past() // by the layout store, while the epoch is ACTIVE
	if noted.Changes < 2 || noted.Reconciled != base {
		t.Fatalf("it shows %+v", noted)
	}
	check := func(what string, s layout.StoreState) {
		t.Helper()
		if s.Reconciled == base && s.Changes < noted.Changes {
			t.Errorf("%s: %d changes under the same note, and %d were noted: an honest unit would be called stale", what, s.Changes, noted.Changes)
		}
	}
	adopt := func(n layout.Epoch) *pb.ReconcileHeader {
		return &pb.ReconcileHeader{Layout: pbconv.Layout(testLayout(n)), Adopts: true, SettledBelow: 990, Copied: []*pb.CopiedRange{{From: 0, To: at, Below: 990, Since: 2}}}
	}
	x := r.sealOver(3, base)
	check("sealed", x)
	// What the unit refuses stands for whatever ends an attempt.
	if err := order(orders{n: 3, record: 33, start: x.Start}, adopt(3), m.entry(992), m.entry(5)); err == nil {
		t.Fatal("entries out of order were taken")
	}
	check("half reconciled", r.past())
	for i, again := range []func(){func() {}, r.crash, r.restart} {
		again()
		x := r.sealOver(layout.Epoch(4+2*i), base)
		check("sealed again", x)
		// And one that does not take the range over.
		if err := order(orders{n: layout.Epoch(4 + 2*i), record: 44, start: x.Start}, &pb.ReconcileHeader{Layout: pbconv.Layout(joinedLayout(layout.Epoch(4+2*i), at))}, m.entry(at+1), m.entry(at)); err == nil {
			t.Fatal("entries out of order were taken")
		}
		check("half reconciled, without the range", r.past())
		x = r.sealOver(layout.Epoch(5+2*i), base)
		check("sealed after that", x)
		if err := order(orders{n: layout.Epoch(5 + 2*i), record: 55, start: x.Start}, adopt(layout.Epoch(5+2*i)), m.entry(992), m.entry(5)); err == nil {
			t.Fatal("entries out of order were taken")
		}
		check("half reconciled again", r.past())
	}
	r.crash()
	check("after a crash", r.past())
}
