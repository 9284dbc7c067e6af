package layout

import (
	"errors"
	"reflect"
	"slices"
	"testing"
)

// TestR16CorruptCopiesDoNotCount: a member that was sealed does not count for an entry that it cannot supply.
func TestR16CorruptCopiesDoNotCount(t *testing.T) {
	base := &Layout{Log: LogID{1}, Epoch: 5, Geometry: DefaultGeometry(), Segments: []Segment{{Chains: []Chain{{Units: []UnitID{1, 2, 3}}}}}}
	seal := func(u UnitID, intact Epoch, watermark Address, corrupt ...Address) Seal {
		return Seal{Unit: u, Intact: intact, Watermark: watermark, End: 20, Corrupt: corrupt}
	}
	for _, c := range []struct {
		name    string
		seals   []Seal
		memory  bool
		first   Address
		count   int
		givenUp []UnitID
		fails   bool
	}{
		{name: "sound", seals: []Seal{seal(1, 5, 10)}},
		{name: "one is corrupt, alone", seals: []Seal{seal(1, 5, 10, 3, 4)}, fails: true, first: 3, count: 2},
		{name: "above its watermark", seals: []Seal{seal(1, 5, 10, 12)}, fails: true, first: 12, count: 1},
		{name: "another is sound below its watermark, though it restarted", seals: []Seal{seal(1, 5, 10, 3), seal(2, 0, 10)}},
		{name: "another may have lost what is above its watermark", seals: []Seal{seal(1, 5, 10, 12), seal(2, 0, 10)}, fails: true, first: 12, count: 1},
		{name: "the sound one is intact", seals: []Seal{seal(1, 5, 10, 12), seal(2, 5, 10)}},
		{name: "the sound one is the tail", seals: []Seal{seal(1, 5, 10, 12), seal(3, 0, 10)}},
		{name: "the tail counts for nothing under memory", seals: []Seal{seal(1, 5, 10, 12), seal(3, 0, 10)}, memory: true, fails: true, first: 12, count: 1},
		{name: "both are corrupt at different addresses", seals: []Seal{seal(1, 5, 10, 3), seal(2, 5, 10, 4)}},
		{name: "both are corrupt at one", seals: []Seal{seal(1, 5, 10, 3, 4), seal(3, 5, 10, 4)}, fails: true, first: 4, count: 1},
		{name: "all are there: nobody else has it", seals: []Seal{seal(1, 5, 10, 4), seal(2, 5, 10, 4), seal(3, 5, 10, 4)}},
		{name: "others are given up", seals: []Seal{seal(1, 5, 10, 3, 4)}, givenUp: []UnitID{2, 3}},
		{name: "one of them", seals: []Seal{seal(1, 5, 10, 3, 4)}, givenUp: []UnitID{2}, fails: true, first: 3, count: 2},
		{name: "trimmed", seals: []Seal{{Unit: 1, Intact: 5, Watermark: 10, TrimmedBelow: 5, Corrupt: []Address{3}}}},
		{name: "more than it can name", seals: []Seal{{Unit: 1, Intact: 5, Watermark: 10, MoreCorrupt: true}}, fails: true},
		{name: "more than it can name, and a sound one", seals: []Seal{{Unit: 1, Intact: 5, Watermark: 10, MoreCorrupt: true, Corrupt: []Address{3}}, seal(2, 5, 10)}},
	} {
		seals := Seals{}
		want := &CorruptError{First: c.first, Count: c.count}
		for _, u := range base.Segments[0].Chains[0].Units {
			i := slices.IndexFunc(c.seals, func(s Seal) bool { return s.Unit == u })
			if i < 0 && contains(c.givenUp, u) {
				continue
			}
			if i < 0 {
				want.Missing = append(want.Missing, u)
				continue
			}
			seals[u], want.Sealed = c.seals[i], append(want.Sealed, u)
		}
		base.Durability = Flash
		if c.memory {
			base.Durability = Memory
		}
		err := SoundEnough(base, seals, c.givenUp)
		var got *CorruptError
		if !c.fails && err != nil || c.fails && (!errors.As(err, &got) || !reflect.DeepEqual(got, want)) {
			t.Errorf("%s: %+v, want %+v", c.name, err, want)
		}
	}
}

// TestR16WhoLeavesSuppliesWhatOthersHaveCorrupt: below the watermark nothing is compared else. One that has more than it can name may have any.
func TestR16WhoLeavesSuppliesWhatOthersHaveCorrupt(t *testing.T) {
	base := healing(1)
	one, two, three := Seal{Unit: 1, Corrupt: []Address{2, 3, 9}}, Seal{Unit: 2, Corrupt: []Address{3}}, Seal{Unit: 3, Corrupt: []Address{3, 4}}
	more := Seal{Unit: 1, Corrupt: []Address{2}, MoreCorrupt: true}
	for _, c := range []struct {
		chain  []Seal
		leaves UnitID
		want   []Address
		all    bool
	}{
		{[]Seal{one, two}, 2, []Address{2, 3}, false}, {[]Seal{one, two}, 1, []Address{3}, false}, {[]Seal{one, two}, 0, nil, false},
		{[]Seal{more, two}, 2, nil, true}, {[]Seal{more, two}, 1, []Address{3}, false}, {[]Seal{more, two}, 0, nil, false},
		{[]Seal{more, two, three}, 2, []Address{3, 4}, false}, {[]Seal{one, two, three}, 2, []Address{3}, false},
	} {
		seals, chain := Seals{}, &base.Segments[0].Chains[0]
		chain.Units = nil
		for _, s := range c.chain {
			seals[s.Unit], chain.Units = s, append(chain.Units, s.Unit)
		}
		got, all := OnlyLeaving(base, 0, 0, seals, func(u UnitID) bool { return u != c.leaves }, 9)
		if !slices.Equal(got, c.want) || all != c.all {
			t.Errorf("%v, unit %d leaves: %v, %v, want %v, %v", c.chain, c.leaves, got, all, c.want, c.all)
		}
	}
}
