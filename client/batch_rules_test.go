package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// batchOf is the payload of a batch of n records that takes parts fragments.
func batchOf(parts, n int) []byte {
	size := parts*testParts - 1
	lengths := make([]int, n)
	for i := range lengths {
		lengths[i] = 1
	}
	for lengths[0] = size - n - len(wire.AppendBatchHead(nil, lengths)); ; lengths[0]++ {
		if head := wire.AppendBatchHead(nil, lengths); len(head)+lengths[0]+n-1 == size {
			return append(head, strings.Repeat("r", lengths[0]+n-1)...)
		}
	}
}

// A batch of several pages is there whole or not at all: one that is torn is junk at all of its positions.
func TestTornBatches(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		e := r.begun(l, 4)
		e.flags = wire.FlagBatch
		for _, i := range []int{0, 1, 3} {
			a := r.loaded(e, i)
			a.flags |= e.flags
			if out, err := a.fragment(r.ctx); out != outDone {
				t.Fatalf("fragment %d: outcome %d, %v", i, out, err)
			}
		}
		if err := other.Fill(r.ctx, 2); err != nil {
			t.Fatal(err)
		}
		p, err := l.AppendBatch(r.ctx, [][]byte{[]byte("behind"), []byte("it")})
		if err != nil || p != 4 {
			t.Fatalf("position %d, %v", p, err)
		}
		for q := range p {
			if _, err := other.ReadEntry(r.ctx, q); !errors.Is(err, ErrJunk) {
				t.Errorf("read %d: %v, want ErrJunk", q, err)
			}
		}
		var got []string
		for x, err := range Records(other.ReadRange(r.ctx, 0, 5)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%v %s", x, x.Data))
		}
		if want := "[4/0 behind 4/1 it]"; fmt.Sprint(got) != want {
			t.Errorf("records %v, want %v", got, want)
		}
	})
}

// Fragments that do not agree on what the entry is are not joined.
func TestFragmentsOfABatchAndOfAPayloadAreNotJoined(t *testing.T) {
	r := newRig(t, layout.Memory)
	l := r.open()
	for _, first := range []wire.PageFlags{0, wire.FlagBatch} {
		e := r.begun(l, 2)
		for i, flag := range []wire.PageFlags{first, first ^ wire.FlagBatch} {
			a := r.loaded(e, i)
			a.flags |= flag
			if out, err := a.fragment(r.ctx); out != outDone {
				t.Fatalf("fragment %d: outcome %d, %v", i, out, err)
			}
		}
		if got, err := l.ReadEntry(r.ctx, e.first); !errors.Is(err, ErrJunk) {
			t.Errorf("first flags %#x: %d bytes, %v; want ErrJunk", first, len(got.Payload), err)
		}
	}
}

// A page that verifies and holds no batch, though its header says so: an error that says where to go on, and no records.
func TestMalformedBatch(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		large := batchOf(3, 7)
		if _, err := wire.DecodeBatch(large); err != nil {
			t.Fatal(err)
		}
		at := layout.Position(0)
		for _, c := range []struct {
			name    string
			payload []byte
			pages   int
		}{{"nothing", nil, 1}, {"a count alone", []byte{200, 1}, 1}, {"a large one cut", large[:len(large)-1], 3}} {
			p, err := l.appendAs(r.ctx, wire.FlagBatch, c.payload)
			if err != nil || p != at {
				t.Fatalf("%s: position %d, %v; want %d", c.name, p, err, at)
			}
			next, err := l.Append(r.ctx, []byte("behind"))
			if err != nil {
				t.Fatal(err)
			}
			check := func(how string, got Position, err error) {
				t.Helper()
				var bad *MalformedError
				if !errors.As(err, &bad) || !errors.Is(err, ErrMalformed) || !errors.Is(err, wire.ErrBadBatch) || got != p || bad.Position != p || bad.Next != next {
					t.Errorf("%s: %s at %d: %v; want a MalformedError from %d to %d", c.name, how, got, err, p, next)
				}
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %s: an error of several lines: %v", c.name, how, err)
				}
			}
			e, err := other.ReadEntry(r.ctx, p)
			if e.Records != nil || e.Payload != nil {
				t.Errorf("%s: %d records, %d bytes", c.name, len(e.Records), len(e.Payload))
			}
			check("ReadEntry", e.Position, err)
			for _, end := range []Position{p + 1, next + 1} {
				for e, err := range other.ReadRange(r.ctx, p, end) {
					check(fmt.Sprintf("a range up to %d", end), e.Position, err)
				}
			}
			at = next + 1
		}
	})
}

// oldUnit makes unit id one of a release before batches, as l's sessions see it.
func oldUnit(l *Log, id layout.UnitID) { l.current().units[id].cur.Load().flags = wire.OldFlags }

// While one unit of the chains is of a release before batches, none are written: not even a position is taken.
func TestNoBatchesForUnitsOfAnOlderRelease(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	if _, err := l.AppendBatch(r.ctx, [][]byte{[]byte("both units are new")}); err != nil {
		t.Fatal(err)
	}
	oldUnit(l, 2)
	for name, batch := range map[string][][]byte{"of a page": {[]byte("x")}, "of several pages": {make([]byte, 10_000)}} {
		_, err := l.AppendBatch(r.ctx, batch)
		if want := "unit 2 is of an older release: "; !errors.Is(err, ErrNoBatches) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("a batch %s: %v; want one line with %q", name, err, want)
		}
	}
	if p, err := l.Append(r.ctx, []byte("plain")); err != nil || p != 1 {
		t.Errorf("a plain entry: position %d, %v; want 1, as nothing was taken for the batches", p, err)
	}
}

// What a release does with a flag that it does not know, as those before batches with that of a batch: its units
// call the page corrupt, and its readers take it for no entry. So no batch may be sent there.
func TestUnknownFlagsAreRefusedAndNeverMisread(t *testing.T) {
	const tomorrow = wire.PageFlags(0x80)
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		if _, err := l.Append(r.ctx, nil); err != nil {
			t.Fatal(err)
		}
		for _, k := range l.current().units {
			k.cur.Load().flags |= tomorrow // as if they had offered it
		}
		if p, err := l.appendAs(r.ctx, tomorrow, []byte("misread?")); d == layout.Flash && !errors.Is(err, ErrCorrupt) {
			t.Errorf("append: position %d, %v; want ErrCorrupt", p, err)
		}
		if got, err := other.ReadEntry(r.ctx, 1); !errors.Is(err, ErrCorrupt) {
			t.Errorf("read: %q, %v; want ErrCorrupt", got.Payload, err)
		}
	})
}
