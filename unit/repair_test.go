package unit

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// filled is a bench with n entries on flash, all noted as settled.
func filled(t *testing.T, n layout.Address) *bench {
	b := newBench(t)
	for a := range n {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	b.settled = b.u.View().Watermark
	b.acks = nil
	return b
}

// copyOf is what another member of the chain holds at a.
func copyOf(a layout.Address) Entry {
	page := make([]byte, 4096)
	n := copy(page[wire.HeaderSize:], "entry")
	n = wire.SealPage(page, wire.Header{Flags: wire.FlagData, Length: n, Log: testLog, Position: layout.Position(a), Epoch: 1, Attempt: wire.Attempt(a) + 1})
	return Entry{Address: a, State: wire.Durable, Attempt: wire.Attempt(a) + 1, Page: page[:n]}
}

// begin is BeginRepair of an address of which flash has nothing that can be read.
func (b *bench) begin(e Entry) (write bool, out []byte, err error) {
	out = make([]byte, 4096)
	write, err = b.u.BeginRepair(testLog, b.promise, e, make([]byte, 4096), out, b.settled)
	return write, out, err
}

// R1, R3: a damaged copy is CORRUPT, its repair does not show before flash has it, a repair that fails leaves it as it was, and one
// that succeeds makes word and ring what they were.
func TestR3RepairShowsOnceItIsDurable(t *testing.T) {
	b := filled(t, 6)
	words, ring := slices.Clone(b.m.words), bytes.Clone(b.m.ring)
	if !b.u.Damaged(2) || b.u.Damaged(2) {
		t.Fatal("damage is news once")
	}
	corrupt := slices.Clone(words)
	corrupt[2] = words[2].With(wire.Corrupt)
	clear(b.u.ringPage(2)) // what is there does not count
	for _, durable := range []bool{false, true} {
		if got := b.u.Corrupt(0, 10); !slices.Equal(got, []layout.Address{2}) || b.u.View().Corrupt != 1 {
			t.Fatalf("corrupt: %v, %+v", got, b.u.View())
		}
		write, out, err := b.begin(copyOf(2))
		b.check(err)
		if !write || !bytes.Equal(out, b.d[2]) {
			t.Fatalf("to be written (%v): %x", write, out[:100])
		}
		if !slices.Equal(b.m.words, corrupt) {
			t.Fatalf("words before the end of the repair: %v", b.m.words)
		}
		b.u.EndRepair(durable)
	}
	if !slices.Equal(b.m.words, words) || !bytes.Equal(b.m.ring, ring) || len(b.u.Corrupt(0, 10)) != 0 {
		t.Fatalf("after the repair: words %v, corrupt %v", b.m.words, b.u.Corrupt(0, 10))
	}
	if s := b.u.Stats(); s.Damaged != 1 || s.Repaired != 1 {
		t.Errorf("stats %+v", s)
	}
}

// R1, R5, R10, R17: what may not be repaired, with what it may not be, and when; nothing changes then.
func TestRepairRefused(t *testing.T) {
	b := filled(t, 40)
	b.u.Damaged(2)
	b.u.Damaged(39)
	b.settled = 39
	b.u.Trim(1, 1, 5)
	b.u.Damaged(5) // is being trimmed: no damage
	change := func(f func(e *Entry)) Entry {
		e := copyOf(2)
		e.Page = bytes.Clone(e.Page)
		f(&e)
		return e
	}
	other := make([]byte, 4096)
	copy(other, copyOf(2).Page)
	h := wire.Header{Flags: wire.FlagData, Length: 5, Log: testLog, Position: 2, Epoch: 1, Attempt: 77}
	wire.SealPage(other, h)
	words, ring := slices.Clone(b.m.words), bytes.Clone(b.m.ring)
	none := make([]byte, 4096)
	for name, c := range map[string]struct {
		log   layout.LogID
		epoch layout.Epoch
		entry Entry
		have  []byte
		want  error
	}{
		"older epoch":           {testLog, 0, copyOf(2), none, ErrNotOpen},
		"newer epoch":           {testLog, 2, copyOf(2), none, ErrNotOpen},
		"other log":             {layout.LogID{9}, 1, copyOf(2), none, ErrOtherLog},
		"sound":                 {testLog, 1, copyOf(3), none, ErrSound},
		"being trimmed":         {testLog, 1, copyOf(5), none, ErrSound},
		"empty":                 {testLog, 1, copyOf(40), none, ErrSound},
		"beyond all addresses":  {testLog, 1, copyOf(1 << 60), none, ErrBadEntry},
		"above the note":        {testLog, 1, copyOf(39), none, ErrRepairBusy},
		"not durable there":     {testLog, 1, change(func(e *Entry) { e.State = wire.Written }), none, ErrBadEntry},
		"corrupt there":         {testLog, 1, change(func(e *Entry) { e.State = wire.Corrupt }), none, ErrBadEntry},
		"nothing there":         {testLog, 1, change(func(e *Entry) { e.State = wire.Empty }), none, ErrBadEntry},
		"a bit wrong":           {testLog, 1, change(func(e *Entry) { e.Page[66] ^= 1 }), none, ErrBadEntry},
		"of another attempt":    {testLog, 1, change(func(e *Entry) { e.Attempt = 5 }), none, ErrBadEntry},
		"of another position":   {testLog, 1, change(func(e *Entry) { e.Page = copyOf(3).Page }), none, ErrBadEntry},
		"no page":               {testLog, 1, change(func(e *Entry) { e.Page = nil }), none, ErrBadEntry},
		"another entry is here": {testLog, 1, copyOf(2), other, ErrConflict},
	} {
		write, err := b.u.BeginRepair(c.log, c.epoch, c.entry, c.have, make([]byte, 4096), b.settled)
		if write || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, write, err, c.want)
		}
	}
	if !slices.Equal(b.m.words, words) || !bytes.Equal(b.m.ring, ring) || !slices.Equal(b.u.Corrupt(0, 9), []layout.Address{2, 39}) {
		t.Fatal("a repair that was refused changed something")
	}
	if _, _, err := b.begin(copyOf(2)); err != nil {
		t.Fatal(err)
	}
	b.settled = 40
	_, _, err := b.begin(copyOf(39))
	wantIs(t, err, ErrRepairBusy) // one at a time
	b.u.EndRepair(true)
	_, _, err = b.begin(copyOf(2))
	wantIs(t, err, ErrSound)
}

// A sealed unit takes no repairs and notes no damage: epochs end between what two ends say of themselves.
func TestRepairWhileSealed(t *testing.T) {
	b := filled(t, 6)
	b.u.Damaged(2)
	_, err := b.seal(2)
	b.check(err)
	_, err = b.u.BeginRepair(testLog, 2, copyOf(2), make([]byte, 4096), make([]byte, 4096), 6)
	wantIs(t, err, ErrNotOpen)
	if b.u.Damaged(3) {
		t.Fatal("damage noted")
	}
}

// What the source has is taken over: junk as junk, a trim as a trim, once its mark is on flash.
func TestRepairTakesWhatTheSourceHas(t *testing.T) {
	b := filled(t, 6)
	b.u.Damaged(1)
	b.u.Damaged(2)
	write, out, err := b.begin(Entry{Address: 1, State: wire.DurableJunk})
	b.check(err)
	if s, _ := Classify(out, testLog, 1); !write || s != wire.DurableJunk {
		t.Fatal(write, s)
	}
	b.u.EndRepair(true)
	b.wantState(1, wire.DurableJunk)
	write, _, err = b.begin(Entry{Address: 2, State: wire.Trimmed})
	b.check(err)
	if write || len(b.u.Corrupt(0, 9)) != 1 {
		t.Fatal("a trim is not told before it is durable")
	}
	b.wantState(2, wire.Corrupt)
	b.flush()
	b.wantState(2, wire.Trimmed)
	if s, _ := Classify(b.d[2], testLog, 2); s != wire.Trimmed || len(b.u.Corrupt(0, 9)) != 0 {
		t.Fatal(s, b.u.Corrupt(0, 9))
	}
}

// A trim that comes during a repair waits for it: its mark is not overwritten.
func TestTrimDuringRepair(t *testing.T) {
	b := filled(t, 6)
	b.u.Damaged(2)
	_, _, err := b.begin(copyOf(2))
	b.check(err)
	b.u.Trim(4, 8, 2)
	if b.u.NextBatch() != nil {
		t.Fatal("two writes to one page at a time")
	}
	b.u.EndRepair(true)
	b.flush()
	b.wantState(2, wire.Trimmed)
	if want := []Reply{{4, wire.Reply{Request: 8, State: wire.Trimmed}}}; !slices.Equal(b.replies, want) {
		t.Fatalf("replies %v, want %v", b.replies, want)
	}
	if s, _ := Classify(b.d[2], testLog, 2); s != wire.Trimmed {
		t.Fatal(s)
	}
}

// A prefix trim during a repair wins, and nobody asks for that repair again.
func TestPrefixTrimDuringRepair(t *testing.T) {
	b := filled(t, 6)
	b.u.Damaged(1)
	b.u.Damaged(2)
	b.u.Damaged(4)
	_, _, err := b.begin(copyOf(2))
	b.check(err)
	b.u.TrimPrefix(3)
	b.u.EndRepair(true)
	b.wantState(2, wire.Trimmed)
	if got := b.u.Corrupt(0, 9); !slices.Equal(got, []layout.Address{4}) {
		t.Fatalf("corrupt: %v", got)
	}
}

// R1, R4: the window moves on over a CORRUPT address, also during its repair; the word and the ring slot are another's then.
func TestWindowMovesDuringRepair(t *testing.T) {
	b := filled(t, 40)
	b.u.Damaged(0)
	_, _, err := b.begin(copyOf(0))
	b.check(err)
	for a := layout.Address(40); a < 60; a++ {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	b.cas(64, junk(64))
	b.u.Doorbell(1, 64)
	b.flush()
	words, ring := slices.Clone(b.m.words), bytes.Clone(b.m.ring)
	if b.u.View().Base == 0 {
		t.Fatal("the window stands")
	}
	b.u.EndRepair(true)
	if !slices.Equal(b.m.words, words) || !bytes.Equal(b.m.ring, ring) || len(b.u.Corrupt(0, 9)) != 0 {
		t.Fatal("the repair changed what is another's")
	}
	// Below the window damage is noted, too, and repaired.
	if !b.u.Damaged(1) || !slices.Equal(b.u.Corrupt(0, 9), []layout.Address{1}) {
		t.Fatal(b.u.Corrupt(0, 9))
	}
	_, _, err = b.begin(copyOf(1))
	b.check(err)
	b.u.EndRepair(true)
	if !slices.Equal(b.m.words, words) || len(b.u.Corrupt(0, 9)) != 0 {
		t.Fatal("repair below the window")
	}
}

// What a start finds damaged, and what clients publish that does not verify, is known as CORRUPT, and a wipe forgets it.
func TestCorruptIsKnownHoweverItCame(t *testing.T) {
	b := filled(t, 6)
	b.d[3][66] ^= 1
	b.start()
	b.open(2)
	b.stage(0, 6, 7)
	b.m.Staging(0)[66] ^= 1
	b.cas(6, written(6, 0, 3))
	b.u.Doorbell(1, 6)
	b.flush()
	if got := b.u.Corrupt(0, 9); !slices.Equal(got, []layout.Address{3, 6}) {
		t.Fatalf("corrupt: %v", got)
	}
	if got := b.u.Corrupt(4, 9); !slices.Equal(got, []layout.Address{6}) {
		t.Fatalf("corrupt from 4: %v", got)
	}
	if got := b.u.Corrupt(0, 1); !slices.Equal(got, []layout.Address{3}) {
		t.Fatalf("one corrupt: %v", got)
	}
	b.u.Forget()
	if got := b.u.Corrupt(0, 9); len(got) != 0 {
		t.Fatalf("after a wipe: %v", got)
	}
}

// Memory is bounded: what there is no room for is to be looked for again.
func TestKnownDamageIsBounded(t *testing.T) {
	b := filled(t, MaxCorrupt+200)
	for a := range layout.Address(MaxCorrupt + 10) {
		b.u.Damaged(a)
		b.u.Output().Reset()
	}
	if v := b.u.View(); v.Corrupt != MaxCorrupt || len(b.u.bad) != MaxCorrupt {
		t.Fatalf("%d known", v.Corrupt)
	}
	more, times := b.u.Beyond()
	if !more || times == 0 || !b.u.MoreCorrupt() {
		t.Fatalf("more %v, %d times", more, times)
	}
	if b.u.NoneBeyond(times - 1); !b.u.badMore {
		t.Fatal("forgotten by who looked before there was no room again")
	}
	if b.u.NoneBeyond(times); b.u.badMore {
		t.Fatal("all was looked at, and there are more")
	}
}
