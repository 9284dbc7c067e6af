package server_test

import (
	"context"
	"errors"
	"testing"

	"corfu/internal/control"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma/tcp"
)

func (r *rig) known(asker uint64) *pb.KnownReply {
	r.t.Helper()
	k, err := r.ctl.Known(r.t.Context(), &pb.KnownRequest{Asker: asker})
	must(r.t, err)
	return k
}

// epochOf is that of a layout; 0: there is none.
func epochOf(l *pb.Layout) layout.Epoch { return layout.Epoch(l.GetEpoch()) }

// TestR25UnitKeepsTheActiveLayoutWhileANewerOneComesToNothing: a layout store that was lost is
// built from it, whatever was attempted since, and after a restart.
func TestR25UnitKeepsTheActiveLayoutWhileANewerOneComesToNothing(t *testing.T) {
	r := newRig(t, tcp.Options{})
	check := func(when string, active, last, promise layout.Epoch) {
		t.Helper()
		for _, restarted := range []bool{false, true} {
			k := r.known(0)
			if epochOf(k.ActiveLayout) != active || epochOf(k.Layout) != last || layout.Epoch(k.Promise) != promise || k.Id != 7 {
				t.Errorf("%s, restarted %v: the active layout is of epoch %d, the last of %d, promise %d; want %d, %d, %d", when, restarted,
					epochOf(k.ActiveLayout), epochOf(k.Layout), k.Promise, active, last, promise)
			}
			if active != 0 && pbconv.ToRecordRef(k.State.Active).Epoch != active {
				t.Errorf("%s: active record %v", when, k.State.Active)
			}
			if !restarted {
				r.restart()
			}
		}
	}
	check("blank", 0, 0, 0)
	r.open(1, true)
	check("open in 1", 1, 1, 1)
	for n := layout.Epoch(2); n < 5; n++ { // none is opened
		_, err := r.seal(n, 1)
		must(t, err)
		must(t, r.reconcile(n, false))
		check("reconciled and not opened", 1, n, n)
	}
	_, err := r.seal(5, 1)
	must(t, err)
	must(t, r.reconcile(5, false))
	must(t, r.activate(5))
	check("open in 5", 5, 5, 5)
	_, err = r.seal(6, 5)
	must(t, err)
	must(t, r.reconcile(6, false))
	_, err = r.seal(7, 6) // it missed that 6 was active, and hears of it now
	must(t, err)
	check("missed the activation of 6", 6, 6, 7)
	_, err = r.seal(8, 6)
	must(t, err)
	must(t, r.reconcile(8, false))
	check("reconciled for 8", 6, 8, 8)
	_, err = r.seal(10, 9) // others made 9 without it
	must(t, err)
	k := r.known(0)
	if k.ActiveLayout != nil || pbconv.ToRecordRef(k.State.Active).Epoch != 9 {
		t.Errorf("it knows the layout of epoch %d, and %v was active", epochOf(k.ActiveLayout), k.State.Active)
	}
}

// TestUnitTellsALayoutServerOfAnother: one that lost its store decides nothing while another one
// leads.
func TestUnitTellsALayoutServerOfAnother(t *testing.T) {
	r := newRig(t, tcp.Options{})
	if o := r.known(1).Other; o != nil {
		t.Errorf("the first that asks hears of %v", o)
	}
	if o := r.known(1).Other; o != nil {
		t.Errorf("asking again it hears of %v", o)
	}
	if o := r.known(0).Other; o.GetAgoMs() == 0 || o.From != "127.0.0.1" {
		t.Errorf("one that leads nothing hears of %v", o)
	}
	s, err := r.ctl.State(t.Context(), &pb.UnitStateRequest{Asker: 2})
	must(t, err)
	if s.Other.GetAgoMs() == 0 {
		t.Error("the second does not hear of the first")
	}
	if o := r.known(1).Other; o.GetAgoMs() == 0 {
		t.Error("the first does not hear of the second")
	}
	if o := r.known(3).Other; o.GetAgoMs() == 0 || o.AgoMs > 60_000 {
		t.Errorf("the third hears of %v", o)
	}
}

// TestStopIsAnnounced to a layout server that leads, and to nobody else; the unit serves meanwhile. Where nobody asks nobody is waited for.
func TestStopIsAnnounced(t *testing.T) {
	r := newRig(t, tcp.Options{})
	state := func(asker uint64) *pb.UnitStateReply {
		t.Helper()
		s, err := r.ctl.State(t.Context(), &pb.UnitStateRequest{Asker: asker})
		must(t, err)
		return s
	}
	if err := r.unit.AnnounceStop(t.Context()); !errors.Is(err, control.ErrNoLeader) {
		t.Errorf("nobody asked: %v", err)
	}
	if !state(7).Stopping {
		t.Error("the leader that asks later does not hear of it")
	}
	ended := make(chan error, 1)
	go func() { ended <- r.unit.AnnounceStop(t.Context()) }()
	if s := state(0); s.Stopping {
		t.Error("one that leads nothing hears that the unit stops")
	}
	for open := true; open; {
		select {
		case err := <-ended:
			must(t, err)
			open = false
		default:
			if s := state(7); !s.Stopping || s.State == "" {
				t.Errorf("the leader hears %v", s)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.unit.AnnounceStop(ctx); !errors.Is(err, control.ErrNoLeader) {
		t.Errorf("the leader is gone: %v", err)
	}
}

// TestUnitKnowsTheClientsOfItsPages: a client opens its sessions by an id that it drew, and appends
// by one that the layout store handed out. After that store was lost, only the pages show it.
func TestUnitKnowsTheClientsOfItsPages(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	defer m.close()
	_, _, err := m.write(0, wire.MakeAttempt(70_000, 1), true)
	must(t, err)
	m.ack(0)
	if got := r.known(0).State.Client; got < 70_000 || got > 72_000 {
		t.Errorf("the highest client id is %d, want 70000 or a little more", got)
	}
	_, _, err = m.write(1, wire.MakeAttempt(layout.MaxClient+5, 1), true) // drawn
	must(t, err)
	m.ack(1)
	if got := r.known(0).State.Client; got > 72_000 {
		t.Errorf("the highest client id is %d: it was drawn by a client", got)
	}
}
