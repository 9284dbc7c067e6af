package server_test

import (
	"os"
	"testing"

	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/tcp"
)

var connOptions = rdma.ConnOptions{}

// R3: what was acknowledged is there after a restart.
func TestR3AcknowledgedSurvivesRestart(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	for a := range layout.Address(100) {
		m.put(a)
	}
	r.restart()
	snap := r.open(2, false)
	if snap.Watermark != 100 || snap.End != 100 {
		t.Fatalf("snapshot: %v", snap)
	}
	m = r.session(2)
	for i, a := range []layout.Address{0, 50, 99} {
		_, page := m.cold(wire.RequestID(i), a)
		verify(t, page, a)
	}
	m.put(100)
}

// R14, R19: the promise is durable, and only what is above it is sealed.
func TestR14PromiseSurvivesRestart(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(3, true)
	for range 2 { // the same again is the same answer, but not once it is open
		if _, err := r.seal(5, 3); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.seal(4, 3)
	wantCode(t, err, codes.FailedPrecondition)
	r.restart()
	_, err = r.seal(5, 3)
	wantCode(t, err, codes.FailedPrecondition)
	wantCode(t, r.activate(5), codes.FailedPrecondition)
	_, err = r.seal(6, 3)
	must(t, err)
	other := layout.LogID{9}
	_, err = r.ctl.Seal(t.Context(), &pb.SealRequest{Log: other[:], Epoch: 9})
	wantCode(t, err, codes.FailedPrecondition)
}

// R15: after a seal no operation of an older epoch takes effect, and everything
// published before it is in the snapshot.
func TestR15SealRevokesThenAnswers(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	m.put(0)
	// Published without a doorbell: the seal finds it.
	if _, _, err := m.write(1, 77, false); err != nil {
		t.Fatal(err)
	}
	snap, err := r.seal(2, 1)
	must(t, err)
	if snap.Watermark != 2 || snap.End != 2 || snap.IntactEpoch != 1 {
		t.Fatalf("snapshot: %v", snap)
	}
	if _, _, err := m.write(2, 78, true); !isRefused(err) {
		t.Fatalf("a write after the seal: %v", err)
	}
	if _, err := r.trySession(1); err == nil {
		t.Fatal("a session in a sealed epoch")
	}
	got := r.entries(2)
	if len(got) != 2 || got[0].Attempt != uint64(wire.MakeAttempt(9, 1)) || got[1].Attempt != 77 || got[1].State != uint32(wire.Durable) {
		t.Fatalf("entries: %v", got)
	}
	verify(t, append(got[1].Page, make([]byte, 4096)...), 1)
}

// R15: where the device hands out the same key again, a writer of an older epoch is refused by
// value, with the address and key that it always had, and nothing that it wrote is visible.
func TestR15StaleWriterRefusedByValueWhereKeysAreReused(t *testing.T) {
	r := newRig(t, tcp.Options{ReuseKeys: true})
	r.open(1, true)
	stale := r.session(1)
	stale.put(0)
	stale.close()
	eventually(t, "the end of the session", func() bool { return r.state().Sessions == 0 })
	r.open(2, false)
	m := r.session(2)
	index := m.s.Index
	if index.Key != stale.s.Index.Key || index.Addr != stale.s.Index.Addr {
		t.Fatalf("the index is at %v, was at %v: the test shows nothing", index, stale.s.Index)
	}
	// The stale writer has a connection that works; all else that it knows is old.
	m.s.Index, m.epoch = stale.s.Index, 1
	_, old, err := m.write(1, 66, true)
	must(t, err)
	if old != wire.EmptyWord(0, 2) {
		t.Fatalf("the stale CAS found %v", old)
	}
	m.s.Index, m.epoch = index, 2
	if w := m.look(1); w != wire.EmptyWord(0, 2) {
		t.Fatalf("the word is %v", w)
	}
	if reply, _ := m.cold(1, 1); reply.Status != wire.StatusTooNew {
		t.Fatalf("cold read: %+v", reply)
	}
	m.put(1)
	snap, err := r.seal(3, 2)
	must(t, err)
	if got := r.entries(3); len(got) != 2 || got[1].Attempt != uint64(wire.MakeAttempt(9, 2)) || snap.End != 2 {
		t.Fatalf("entries: %v", got)
	}
}

// R17: what the unit lacks is put in place and durable before the answer; what it has stays; a
// different entry is refused.
func TestR17Reconcile(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	m.put(0)
	m.put(2)
	page := func(a layout.Address, attempt wire.Attempt) *pb.Entry {
		n := m.page(a, attempt)
		return &pb.Entry{Address: uint64(a), State: uint32(wire.Durable), Attempt: uint64(attempt), Page: append([]byte(nil), m.mem.Bytes()[:n]...)}
	}
	snap, err := r.seal(2, 1)
	must(t, err)
	if snap.Watermark != 1 || snap.End != 3 {
		t.Fatalf("snapshot: %v", snap)
	}
	wantCode(t, r.reconcile(2, false, page(2, 5)), codes.DataLoss)
	wantCode(t, r.activate(2), codes.FailedPrecondition) // R18
	junk := &pb.Entry{Address: 3, State: uint32(wire.DurableJunk)}
	must(t, r.reconcile(2, false, page(0, wire.MakeAttempt(9, 1)), page(1, 5), junk))
	r.restart() // without a word: only what was durable counts
	snap, err = r.seal(3, 1)
	must(t, err)
	if snap.Watermark != 4 || snap.End != 4 {
		t.Fatalf("snapshot: %v", snap)
	}
	got := r.entries(3)
	want := []wire.Attempt{wire.MakeAttempt(9, 1), 5, wire.MakeAttempt(9, 3), 0}
	for i, e := range got {
		if e.Attempt != uint64(want[i]) {
			t.Fatalf("entries: %v", got)
		}
	}
	must(t, r.reconcile(3, true))
	if got := r.entries(3); len(got) != 0 {
		t.Fatalf("entries of a wiped unit: %v", got)
	}
}

// R17: an owner that gives up half-way leaves a unit that answers the next one with what it really has.
func TestR17HalfReconciledAnswersTruly(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	m.put(0)
	m.put(1)
	var entries []*pb.Entry
	for a := layout.Address(2); a < 150; a++ {
		n := m.page(a, 5)
		entries = append(entries, &pb.Entry{Address: uint64(a), State: uint32(wire.Durable), Attempt: 5, Page: append([]byte(nil), m.mem.Bytes()[:n]...)})
	}
	_, err := r.seal(2, 1)
	must(t, err)
	// It brings many entries, and then one that is refused.
	wantCode(t, r.reconcile(2, false, append(entries, entries[0])...), codes.InvalidArgument)
	wantCode(t, r.activate(2), codes.FailedPrecondition)
	// Other members are served from the snapshot meanwhile.
	if got := r.entries(2); len(got) != 2 {
		t.Fatalf("entries while it is reconciled: %v", got)
	}
	snap, err := r.seal(3, 1)
	must(t, err)
	if got := r.entries(3); uint64(len(got)) != snap.End || snap.End <= 2 || snap.Watermark != snap.End || snap.IntactEpoch != 1 {
		t.Fatalf("snapshot %v, entries %v", snap, got)
	}
	// Wiped, and no more.
	wantCode(t, r.reconcile(3, true, &pb.Entry{Address: 9}), codes.InvalidArgument)
	snap, err = r.seal(4, 1)
	must(t, err)
	if snap.End != 0 || snap.Watermark != 0 || snap.IntactEpoch != 0 || len(r.entries(4)) != 0 {
		t.Fatalf("snapshot %v", snap)
	}
	r.restart()
	snap, err = r.seal(5, 1)
	must(t, err)
	if snap.End != 0 {
		t.Fatalf("snapshot %v", snap)
	}
}

// R18: only what is sealed at n, reconciled for n and not restarted since opens n.
func TestR18Activate(t *testing.T) {
	r := newRig(t, tcp.Options{})
	wantCode(t, r.activate(1), codes.FailedPrecondition)
	_, err := r.seal(1, 0)
	must(t, err)
	wantCode(t, r.activate(1), codes.FailedPrecondition)
	must(t, r.reconcile(1, true))
	wantCode(t, r.activate(2), codes.FailedPrecondition)
	must(t, r.activate(1))
	must(t, r.activate(1))
	_, err = r.seal(2, 1)
	must(t, err)
	must(t, r.reconcile(2, false))
	r.restart()
	wantCode(t, r.activate(2), codes.FailedPrecondition)
}

// R16: a unit that was reconciled for an epoch and missed its activation is intact in it.
func TestR16IntactWithoutActivation(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	_, err := r.seal(2, 1)
	must(t, err)
	must(t, r.reconcile(2, false))
	if snap, err := r.seal(3, 2); err != nil || snap.IntactEpoch != 2 {
		t.Fatal(snap, err)
	}
	must(t, r.reconcile(3, false))
	// Epoch 3 was aborted: the base is 2 still.
	if snap, err := r.seal(4, 2); err != nil || snap.IntactEpoch != 2 {
		t.Fatal(snap, err)
	}
}

// crash goes on with a copy of the unit's directory, as a start after the process was killed would find it.
func (r *rig) crash() {
	r.t.Helper()
	var image string
	eventually(r.t, "a copy of the directory while no file comes or goes", func() bool {
		image = directory(r.t)
		return os.CopyFS(image, os.DirFS(r.cfg.Dir)) == nil
	})
	r.stop()
	r.cfg.Dir = image
	r.start()
	r.t.Cleanup(r.stop) // before the image is removed
}

// R16, R19: a clean stop loses nothing, so that the unit is intact afterwards in the epoch in which it was; after a crash it is not,
// and neither is it if the mark of the stop was read once and the unit was sealed since.
func TestR16CleanStopKeepsTheUnitIntact(t *testing.T) {
	r := newRig(t, tcp.Options{})
	sealed := func(n layout.Epoch, intact uint64, when string) {
		t.Helper()
		if snap, err := r.seal(n, 1); err != nil || snap.IntactEpoch != intact {
			t.Fatalf("%s: %v, %v; want intact in %d", when, snap, err, intact)
		}
	}
	r.open(1, true)
	r.session(1).put(0)
	r.restart()
	if got := r.state(); got.State != "closed" {
		t.Fatalf("state %v", got)
	}
	r.restart()
	sealed(2, 1, "after two clean stops")
	r.restart()
	sealed(3, 1, "stopped while it was sealed")
	r.crash()
	sealed(4, 0, "after a crash")
	r.restart()
	sealed(5, 0, "a clean stop after that")
}

// R16: a unit that could not bring everything to flash has not stopped cleanly.
func TestR16StopThatLosesSomethingIsNotClean(t *testing.T) {
	r, broken, _ := newFaultyRig(t)
	m := r.session(1)
	m.put(0)
	broken.Store(true)
	if _, _, err := m.write(1, wire.MakeAttempt(9, 2), true); err != nil {
		t.Fatal(err)
	}
	_ = r.conn.Close()
	if err := r.unit.Close(); err == nil {
		t.Fatal("closed without an error")
	}
	broken.Store(false)
	r.start()
	if snap, err := r.seal(2, 1); err != nil || snap.IntactEpoch != 0 || snap.End != 1 {
		t.Fatal(snap, err)
	}
}
