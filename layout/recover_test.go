package layout

import (
	"errors"
	"reflect"
	"testing"
)

// two is a layout with one chain of units 1 (head), 2, 3 (tail), in epoch 5.
func two() *Layout {
	l := &Layout{Log: LogID{1}, Epoch: 5, Geometry: DefaultGeometry(), Sequencer: Sequencer{ID: 1, Control: "s:1"},
		Segments: []Segment{{Chains: []Chain{{Units: []UnitID{1, 2, 3}}}}}}
	for id := UnitID(1); id <= 3; id++ {
		l.Units = append(l.Units, Unit{ID: id, Control: "u:1"})
	}
	return l
}

func sealed(list ...Seal) Seals {
	s := Seals{}
	for _, x := range list {
		s[x.Unit] = x
	}
	return s
}

func TestR16SealedEnough(t *testing.T) {
	intact := func(u UnitID) Seal { return Seal{Unit: u, Intact: 5} }
	restarted := func(u UnitID) Seal { return Seal{Unit: u} }
	stale := func(u UnitID) Seal { return Seal{Unit: u, Intact: 4} } // intact in an older epoch: not in this one
	for _, c := range []struct {
		name          string
		seals         Seals
		flash, memory bool
	}{
		{"none", sealed(), false, false},
		{"an intact head", sealed(intact(1)), true, true},
		{"an intact one in the middle", sealed(intact(2)), true, true},
		{"the tail, restarted", sealed(restarted(3)), true, false},
		{"the head, restarted", sealed(restarted(1)), false, false},
		{"head and middle, restarted", sealed(restarted(1), restarted(2)), false, false},
		{"all, restarted", sealed(restarted(1), restarted(2), restarted(3)), true, false},
		{"intact in an older epoch", sealed(stale(1), stale(2)), false, false},
		{"a stranger", sealed(intact(9)), false, false},
	} {
		for _, d := range []Durability{Flash, Memory} {
			l := two()
			l.Durability = d
			want := c.flash
			if d == Memory {
				want = c.memory
			}
			err := SealedEnough(l, c.seals, nil)
			var un *UnsealedError
			if (err == nil) != want || (err != nil && !errors.As(err, &un)) {
				t.Errorf("%s, %v: %v; enough should be %v", c.name, d, err, want)
			}
		}
	}
	if err := SealedEnough(nil, nil, nil); err != nil {
		t.Errorf("epoch 0 has no chains: %v", err)
	}
}

func TestR16EveryChainOfEverySegmentCounts(t *testing.T) {
	l := sample() // epoch 7, chains (1,2) (3,4) and (1,2) (3,4) (5,6)
	seals := sealed(Seal{Unit: 1, Intact: 7}, Seal{Unit: 4})
	var un *UnsealedError
	if err := SealedEnough(l, seals, nil); !errors.As(err, &un) || un.Segment != 1 || un.Stripe != 2 {
		t.Errorf("without units 5 and 6: %v", err)
	}
	seals[6] = Seal{Unit: 6}
	if err := SealedEnough(l, seals, nil); err != nil {
		t.Errorf("with the tail of every chain, or an intact member: %v", err)
	}
}

func TestR20StartIsBehindTheLastEntryOfAnyChain(t *testing.T) {
	for _, c := range []struct {
		name  string
		seals Seals
		want  Position
	}{
		{"nothing written since: the base's own start", sealed(), 25},
		{"entries before the base's start", sealed(Seal{Unit: 1, End: 5}), 25},
		// Address 12 of unit 1 is position 21 + 3×(12−11) = 24, address 13 is 27.
		{"a head", sealed(Seal{Unit: 1, End: 14}), 28},
		{"a tail alone", sealed(Seal{Unit: 1, End: 12}, Seal{Unit: 2, End: 14}), 28},
		// Address 2 of unit 5 is position 21 + 3×2 + 2 = 29: fewer addresses, a higher position.
		{"another chain", sealed(Seal{Unit: 1, End: 14}, Seal{Unit: 5, End: 3}), 30},
		{"of three chains the highest", sealed(Seal{Unit: 2, End: 14}, Seal{Unit: 4, End: 14}, Seal{Unit: 5, End: 3}), 32},
		{"a unit that is in no chain", sealed(Seal{Unit: 9, End: 1000}), 25},
	} {
		if got, err := StartAfter(sample(), c.seals); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.name, got, err, c.want)
		}
	}
	if got, err := StartAfter(nil, sealed(Seal{Unit: 1, End: 7})); got != 0 || err != nil {
		t.Errorf("epoch 0: %d, %v", got, err)
	}
	l := two()
	last := l.Geometry
	last.Window = 1 << 24 // so that addresses reach as far as positions
	l.Geometry = last
	if _, err := StartAfter(l, sealed(Seal{Unit: 1, End: Address(MaxPosition) + 1})); !errors.Is(err, ErrBeyond) {
		t.Errorf("a full log: %v, want ErrBeyond", err)
	}
}

func TestR17DoubtIsAboveTheCommonWatermark(t *testing.T) {
	l := sample()
	for _, c := range []struct {
		name            string
		segment, stripe int
		seals           Seals
		from, to        Address
	}{
		{"all durable", 1, 0, sealed(Seal{Unit: 1, Watermark: 20, End: 20}, Seal{Unit: 2, Watermark: 20, End: 20}), 20, 20},
		{"the tail behind", 1, 0, sealed(Seal{Unit: 1, Watermark: 20, End: 25}, Seal{Unit: 2, Watermark: 15, End: 18}), 15, 25},
		{"one sealed alone", 1, 0, sealed(Seal{Unit: 2, Watermark: 15, End: 18}), 15, 18},
		{"an older segment ends at its limit", 0, 0, sealed(Seal{Unit: 1, Watermark: 8, End: 20}, Seal{Unit: 2, Watermark: 20, End: 20}), 8, 11},
		{"an older segment, done with", 0, 1, sealed(Seal{Unit: 3, Watermark: 12, End: 20}, Seal{Unit: 4, Watermark: 12, End: 20}), 10, 10},
		{"a segment that was not reached", 1, 0, sealed(Seal{Unit: 1, Watermark: 5, End: 9}, Seal{Unit: 2, Watermark: 5, End: 9}), 11, 11},
	} {
		if from, to := Doubt(l, c.segment, c.stripe, c.seals); from != c.from || to != c.to {
			t.Errorf("%s: [%d, %d), want [%d, %d)", c.name, from, to, c.from, c.to)
		}
	}
}

func TestR17TrimmedAnywhereIsTrimmedAtAll(t *testing.T) {
	l := sample()
	for _, c := range []struct {
		name  string
		u     UnitID
		seals Seals
		want  Address
	}{
		{"nobody", 1, sealed(Seal{Unit: 1}, Seal{Unit: 2}), 0},
		{"its own", 1, sealed(Seal{Unit: 1, TrimmedBelow: 4}, Seal{Unit: 2}), 4},
		{"its partner's", 1, sealed(Seal{Unit: 1, TrimmedBelow: 4}, Seal{Unit: 2, TrimmedBelow: 9}), 9},
		{"another chain's is none of its business", 1, sealed(Seal{Unit: 1}, Seal{Unit: 5, TrimmedBelow: 9}), 0},
		{"into the newer segment", 3, sealed(Seal{Unit: 3}, Seal{Unit: 4, TrimmedBelow: 13}), 13},
	} {
		if got := TrimmedBelow(l, l.Next(8, 25), c.u, c.seals); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := TrimmedBelow(nil, l, 1, sealed(Seal{Unit: 1, TrimmedBelow: 4})); got != 0 {
		t.Errorf("a unit of another life keeps nothing: %d", got)
	}
	// A spare of another life that joins, and then takes over what is older.
	h := healing(1)
	seals := sealed(Seal{Unit: 1, TrimmedBelow: 4}, Seal{Unit: 3, TrimmedBelow: 99})
	joined, err := h.With(Change{Lost: []UnitID{2}, Join: []UnitID{3}, Replicas: 2}, 2, 10)
	if err != nil {
		t.Fatal(err)
	}
	if got := TrimmedBelow(h, joined, 3, seals); got != 0 {
		t.Errorf("a spare that joins counts %d as trimmed", got)
	}
	whole, err := joined.With(Change{Adopt: joined.Behind()}, 3, 10)
	if err != nil {
		t.Fatal(err)
	}
	if got := TrimmedBelow(joined, whole, 3, sealed(Seal{Unit: 1, TrimmedBelow: 4}, Seal{Unit: 3})); got != 4 {
		t.Errorf("a unit that takes over what is older counts %d as trimmed, want 4", got)
	}
}

func TestR17AnyEntryFoundWins(t *testing.T) {
	entry := func(a Address, id Attempt) Holding { return Holding{a, HoldsEntry, id} }
	junk := func(a Address) Holding { return Holding{a, HoldsJunk, 0} }
	trimmed := func(a Address) Holding { return Holding{a, HoldsTrimmed, 0} }
	corrupt := func(a Address) Holding { return Holding{a, HoldsCorrupt, 0} }
	at := func(u UnitID, h ...Holding) Listing { return Listing{u, h} }
	for _, c := range []struct {
		name  string
		lists []Listing
		fresh []UnitID
		want  []Copy
	}{
		{"nothing anywhere means EMPTY", []Listing{at(1), at(2)}, []UnitID{9}, nil},
		{"all have it", []Listing{at(1, entry(3, 7)), at(2, entry(3, 7))}, nil, nil},
		{"at the head alone", []Listing{at(1, entry(3, 7)), at(2)}, nil, []Copy{{entry(3, 7), 1, []UnitID{2}}}},
		{"at the tail alone", []Listing{at(1), at(2, entry(3, 7))}, nil, []Copy{{entry(3, 7), 2, []UnitID{1}}}},
		{"junk has no source", []Listing{at(1, junk(3)), at(2)}, nil, []Copy{{junk(3), 0, []UnitID{2}}}},
		{"trimmed beats an entry", []Listing{at(1, entry(3, 7)), at(2, trimmed(3)), at(3)}, nil,
			[]Copy{{trimmed(3), 0, []UnitID{1, 3}}}},
		{"an entry heals what is corrupt", []Listing{at(1, corrupt(3)), at(2, entry(3, 7))}, nil, []Copy{{entry(3, 7), 2, []UnitID{1}}}},
		{"junk heals what is corrupt", []Listing{at(1, junk(3)), at(2, corrupt(3))}, nil, []Copy{{junk(3), 0, []UnitID{2}}}},
		{"corrupt is an entry all the same", []Listing{at(1, corrupt(3)), at(2)}, nil, []Copy{{corrupt(3), 0, []UnitID{2}}}},
		{"a fresh unit lacks everything", []Listing{at(1, entry(3, 7), junk(4)), at(2, entry(3, 7), junk(4))}, []UnitID{9},
			[]Copy{{entry(3, 7), 1, []UnitID{9}}, {junk(4), 0, []UnitID{9}}}},
		{"by ascending addresses", []Listing{at(1, entry(3, 7), entry(8, 9)), at(2, entry(1, 5), entry(8, 9), entry(20, 6))}, nil,
			[]Copy{{entry(1, 5), 2, []UnitID{1}}, {entry(3, 7), 1, []UnitID{2}}, {entry(20, 6), 2, []UnitID{1}}}},
	} {
		got, err := PlanCopies(c.lists, c.fresh)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		name  string
		lists []Listing
		fresh []UnitID
		want  []Copy
	}{
		{"trimmed at the head, not yet at the tail", []Listing{at(1, trimmed(3)), at(2, entry(3, 7))}, []UnitID{5}, []Copy{{entry(3, 7), 2, []UnitID{5}}}},
		{"trimmed everywhere", []Listing{at(1, trimmed(3)), at(2, trimmed(3))}, []UnitID{5}, []Copy{{trimmed(3), 0, []UnitID{5}}}},
		{"trimmed, and one that is corrupt", []Listing{at(1, trimmed(3)), at(2, Holding{Address: 3, Kind: HoldsCorrupt})}, nil, []Copy{{trimmed(3), 0, []UnitID{2}}}},
		{"trimmed, junk, and one that is corrupt", []Listing{at(1, trimmed(3)), at(2, junk(3)), at(3, Holding{Address: 3, Kind: HoldsCorrupt})}, nil,
			[]Copy{{junk(3), 0, []UnitID{3}}}},
	} {
		if got, err := PlanSameEpoch(c.lists, c.fresh); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("within an epoch, %s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		name  string
		lists []Listing
		want  error
	}{
		{"two attempts", []Listing{at(1, entry(3, 7)), at(2, entry(3, 8))}, ErrConflict},
		{"an entry and junk", []Listing{at(1, entry(3, 7)), at(2, junk(3))}, ErrConflict},
		{"two attempts beside a trimmed one", []Listing{at(1, entry(3, 7)), at(2, trimmed(3)), at(3, entry(3, 8))}, ErrConflict},
		{"out of order", []Listing{at(1, entry(3, 7), entry(2, 8))}, ErrOrder},
		{"an address twice", []Listing{at(1, entry(3, 7), entry(3, 7))}, ErrOrder},
	} {
		if got, err := PlanCopies(c.lists, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", c.name, got, err, c.want)
		}
	}
}
