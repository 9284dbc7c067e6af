package unit

import (
	"reflect"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// R3, R6: batches end in any order; each makes durable what it holds and nothing else, and a session's slots
// are free only when all that arrived before its end is on flash, also what is in a batch that ends late.
func TestR6BatchesEndInAnyOrder(t *testing.T) {
	b := newBench(t)
	b.u.SetSession(sliceOf(1), 5)
	var flying []*Batch
	for a := range layout.Address(MaxInFlight) {
		b.stage(8, a, wire.Attempt(a)+1)
		b.cas(a, written(a, 8, 1))
		b.u.Doorbell(7, a)
		flying = append(flying, b.u.NextBatch())
	}
	b.publish(MaxInFlight)
	b.u.Doorbell(7, MaxInFlight)
	if b.u.NextBatch() != nil || b.u.View().Waiting != MaxInFlight+1 {
		t.Fatalf("more than %d batches in flight, or waiting is %d", MaxInFlight, b.u.View().Waiting)
	}
	b.u.EndSession(sliceOf(1))
	for i := MaxInFlight - 1; i >= 0; i-- {
		b.wantState(layout.Address(i), wire.Written)
		b.write(flying[i])
		b.u.Flushed(flying[i])
		b.wantState(layout.Address(i), wire.Durable)
		if b.take(); len(b.freed) != 0 {
			t.Fatalf("free with batch %d in flight and an address waiting", i)
		}
	}
	if w := b.u.View().Watermark; w != MaxInFlight {
		t.Fatalf("watermark %d", w)
	}
	b.flush()
	if len(b.freed) != 1 {
		t.Fatalf("freed %v", b.freed)
	}
}

// What failed is tried again; the rest of its batch is durable.
func TestFailedRecordAlone(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(3) {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	x := b.u.NextBatch()
	x.Records[1].Failed = true
	b.write(x)
	b.u.Flushed(x)
	b.wantState(0, wire.Durable)
	b.wantState(1, wire.Written)
	b.wantState(2, wire.Durable)
	b.flush()
	b.wantState(1, wire.Durable)
}

// What flash refuses holds up nothing else: what comes later goes at once, and after Retry what was refused goes in a batch of its own.
func TestRefusedPagesHoldUpNothingElse(t *testing.T) {
	b := newBench(t)
	put := func(a layout.Address) {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	put(0)
	x := b.u.NextBatch()
	x.Records[0].Failed = true
	b.u.Flushed(x)
	put(1)
	x = b.u.NextBatch()
	if x == nil || len(x.Records) != 1 || x.Records[0].Address != 1 {
		t.Fatalf("beside what was refused goes %+v, want the page at 1", x)
	}
	b.write(x)
	b.u.Flushed(x)
	b.wantState(0, wire.Written)
	b.wantState(1, wire.Durable)
	if v := b.u.View(); v.Waiting != 1 || v.Queued != 0 || !v.Held || !b.u.Busy() {
		t.Errorf("the view shows %d waiting, %d queued, held %v", v.Waiting, v.Queued, v.Held)
	}
	b.u.Retry()
	put(2)
	first, second := b.u.NextBatch(), b.u.NextBatch()
	if len(first.Records) != 1 || first.Records[0].Address != 2 || len(second.Records) != 1 || second.Records[0].Address != 0 {
		t.Fatalf("batches of %+v and %+v, want the page at 2, then that at 0", first.Records, second.Records)
	}
	second.Records[0].Failed = true
	b.u.Flushed(second)
	b.write(first)
	b.u.Flushed(first)
	b.u.Retry()
	x = b.u.NextBatch()
	if x.Records[0].Address != 0 || b.u.NextBatch() != nil {
		t.Error("what was refused twice is not tried again, once")
	}
	b.write(x)
	b.u.Flushed(x)
	b.wantState(0, wire.Durable)
}

// Pages that were refused together, since they were written together, are not refused together for ever.
func TestRefusedPagesAreTriedApart(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(6) {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	x := b.u.NextBatch()
	for i := range x.Records {
		x.Records[i].Failed = true
	}
	b.u.Flushed(x)
	var tried [][]layout.Address
	b.u.Retry()
	for x := b.u.NextBatch(); x != nil; x = b.u.NextBatch() {
		if b.u.NextBatch() != nil {
			t.Fatal("two batches of what was refused are on their way")
		}
		var addrs []layout.Address
		for i := range x.Records {
			addrs = append(addrs, x.Records[i].Address)
			x.Records[i].Failed = slices.ContainsFunc(x.Records, func(r Record) bool { return r.Address == 1 }) // with its neighbours
		}
		tried = append(tried, addrs)
		b.write(x)
		b.u.Flushed(x)
	}
	if want := [][]layout.Address{{0}, {1, 2}, {3}, {4, 5}}; !reflect.DeepEqual(tried, want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
	b.u.Retry()
	x = b.u.NextBatch()
	x.Records[0].Failed = x.Records[0].Address == 1
	b.u.Flushed(x)
	b.flush()
	for a := range layout.Address(6) {
		b.wantState(a, wire.Durable)
	}
}

// R3: a trim is told, and its word TRIMMED, once its mark is on flash and not before; what failed is tried again, alone. Trims
// that come together go together, one batch of them at a time, and no page waits for them.
func TestR3TrimsGoTogetherAndByThemselves(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(4) {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	b.flush()
	for a := range layout.Address(3) {
		b.u.Trim(7, wire.RequestID(a+1), a)
	}
	b.publish(4)
	b.u.Doorbell(1, 4)
	trims, pages := b.u.NextBatch(), b.u.NextBatch()
	if len(trims.Records) != 0 || len(trims.Trims) != 3 || len(pages.Records) != 1 || len(pages.Trims) != 0 {
		t.Fatalf("batches of %d+%d and %d+%d", len(trims.Records), len(trims.Trims), len(pages.Records), len(pages.Trims))
	}
	b.u.Trim(7, 4, 3)
	if b.u.NextBatch() != nil {
		t.Fatal("two batches of trims in flight")
	}
	b.take()
	if len(b.replies) != 0 || b.word(0).State() != wire.Durable {
		t.Fatalf("told before its mark is on flash: %v %v", b.replies, b.word(0))
	}
	trims.Trims[1].Failed = true
	b.write(trims)
	b.u.Flushed(trims)
	b.take()
	told := func(r wire.RequestID) Reply { return Reply{7, wire.Reply{Request: r, State: wire.Trimmed}} }
	if !slices.Equal(b.replies, []Reply{told(1), told(3)}) || b.word(1).State() != wire.Durable {
		t.Fatalf("replies %v, word of 1 %v", b.replies, b.word(1))
	}
	b.flush()
	if !slices.Equal(b.replies, []Reply{told(1), told(3), told(4), told(2)}) {
		t.Fatalf("replies %v", b.replies)
	}
	for a := range layout.Address(4) {
		b.wantState(a, wire.Trimmed)
	}
}

// No word is EMPTY at an address for which flash has no room, before and after a restart; entries stay, and
// the window goes on once there is room.
func TestLimitStallsTheWindow(t *testing.T) {
	b := newBench(t)
	b.u.SetLimit(80)
	a := layout.Address(0)
	for ; b.word(a).State() == wire.Empty && b.word(a).Generation() == testGeo.Generation(a); a++ {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	if v := b.u.View(); a != 80 || v.Base != 16 || !v.AtLimit {
		t.Fatalf("took %d pages, view %+v", a, v)
	}
	// A disk that makes room slowly is not full.
	for _, c := range []struct {
		room Room
		want wire.Status
	}{{RoomGrows, wire.StatusOK}, {RoomFull, wire.StatusFull}, {RoomFails, wire.StatusIO}, {RoomGrows, wire.StatusOK}} {
		b.u.SetRoom(c.room)
		b.u.Output().Reset()
		b.u.MaxAddr(1, 9)
		if got := b.u.Output().Replies; len(got) != 1 || got[0].Reply != (wire.Reply{Request: 9, Status: c.want, Value: 80}) {
			t.Errorf("room %d: %+v; want %v", c.room, got, c.want)
		}
	}
	b.start()
	b.u.SetLimit(80)
	b.open(2)
	if w := b.word(80); w.Generation() != 0 {
		t.Fatalf("word of 80 is %v", w)
	}
	if v := b.u.View(); !v.AtLimit {
		t.Fatalf("view %+v", v)
	}
	b.u.SetLimit(96)
	b.wantState(94, wire.Empty)
	if v := b.u.View(); v.Base != 31 || v.AtLimit {
		t.Fatalf("view %+v", v)
	}
}

// A page that stands at another address than its own, as a disk in error gives it, is not served.
func TestMisplacedPageIsNotServed(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(3) {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	b.flush()
	b.settled = 3
	b.d[1] = b.d[2]
	delete(b.d, 0)
	b.start()
	for a, want := range []wire.State{wire.Corrupt, wire.Corrupt, wire.Durable} {
		b.wantState(layout.Address(a), want)
	}
}

// A page that the disk cannot read was something: it is CORRUPT, and not a hole to be written again. Beyond
// the last entry nothing is known to have stood there.
func TestUnreadablePageIsCorrupt(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(3) {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	b.flush()
	b.d[1], b.d[3] = nil, nil
	b.start()
	for a, want := range []wire.State{wire.Durable, wire.Corrupt, wire.Durable, wire.Empty} {
		b.wantState(layout.Address(a), want)
	}
	if v := b.u.View(); v.Watermark != 3 || v.End != 3 {
		t.Fatalf("view %+v", v)
	}
}
