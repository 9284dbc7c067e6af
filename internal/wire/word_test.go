package wire

import (
	"encoding/binary"
	"testing"

	"corfu/internal/golden"
	"corfu/layout"
)

func TestWordGolden(t *testing.T) {
	var b []byte
	for _, w := range []Word{
		0,
		EmptyWord(1, 5),
		EmptyWord(layout.MaxGeneration, layout.MaxEpoch),
		MakeWord(Written, 2, Use{Slot: 0x123456, Count: 0x789}.Tag()),
		MakeWord(Junk, 2, Use{Slot: MaxStagingSlots - 1, Count: 0xfff}.Tag()),
		MakeWord(Durable, 3, 1), MakeWord(DurableJunk, 3, 2), MakeWord(Corrupt, 3, 3), MakeWord(Trimmed, 3, 4),
		Word(MakeSeqWord(0x1_2345, 0x0123_4567_89ab)),
	} {
		b = binary.LittleEndian.AppendUint64(b, uint64(w))
	}
	golden.Equal(t, "words", b)
}

func TestWordKeepsItsFieldsApart(t *testing.T) {
	for s := Empty; s <= Trimmed; s++ {
		for _, g := range []layout.Generation{0, 1, layout.MaxGeneration} {
			for _, tag := range []uint64{0, 1, tagMask, Use{Slot: MaxStagingSlots - 1}.Tag(), Use{Count: 0xfff}.Tag()} {
				w := MakeWord(s, g, tag)
				if w.State() != s || w.Generation() != g || w.Tag() != tag {
					t.Errorf("%v %d %#x became %v %d %#x", s, g, tag, w.State(), w.Generation(), w.Tag())
				}
				if d := w.With(Durable); d.State() != Durable || d.Generation() != g || d.Tag() != tag {
					t.Errorf("%v with another state is %v", w, d)
				}
				if s.Terminal() != (s == Durable || s == DurableJunk || s == Corrupt || s == Trimmed) {
					t.Errorf("%v: terminal %v", s, s.Terminal())
				}
			}
		}
	}
	// A field that is too large must not spill into its neighbour.
	if w := MakeWord(Empty, layout.MaxGeneration+1, tagMask+1); w != 0 {
		t.Errorf("spilt: %#x", uint64(w))
	}
}

func TestR8EmptyWordOfAnotherEpochOrGenerationIsAnotherWord(t *testing.T) {
	seen := map[Word]string{}
	for _, g := range []layout.Generation{0, 1, 2, layout.MaxGeneration} {
		for _, e := range []layout.Epoch{0, 1, 65536, 65537, layout.MaxEpoch} {
			w := EmptyWord(g, e)
			if w.Epoch() != e || w.State() != Empty {
				t.Errorf("generation %d epoch %d: %v", g, e, w)
			}
			if other, ok := seen[w]; ok {
				t.Errorf("%v is %s", w, other)
			}
			seen[w] = w.String()
		}
	}
}

func TestUseAndTag(t *testing.T) {
	for _, u := range []Use{{}, {1, 0}, {0, 1}, {MaxStagingSlots - 1, 0xfff}, {0x123456, 0x789}} {
		if got := TagUse(u.Tag()); got != u || u.Tag() > tagMask {
			t.Errorf("%v became %v, tag %#x", u, got, u.Tag())
		}
	}
	if (Use{Slot: 3, Count: 0x1000}).Tag() != (Use{Slot: 3}).Tag() {
		t.Error("a count that wraps spills into the slot")
	}
}

func TestSeqWord(t *testing.T) {
	for _, e := range []layout.Epoch{0, 1, 65535, 65536, layout.MaxEpoch} {
		for _, p := range []layout.Position{0, 1, layout.MaxPosition} {
			w := MakeSeqWord(e, p)
			if w.Next() != p || !w.Of(e) || w.Of(e+1) {
				t.Errorf("epoch %d position %d: %#x", e, p, uint64(w))
			}
		}
	}
	if w := MakeSeqWord(7, 5) + 3; w.Next() != 8 || !w.Of(7) {
		t.Errorf("after FETCH_ADD(3): %#x", uint64(w))
	}
}

func TestWordOffsets(t *testing.T) {
	g := layout.Geometry{Window: 64}
	if n := IndexSize(g); n != 8+64*8 {
		t.Errorf("index of %d bytes", n)
	}
	seen := map[int]bool{}
	for a := layout.Address(0); a < 64; a++ {
		o := WordOffset(g, a)
		if o < EpochWordSize || o+WordSize > IndexSize(g) || o%8 != 0 || seen[o] {
			t.Errorf("address %d at %d", a, o)
		}
		seen[o] = true
		if WordOffset(g, a+64) != o || WordOffset(g, a+layout.Address(1)<<40) != o {
			t.Errorf("address %d does not come round to its word", a)
		}
	}
}

func FuzzWord(f *testing.F) {
	f.Add(uint64(0))
	f.Add(^uint64(0))
	f.Fuzz(func(t *testing.T, v uint64) {
		w := Word(v)
		if got := MakeWord(w.State(), w.Generation(), w.Tag()); got != w {
			t.Errorf("%#x became %#x", v, uint64(got))
		}
		if got := TagUse(w.Tag()).Tag(); got != w.Tag() {
			t.Errorf("tag %#x became %#x", w.Tag(), got)
		}
		_ = w.String()
		s := SeqWord(v)
		if got := MakeSeqWord(layout.Epoch(v>>48), s.Next()); got != s {
			t.Errorf("%#x became %#x", v, uint64(got))
		}
	})
}
