package server_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma/tcp"
)

// past returns what the unit says of its store.
func (r *rig) past() layout.StoreState {
	r.t.Helper()
	return pbconv.ToStoreState(r.state().StoreState)
}

// orders are what a reconfigurer sends to the unit that it sealed at n.
type orders struct {
	n      layout.Epoch
	record layout.RecordID
	start  layout.StartID
	wipe   bool
}

// begin opens a stream of entries; end ends it.
func (r *rig) begin(ctx context.Context, o orders, entries ...*pb.Entry) (end func() error) {
	r.t.Helper()
	stream, err := r.ctl.Reconcile(ctx)
	must(r.t, err)
	must(r.t, stream.Send(&pb.ReconcileRequest{Entries: entries, Header: &pb.ReconcileHeader{Layout: pbconv.Layout(testLayout(o.n)), Wipe: o.wipe,
		Record: uint64(o.record), Start: uint64(o.start)}}))
	return func() error {
		_, err := stream.CloseAndRecv()
		return err
	}
}

func (r *rig) reconcileFor(o orders, entries ...*pb.Entry) error {
	r.t.Helper()
	return r.begin(r.t.Context(), o, entries...)()
}

func (r *rig) activateFor(o orders) error {
	_, err := r.ctl.Activate(r.t.Context(), &pb.ActivateRequest{Epoch: uint64(o.n), Record: uint64(o.record), Start: uint64(o.start)})
	return err
}

// sealOver seals at n, with the record of the base.
func (r *rig) sealOver(n layout.Epoch, base layout.RecordRef) layout.StoreState {
	r.t.Helper()
	a, err := r.ctl.Seal(r.t.Context(), &pb.SealRequest{Log: logID[:], Epoch: uint64(n), Base: uint64(base.Epoch), BaseId: uint64(base.ID)})
	must(r.t, err)
	return pbconv.ToStoreState(a.Store)
}

// opened takes the unit to epoch n of the record.
func (r *rig) opened(n layout.Epoch, id layout.RecordID, base layout.RecordRef, wipe bool) layout.RecordRef {
	r.t.Helper()
	o := orders{n: n, record: id, start: r.sealOver(n, base).Start, wipe: wipe}
	must(r.t, r.reconcileFor(o))
	must(r.t, r.activateFor(o))
	return layout.RecordRef{Epoch: n, ID: id}
}

// TestR21UnitShowsItsStore: State and the answer to a seal name the store, the same one after any
// restart, and another one in another directory.
func TestR21UnitShowsItsStore(t *testing.T) {
	r := newRig(t, tcp.Options{})
	was := r.past().Store
	if was.IsZero() {
		t.Fatal("a unit shows no store")
	}
	r.opened(1, 11, layout.RecordRef{}, true) // what is wiped is the same store still
	for _, again := range []func(){r.restart, r.crash} {
		again()
		if got, sealed := r.past().Store, r.sealOver(r.epochAbove(), layout.RecordRef{Epoch: 1, ID: 11}).Store; got != was || sealed != was {
			t.Errorf("State shows store %v, the seal %v; want %v", got, sealed, was)
		}
	}
	r.stop()
	r.cfg.Dir = directory(t)
	r.start()
	if got := r.past().Store; got == was || got.IsZero() {
		t.Errorf("an empty directory shows store %v; want one that is not %v", got, was)
	}
}

// epochAbove is an epoch that the unit has not promised.
func (r *rig) epochAbove() layout.Epoch { return layout.Epoch(r.state().Promise) + 1 }

// TestR22NoteIsDurableBeforeTheConfirmation: the note stands once all of the epoch is durable, and
// before anybody is told.
func TestR22NoteIsDurableBeforeTheConfirmation(t *testing.T) {
	r, m, x := repairRig(t, 3)
	first := r.opened(2, 22, layout.RecordRef{Epoch: 1}, false)
	if got := r.past().Reconciled; got != first {
		t.Fatalf("reconciled for %v; want %v", got, first)
	}
	gate := make(chan struct{})
	x.gate.Store(&gate)
	o := orders{n: 3, record: 33, start: r.sealOver(3, first).Start}
	end := r.begin(t.Context(), o, m.entry(3))
	done := make(chan error, 1)
	go func() { done <- end() }()
	eventually(t, "the page on its way to flash", func() bool { return x.writing.Load() > 0 })
	if got := r.past().Reconciled; got != first {
		t.Errorf("reconciled for %v while a page is not durable; want %v", got, first)
	}
	x.gate.Store(nil)
	close(gate)
	must(t, <-done)
	want := layout.RecordRef{Epoch: 3, ID: 33}
	r.crash()
	if got := r.past().Reconciled; got != want {
		t.Errorf("reconciled for %v after a crash behind the confirmation; want %v", got, want)
	}
	// The epoch comes to nothing. The note stays, and so it does in a seal that follows.
	if got := r.sealOver(4, first).Reconciled; got != want {
		t.Errorf("sealed again it says %v; want %v", got, want)
	}
}

// TestR22WipeForgetsTheNote: what was wiped is reconciled for nothing, even if nothing follows.
func TestR22WipeForgetsTheNote(t *testing.T) {
	r := newRig(t, tcp.Options{})
	first := r.opened(1, 11, layout.RecordRef{}, true)
	r.session(1).put(0)
	ctx, cancel := context.WithCancel(t.Context())
	_ = r.begin(ctx, orders{n: 2, record: 22, start: r.sealOver(2, first).Start, wipe: true})
	eventually(t, "the wipe", func() bool { return r.past().Reconciled.IsZero() })
	cancel()
	r.sealOver(3, first) // waits for the end of the wipe, which forgets the note before the entries
	r.crash()
	if got := r.past(); !got.Reconciled.IsZero() || got.Entries {
		t.Errorf("after a wipe and a crash: %+v; want no note, and no entries", got)
	}
}

// TestR22AnotherRecordIsNotOpened: the unit opens the record for which it was reconciled, not
// another one of that number.
func TestR22AnotherRecordIsNotOpened(t *testing.T) {
	r := newRig(t, tcp.Options{})
	o := orders{n: 1, record: 11, start: r.sealOver(1, layout.RecordRef{}).Start, wipe: true}
	must(t, r.reconcileFor(o))
	other := o
	other.record = 12
	wantCode(t, r.activateFor(other), codes.FailedPrecondition)
	if got := r.past().Active; !got.IsZero() {
		t.Errorf("it knows %v as active; want none", got)
	}
	must(t, r.activateFor(o))
}

// TestR23CountNeverGoesDown: however an honest unit ends, and whatever it was doing, it shows as
// many durable changes as before.
func TestR23CountNeverGoesDown(t *testing.T) {
	r, m, _ := repairRig(t, 40)
	ref := r.opened(2, 22, layout.RecordRef{Epoch: 1}, false)
	epoch := layout.Epoch(2)
	m = r.session(epoch)
	most := uint64(0)
	check := func(what string, least uint64) {
		t.Helper()
		eventually(t, "State after "+what, func() bool { return r.past().Changes >= least }) // trims are noted once a second
		got := r.past().Changes
		if got < most {
			t.Errorf("%s: %d changes; there were %d", what, got, most)
		}
		most = max(most, got)
		for how, again := range map[string]func(){"stopped": r.restart, "crashed": r.crash} {
			again()
			if got := r.past().Changes; got < most {
				t.Errorf("%s, and then %s: %d changes; there were %d", what, how, got, most)
			}
			o := orders{n: r.epochAbove(), record: 1}
			x := r.sealOver(o.n, ref)
			if x.Changes < most {
				t.Errorf("%s, %s and sealed: %d changes; there were %d", what, how, x.Changes, most)
			}
			o.start = x.Start
			must(t, r.reconcileFor(o))
			must(t, r.activateFor(o))
			epoch = o.n
		}
		m = r.session(epoch)
	}
	trim := func(a layout.Address, prefix bool) {
		t.Helper()
		m.send(m.read, wire.Trim{Request: 1, Prefix: prefix, Address: a}.Append(nil))
		if got := m.reply(1); got.State != wire.Trimmed && got.Status != wire.StatusOK {
			t.Fatalf("trim of %d: %+v", a, got)
		}
	}
	check("40 entries", 40)
	m.put(45)
	m.put(47)
	check("two above a hole", 42)
	trim(7, false)
	check("a single trim", 43)
	trim(45, false)
	check("a single trim above the hole", 44)
	trim(20, true)
	check("a trim of the prefix", most+20)
	r.spoil(30)
	if s := r.scrub(1 << 30); s.Corrupt != 1 {
		t.Fatalf("scrub: %+v; want one corrupt page", s)
	}
	check("a corrupt page that was found", most)
	// An attempt that came to nothing while the unit was reconciled: nothing of what it had is
	// gone.
	ctx, cancel := context.WithCancel(t.Context())
	_ = r.begin(ctx, orders{n: epoch + 1, start: r.sealOver(epoch+1, ref).Start}, m.entry(40))
	eventually(t, "the stream is taken", func() bool { return r.state().End == 0 }) // the window is older than flash
	cancel()
	if got := r.past(); got.Changes < most || !got.Entries {
		t.Errorf("half reconciled: %+v; there were %d changes", got, most)
	}
	check("a reconciliation that was given up", most)
}

// TestR24OrdersNameTheStart: each start draws another number, and refuses orders for the one
// before.
func TestR24OrdersNameTheStart(t *testing.T) {
	r := newRig(t, tcp.Options{})
	first := r.opened(1, 11, layout.RecordRef{}, true)
	r.session(1).put(0)
	was := r.sealOver(2, first)
	if was.Start == 0 || was.Start != r.past().Start {
		t.Fatalf("sealed in start %016x, State shows %016x", uint64(was.Start), uint64(r.past().Start))
	}
	r.restart()
	now := r.sealOver(3, first)
	if now.Start == was.Start || now.Store != was.Store {
		t.Fatalf("sealed in start %016x of store %v; want another start than %016x of the same store", uint64(now.Start), now.Store, uint64(was.Start))
	}
	late := orders{n: 3, record: 33, start: was.Start, wipe: true}
	wantCode(t, r.reconcileFor(late), codes.FailedPrecondition)
	if got := r.past(); !got.Entries || got.Reconciled != first {
		t.Errorf("after an order for another start: %+v; want entries, and the note of %v", got, first)
	}
	o := orders{n: 3, record: 33, start: now.Start}
	must(t, r.reconcileFor(o))
	late.wipe = false
	wantCode(t, r.activateFor(late), codes.FailedPrecondition)
	if got := r.state().State; got != "sealed" {
		t.Errorf("it is %s after an order for another start; want sealed", got)
	}
	must(t, r.activateFor(o))
}

// TestR25UnitKnowsWhatWasActive: it learns of active records by its own activation and from seals,
// durably, and forgets no newer one.
func TestR25UnitKnowsWhatWasActive(t *testing.T) {
	r := newRig(t, tcp.Options{})
	want := func(what string, ref layout.RecordRef) {
		t.Helper()
		for range 2 {
			if got := r.past().Active; got != ref {
				t.Errorf("%s: it knows %v as active; want %v", what, got, ref)
			}
			r.crash()
		}
	}
	want("as new", layout.RecordRef{})
	first := r.opened(1, 11, layout.RecordRef{}, true)
	want("opened", first)
	newer := layout.RecordRef{Epoch: 4, ID: 44}
	r.sealOver(5, newer)
	want("sealed over a newer one", newer)
	r.sealOver(6, first)
	want("sealed over an older one", newer)
	o := orders{n: 7, record: 77, start: r.sealOver(7, newer).Start}
	must(t, r.reconcileFor(o))
	want("reconciled, and not opened", newer)
}

// TestR26AttemptToFoundLeavesTheUnitBlank: what was sealed, and what was begun to be reconciled for
// the first epoch, holds nothing and knows nothing.
func TestR26AttemptToFoundLeavesTheUnitBlank(t *testing.T) {
	r := newRig(t, tcp.Options{})
	o := orders{n: 1, record: 11, start: r.sealOver(1, layout.RecordRef{}).Start, wipe: true}
	if got := r.past(); !got.Blank() {
		t.Errorf("sealed: %+v; want blank", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_ = r.begin(ctx, o)
	eventually(t, "the order", r.toldLayout)
	cancel()
	for range 2 {
		if got := r.past(); !got.Blank() {
			t.Errorf("an attempt to found a log that came to nothing: %+v; want blank", got)
		}
		r.crash()
	}
}

// toldLayout reports whether the unit was told a layout.
func (r *rig) toldLayout() bool {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.cfg.Dir, "meta"))
	must(r.t, err)
	return bytes.Contains(b, []byte(`"Layout"`))
}

// TestR25ClientIDsAreNotedAhead: no id above the one that the unit shows has had a session there,
// after a crash as well.
func TestR25ClientIDsAreNotedAhead(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.opened(1, 11, layout.RecordRef{}, true)
	for _, id := range []uint32{1, 5, 1500, 3, 1 << 30} {
		_, err := r.ctl.OpenSession(t.Context(), &pb.OpenSessionRequest{Log: logID[:], Epoch: 1, Client: id})
		if id <= 1500 {
			must(t, err)
		}
	}
	got := r.past().Client
	if got < 1500 || got >= 1<<30 {
		t.Errorf("no client above %d; want one that covers 1500, and none that was made up", got)
	}
	r.crash()
	if now := r.past().Client; now != got {
		t.Errorf("no client above %d after a crash; it was %d", now, got)
	}
}
