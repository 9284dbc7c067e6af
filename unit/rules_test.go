package unit

import (
	"bytes"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// R1: the window moves on by CPU stores over entries alone. plain.StoreWord watches.
func TestR1CPUStoresOverEntriesAlone(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(300) {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	if v := b.u.View(); v.Base == 0 || v.Watermark != 300 {
		t.Fatalf("view %+v", v)
	}
	// An EMPTY word is let alone whatever is asked.
	if got := b.u.Doorbell(1, 300); got != BellIgnored {
		t.Fatal(got)
	}
	b.u.Trim(1, 1, 300)
	b.flush()
	b.wantState(300, wire.Empty)
}

// R3: no word, and no ack, says durable before flash has the page.
func TestR3DurableAfterFlashAlone(t *testing.T) {
	b := newBench(t)
	b.u.SetSession(sliceOf(0), 5)
	b.publish(0)
	b.u.Doorbell(7, 0)
	b.u.Doorbell(7, 0)
	b.u.Doorbell(8, 0)
	batch := b.u.NextBatch()
	b.wantState(0, wire.Written)
	b.wantAcks()
	batch.Records[0].Failed = true
	b.u.Flushed(batch)
	b.wantState(0, wire.Written)
	b.wantAcks()
	if b.u.NextBatch() != nil || !b.u.Busy() {
		t.Fatal("what failed is tried again before Retry")
	}
	b.u.Retry()
	batch = b.u.NextBatch()
	if len(batch.Records) != 1 || batch.Records[0].Failed || b.u.NextBatch() != nil {
		t.Fatal("what failed is not tried again, once")
	}
	b.write(batch)
	b.u.Flushed(batch)
	b.wantState(0, wire.Durable)
	ack := wire.Ack{Address: 0, Use: wire.Use{Slot: 0, Count: 3}, State: wire.Durable}
	// The owner of the staging slot, who did not ring, and each who rang, once.
	b.wantAcks(Ack{5, ack}, Ack{7, ack}, Ack{8, ack})
	b.u.Doorbell(9, 0)
	b.wantAcks(Ack{9, ack})
}

// R4: a hole stalls the window, and nothing else does.
func TestR4HoleStallsTheWindow(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(64) {
		if a != 3 {
			b.publish(a)
		}
	}
	b.u.ScanAll()
	b.flush()
	if v := b.u.View(); v.Base != 3 || v.Watermark != 3 || v.End != 64 {
		t.Fatalf("view %+v", v)
	}
	// A word of the next generation is not to be had yet.
	if w := b.word(67); w != wire.EmptyWord(0, 1) {
		t.Fatalf("word of 67 is %v", w)
	}
	b.cas(3, junk(3))
	b.u.Doorbell(1, 3)
	if b.u.View().Base != 3 {
		t.Fatal("the window moved over what is not durable")
	}
	b.flush()
	if v := b.u.View(); v.Base != 15 || v.Watermark != 64 {
		t.Fatalf("view %+v", v)
	}
	b.wantState(67, wire.Empty)
}

// R5: what is flushed and served is the copy that was verified, whatever the client does to the slot.
func TestR5CopyIsVerified(t *testing.T) {
	b := newBench(t)
	b.publish(0)
	b.u.Doorbell(1, 0)
	copy(b.m.Staging(0)[wire.HeaderSize:], "later")
	b.flush()
	want := make([]byte, 4096)
	copy(want[wire.HeaderSize:], "entry")
	wire.SealPage(want, wire.Header{Flags: wire.FlagData, Length: 5, Log: testLog, Epoch: 1, Attempt: 1})
	if !bytes.Equal(b.d[0], want) || !bytes.Equal(b.m.ring[:4096], want) {
		t.Fatal("flash or ring have something else than was verified")
	}

	cases := []struct {
		name string
		make func(a layout.Address) wire.Word
	}{
		{"torn", func(a layout.Address) wire.Word { b.stage(1, a, 1); b.m.Staging(1)[66]++; return written(a, 1, 1) }},
		{"another position", func(a layout.Address) wire.Word { b.stage(1, a+1, 1); return written(a, 1, 1) }},
		{"nothing", func(a layout.Address) wire.Word { clear(b.m.Staging(1)); return written(a, 1, 1) }},
		{"no such slot", func(a layout.Address) wire.Word { return written(a, 16, 1) }},
		{"no such slot by far", func(a layout.Address) wire.Word { return written(a, wire.MaxStagingSlots-1, 1) }},
		{"no entry", func(a layout.Address) wire.Word {
			wire.SealPage(b.m.Staging(1), wire.Header{Flags: wire.FlagTrimmed, Log: testLog, Position: layout.Position(a)})
			return written(a, 1, 1)
		}},
		{"bad generation", func(a layout.Address) wire.Word { return written(a+64, 1, 1) }},
		{"a durable word", func(a layout.Address) wire.Word { return wire.MakeWord(wire.Durable, 0, 1) }},
		{"an empty word of another epoch", func(a layout.Address) wire.Word { return wire.EmptyWord(0, 9) }},
	}
	for i, c := range cases {
		a := layout.Address(i + 1)
		b.m.words[a] = c.make(a)
		b.m.registered = false // the word that a hostile client made may look EMPTY
		b.u.Doorbell(1, a)
		b.flush()
		b.m.registered = true
		if b.word(a).State() != wire.Corrupt {
			t.Errorf("%s: word is %v", c.name, b.word(a))
		}
		if s, _ := Classify(b.d[a], testLog, layout.Position(a)); s != wire.Corrupt {
			t.Errorf("%s: flash says %v", c.name, s)
		}
		b.take()
		if len(b.alarms) == 0 {
			t.Errorf("%s: no alarm", c.name)
		}
		b.alarms = nil
	}
}

// R6: a session's slots are free once all that it published is on flash, not before.
func TestR6SlotsFreeOnceFlushed(t *testing.T) {
	b := newBench(t)
	b.u.SetSession(sliceOf(1), 5)
	b.stage(8, 0, 1)
	b.cas(0, written(0, 8, 1)) // without a doorbell
	b.u.EndSession(sliceOf(1))
	b.take()
	if len(b.freed) != 0 {
		t.Fatal("free while readers may look for the page in staging")
	}
	b.flush()
	if len(b.freed) != 1 || b.freed[0] != sliceOf(1) {
		t.Fatalf("freed: %v", b.freed)
	}
	b.wantState(0, wire.Durable)
	b.wantAcks() // to nobody: the session is gone
}

// Section 5: a terminal word that a client changed is restored, and raised as an alarm.
func TestTamperingIsRestored(t *testing.T) {
	b := newBench(t)
	b.publish(0)
	b.u.Doorbell(1, 0)
	b.flush()
	good := b.word(0)
	for i, bad := range []wire.Word{wire.MakeWord(wire.DurableJunk, 0, 1), wire.EmptyWord(0, 1), junk(0)} {
		b.m.words[0] = bad
		b.m.registered = false // restoring over EMPTY is allowed: the unit knows that it holds an entry
		b.u.ScanAll()
		b.m.registered = true
		if b.word(0) != good || b.u.Stats().Tampered != uint64(i+1) {
			t.Fatalf("word is %v, tampered %d", b.word(0), b.u.Stats().Tampered)
		}
	}
	// Between ingest and flush.
	b.publish(1)
	b.u.Doorbell(1, 1)
	b.m.words[1] = written(1, 3, 3)
	b.flush()
	b.wantState(1, wire.Durable)
	if b.u.Stats().Tampered != 4 || wire.TagUse(b.word(1).Tag()).Slot != 0 {
		t.Fatal("the word does not name what was ingested")
	}
}

// The epoch word is shadowed, too: a client that changes it would have all others believe that the unit is sealed.
func TestTamperedEpochWordIsRestored(t *testing.T) {
	b := newBench(t)
	b.u.Scan()
	if n := b.u.Stats().Tampered; n != 0 || len(b.u.Output().Alarms) != 0 {
		t.Fatalf("tampered %d", n)
	}
	b.m.epoch = 77
	b.u.Scan()
	if n := b.u.Stats().Tampered; b.m.epoch != 1 || n != 1 || len(b.u.Output().Alarms) != 1 || b.u.Output().Alarms[0].What != "tampering" {
		t.Fatalf("epoch word %d, tampered %d, alarms %+v", b.m.epoch, n, b.u.Output().Alarms)
	}
	b.u.Scan()
	if n := b.u.Stats().Tampered; n != 1 {
		t.Errorf("found again: %d", n)
	}
}

// R14, R19: what is not above the promise is refused, before and after a restart.
func TestR14PromiseIsKept(t *testing.T) {
	b := newBench(t)
	b.open(5)
	_, err := b.seal(5)
	wantIs(t, err, ErrPromised)
	if _, err := b.seal(7); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same again is the same answer
		if _, err := b.seal(7); err != nil {
			t.Fatal(err)
		}
	}
	_, err = b.seal(6)
	wantIs(t, err, ErrPromised)
	b.start()
	_, err = b.seal(7)
	wantIs(t, err, ErrPromised)
	_, err = b.u.CheckSeal(layout.LogID{1}, 9)
	wantIs(t, err, ErrOtherLog)
	_, err = b.seal(8)
	b.check(err)
}

// R15: a seal does not answer while something published is not on flash.
func TestR15NoSnapshotBeforeFlash(t *testing.T) {
	b := newBench(t)
	b.publish(0)
	b.u.BeginSeal(testLog, 2, 1)
	_, err := b.u.EndSeal(2)
	wantIs(t, err, ErrNotFlushed)
	x := b.u.NextBatch()
	_, err = b.u.EndSeal(2)
	wantIs(t, err, ErrNotFlushed)
	b.write(x)
	b.u.Flushed(x)
	snap, err := b.u.EndSeal(2)
	b.check(err)
	if snap != (Snapshot{Intact: 1, Watermark: 1, End: 1}) {
		t.Fatalf("snapshot %+v", snap)
	}
}

// R17: what Merge puts, keeps and refuses.
func TestR17Merge(t *testing.T) {
	entry := func(attempt wire.Attempt) []byte {
		p := make([]byte, 4096)
		wire.SealPage(p, wire.Header{Flags: wire.FlagData, Length: 3, Log: testLog, Position: 4, Epoch: 1, Attempt: attempt})
		return p
	}
	mark := func(s wire.State) []byte {
		p := make([]byte, 4096)
		Mark(p, s, testLog, 4, 1)
		return p
	}
	none := make([]byte, 4096)
	torn := entry(1)
	torn[66]++
	in := func(s wire.State, attempt wire.Attempt) Entry {
		e := Entry{Address: 4, State: s, Attempt: attempt}
		if attempt != 0 {
			e.Page = entry(attempt)[:wire.HeaderSize+3]
		}
		return e
	}
	cases := []struct {
		name string
		in   Entry
		have []byte
		want []byte // nil: nothing is put
		err  error
	}{
		{"entry to empty", in(wire.Durable, 1), none, entry(1), nil},
		{"written to torn", in(wire.Written, 1), torn, entry(1), nil},
		{"same entry", in(wire.Durable, 1), entry(1), nil, nil},
		{"other entry", in(wire.Durable, 2), entry(1), nil, ErrConflict},
		{"junk to empty", in(wire.Junk, 0), none, mark(wire.DurableJunk), nil},
		{"junk to junk", in(wire.DurableJunk, 0), mark(wire.DurableJunk), nil, nil},
		{"junk to entry", in(wire.DurableJunk, 0), entry(1), nil, ErrConflict},
		{"entry to junk", in(wire.Durable, 1), mark(wire.DurableJunk), nil, ErrConflict},
		{"trim to entry", in(wire.Trimmed, 0), entry(1), mark(wire.Trimmed), nil},
		{"entry to trimmed", in(wire.Durable, 1), mark(wire.Trimmed), nil, nil},
		{"entry to corrupt", in(wire.Durable, 1), mark(wire.Corrupt), entry(1), nil},
		{"corrupt to entry", in(wire.Corrupt, 0), entry(1), nil, nil},
		{"corrupt to empty", in(wire.Corrupt, 0), none, mark(wire.Corrupt), nil},
		{"empty", in(wire.Empty, 0), none, nil, ErrBadEntry},
		{"without its page", Entry{Address: 4, State: wire.Durable, Attempt: 1}, none, nil, ErrBadEntry},
		{"with another's page", Entry{Address: 4, State: wire.Durable, Attempt: 1, Page: entry(2)}, none, nil, ErrBadEntry},
		{"too long", Entry{Address: 4, State: wire.Durable, Attempt: 1, Page: make([]byte, 5000)}, none, nil, ErrBadEntry},
	}
	for _, c := range cases {
		out := bytes.Repeat([]byte{0xee}, 4096)
		put, err := Merge(c.in, c.have, out, testLog, 4, 1)
		wantIs(t, err, c.err)
		if err == nil && put != (c.want != nil) || put && err == nil && !bytes.Equal(out, c.want) {
			t.Errorf("%s: put %v", c.name, put)
		}
	}
}

// R18: only what is sealed at n, reconciled for n and not restarted since opens n; then every EMPTY word is of n.
func TestR18Activation(t *testing.T) {
	b := newBench(t)
	b.publish(0)
	b.u.ScanAll()
	b.flush()
	if _, err := b.seal(2); err != nil {
		t.Fatal(err)
	}
	_, err := b.u.Prepare(2)
	wantIs(t, err, ErrNotReconciled)
	wantIs(t, b.u.Reconciled(3), ErrNotSealed)
	b.check(b.u.Reconciled(2))
	_, err = b.u.Prepare(3)
	wantIs(t, err, ErrNotSealed)
	_, err = b.u.Prepare(2)
	b.check(err)
	b.m.registered = true
	b.u.Activate(2)
	if ready, err := b.u.Prepare(2); !ready || err != nil {
		t.Fatal(ready, err)
	}
	b.wantState(0, wire.Durable)
	for a := layout.Address(1); a < 64; a++ {
		if b.word(a) != wire.EmptyWord(0, 2) || b.m.epoch != 2 {
			t.Fatalf("word of %d is %v, epoch word %d", a, b.word(a), b.m.epoch)
		}
	}
	if _, err := b.seal(3); err != nil {
		t.Fatal(err)
	}
	b.check(b.u.Reconciled(3))
	b.start()
	_, err = b.u.Prepare(3)
	wantIs(t, err, ErrNotSealed)
}

// R19: a restarted unit has its durable entries, is closed and is not intact.
func TestR19Restart(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(100) {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	b.publish(100) // not flushed: lost
	b.start()
	v := b.u.View()
	want := View{Phase: Closed, Promise: 1, Log: testLog, Geometry: testGeo, Base: 52, Watermark: 100, End: 100, Limit: NoLimit}
	if v != want {
		t.Fatalf("view\n%+v, want\n%+v", v, want)
	}
	snap := b.open(2)
	if snap != (Snapshot{Watermark: 100, End: 100}) {
		t.Fatalf("snapshot %+v", snap)
	}
	b.wantState(99, wire.Durable)
	b.wantState(100, wire.Empty)
	b.publish(100)
	b.u.Doorbell(1, 100)
	b.flush()
	b.wantState(100, wire.Durable)
}

// A page that is not whole was torn if it never was acknowledged, and is damaged if it was known to be there.
func TestTornIsEmptyDamagedIsCorrupt(t *testing.T) {
	b := newBench(t)
	for a := range layout.Address(10) {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	b.d[9][65] ^= 0xff
	b.start()
	if v := b.u.View(); v.Watermark != 9 || v.End != 9 || b.u.Stats().Torn != 1 {
		t.Fatalf("view %+v, %d torn", v, b.u.Stats().Torn)
	}
	b.settled = 10
	b.start()
	if b.u.View().End != 10 || b.word(9).State() != wire.Corrupt {
		t.Fatalf("view %+v, word %v", b.u.View(), b.word(9))
	}
}

// What is not settled is not given up: the CPU could not store to an EMPTY word (rule R1), and an entry on its way to
// flash could be read still.
func TestTrimPrefix(t *testing.T) {
	b := newBench(t)
	b.publish(0)
	b.publish(2) // 1 is a hole
	b.u.ScanAll()
	b.flush()
	for a, want := range map[layout.Address]wire.Status{1: wire.StatusOK, 2: wire.StatusTooNew, 3: wire.StatusTooNew, 4: wire.StatusTooNew} {
		if s := b.u.CheckTrimPrefix(a); s != want {
			t.Fatalf("prefix below %d: %v, want %v", a, s, want)
		}
	}
	b.publish(1)
	b.u.Doorbell(4, 1)
	if s := b.u.CheckTrimPrefix(3); s != wire.StatusTooNew {
		t.Fatalf("before 1 is on flash: %v", s)
	}
	b.flush()
	if s := b.u.CheckTrimPrefix(3); s != wire.StatusOK {
		t.Fatal(s)
	}
	b.trimmed = 3
	b.u.TrimPrefix(3)
	for a := range layout.Address(3) {
		b.wantState(a, wire.Trimmed)
	}
	b.publish(3)
	b.u.Doorbell(4, 3)
	b.start()
	if v := b.u.View(); v.TrimmedBelow != 3 || v.Watermark != 3 || v.End != 3 {
		t.Fatalf("view %+v", v)
	}
}

func TestDoorbellsAllocateNothing(t *testing.T) {
	b := newBench(t)
	b.u.SetSession(sliceOf(0), 5)
	a := layout.Address(0)
	round := func() {
		b.publish(a)
		b.u.Doorbell(5, a)
		x := b.u.NextBatch()
		b.u.Flushed(x)
		b.u.Output().Reset()
		a++
	}
	round()
	if n := testing.AllocsPerRun(200, round); n != 0 {
		t.Fatalf("%v allocations for an entry", n)
	}
}
