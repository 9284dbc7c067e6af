package layout

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// healing is a small log: stripes × 2 units, two spares, a standby.
func healing(stripes int) *Layout {
	l := &Layout{
		Log: LogID{1}, Epoch: 1, Geometry: DefaultGeometry(), Sequencer: Sequencer{1, "seq:1"},
		Standbys: []Sequencer{{2, "seq:2"}}, Segments: []Segment{{}},
	}
	for j := range stripes {
		var c Chain
		for k := range 2 {
			id := UnitID(2*j + k + 1)
			l.Units = append(l.Units, Unit{id, fmt.Sprint("unit:", id)})
			c.Units = append(c.Units, id)
		}
		l.Segments[0].Chains = append(l.Segments[0].Chains, c)
	}
	for k := range 2 {
		id := UnitID(2*stripes + k + 1)
		l.Spares = append(l.Spares, Unit{id, fmt.Sprint("unit:", id)})
	}
	return l
}

// holders is what a layout says of the first positions: the units that have each, in order.
func holders(l *Layout, n Position) [][]UnitID {
	out := make([][]UnitID, n)
	for p := range n {
		place, err := l.Locate(p)
		if err != nil {
			panic(err)
		}
		out[p] = slices.Clone(place.Chain.Units)
	}
	return out
}

// every change that is possible from l on, starting at the position.
func changes(l *Layout) []Change {
	list := []Change{{}, {Sequencer: l.Standbys[0].ID}}
	for _, u := range l.Units {
		list = append(list, Change{Lost: []UnitID{u.ID}})
		for _, s := range l.Spares {
			list = append(list, Change{Lost: []UnitID{u.ID}, Join: []UnitID{s.ID}, Replicas: 2})
		}
	}
	for _, s := range l.Spares {
		list = append(list, Change{Join: []UnitID{s.ID}, Replicas: 2})
	}
	for _, r := range l.Behind() {
		list = append(list, Change{Adopt: []Range{r}})
	}
	if b := l.Behind(); len(b) > 1 {
		list = append(list, Change{Adopt: b})
	}
	for _, u := range l.Units {
		for _, s := range l.Spares {
			list = append(list, Change{Leave: []Leaving{{u.ID, s.ID}}, Join: []UnitID{s.ID}, Replicas: 2})
		}
	}
	for _, u := range l.Dispensable(2) {
		list = append(list, Change{Lost: []UnitID{u}})
	}
	if len(l.Spares) > 1 {
		list = append(list, Change{Chain: []UnitID{l.Spares[0].ID, l.Spares[1].ID}})
	}
	return list
}

// TestR17ChangesMoveNoPosition tries every sequence of changes up to a depth, with the tail going on by 0, 1 or 2 positions in
// between: every layout is valid, no position ever changes its stripe's address, no unit is said to hold what it was not given, and
// once all is adopted and merged nothing is left of what happened.
func TestR17ChangesMoveNoPosition(t *testing.T) {
	const seen = 20
	checked := 0
	var walk func(l *Layout, held [][]UnitID, depth int)
	walk = func(l *Layout, held [][]UnitID, depth int) {
		for _, c := range changes(l) {
			for gap := range Position(3) {
				start := l.Start + gap
				n, err := l.With(c, l.Epoch+1, start)
				if err != nil {
					if !errors.Is(err, ErrLastReplica) && !errors.Is(err, ErrOutOfService) && !strings.Contains(err.Error(), "no chain has fewer") {
						t.Fatalf("%+v of %+v: %v", c, l, err)
					}
					continue
				}
				checked++
				next := expect(l, held, c, start)
				if got := holders(n, seen); !reflect.DeepEqual(got, next) {
					t.Fatalf("%+v at %d of\n%+v is\n%+v: %v hold, want %v", c, start, l, n, got, next)
				}
				for p := range Position(seen) {
					was, _ := l.Locate(p)
					is, _ := n.Locate(p)
					// Positions from start on that nobody wrote yet are striped anew over one more chain.
					if was.Address != is.Address && (len(c.Chain) == 0 || p < start) {
						t.Fatalf("%+v at %d of %+v: position %d moved from %d to %d", c, start, l, p, was.Address, is.Address)
					}
					for _, u := range is.Chain.Units {
						if q, ok := n.PositionAt(u, is.Address); !ok || q != p {
							t.Fatalf("%+v: unit %d address %d is position %d, want %d", n, u, is.Address, q, p)
						}
					}
				}
				if depth > 1 {
					walk(n, next, depth-1)
				}
			}
		}
	}
	for stripes := 1; stripes <= 2; stripes++ {
		l := healing(stripes)
		l.Start = 3
		walk(l, holders(l, seen), 4-stripes)
	}
	if checked < 1000 {
		t.Errorf("only %d layouts", checked)
	}
}

// expect says, without segments, who holds what after a change.
func expect(l *Layout, held [][]UnitID, c Change, start Position) [][]UnitID {
	out := make([][]UnitID, len(held))
	for p := range held {
		for _, u := range held[p] {
			if !slices.Contains(c.Lost, u) {
				out[p] = append(out[p], u)
			}
		}
	}
	for _, r := range c.Adopt {
		for p := range out {
			if place, _ := l.Locate(Position(p)); place.Segment == r.Segment && place.Stripe == r.Stripe {
				out[p] = append(out[p], r.Unit)
			}
		}
	}
	stripes := Position(len(l.Segments[len(l.Segments)-1].Chains))
	if len(c.Join) == 1 {
		best := seatOf(l, out, c, start, stripes)
		for p := best; p < Position(len(out)); p += stripes {
			out[p] = append(out[p], c.Join[0])
		}
	}
	if len(c.Chain) > 0 { // the chains that there were go round, from start on, and then comes the new one
		round := slices.Clone(out[start : start+stripes])
		round = append(round, c.Chain)
		for p := start; p < Position(len(out)); p++ {
			out[p] = slices.Clone(round[(p-start)%(stripes+1)])
		}
	}
	return out
}

// seatOf is the first position whose chain a unit joins: that of the unit it replaces, else the shortest, and of those the first from start on.
func seatOf(l *Layout, held [][]UnitID, c Change, start, stripes Position) Position {
	staying := func(units []UnitID) (n int) {
		for _, u := range units {
			_, out := l.IsLeaving(u)
			if !out && !slices.ContainsFunc(c.Leave, func(x Leaving) bool { return x.Unit == u }) {
				n++
			}
		}
		return n
	}
	best := start
	for p := start; p < start+stripes; p++ {
		for _, x := range append(slices.Clone(l.Leaving), c.Leave...) {
			if x.By == c.Join[0] && slices.Contains(held[p], x.Unit) && staying(held[p]) < c.Replicas {
				return p
			}
		}
		if staying(held[p]) < staying(held[best]) {
			best = p
		}
	}
	return best
}

// TestRebuiltChainsMergeAgain heals after random losses, and wants one segment back, with all chains whole.
func TestRebuiltChainsMergeAgain(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := healing(1 + int(seed%3))
		for range 6 {
			u := l.Units[r.IntN(len(l.Units))].ID
			n, err := l.With(Change{Lost: []UnitID{u}, Join: []UnitID{l.Spares[0].ID}, Replicas: 2}, l.Epoch+1, l.Start+Position(r.IntN(5)))
			if errors.Is(err, ErrLastReplica) {
				continue
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if l = n; r.IntN(2) == 0 {
				if l, err = l.With(Change{Adopt: l.Behind()}, l.Epoch+1, l.Start); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		l, err := l.With(Change{Adopt: l.Behind()}, l.Epoch+1, l.Start)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		open, older := l.Deficit(2)
		if len(l.Segments) != 1 || open+older != 0 || len(l.Behind()) != 0 {
			t.Fatalf("seed %d: %+v", seed, l)
		}
	}
}

// TestDrainedUnitLeavesOnceOthersHoldAll goes through a drain and a replacement: who is to leave counts no more, who takes its place joins
// its chain and no shorter one, and it leaves, out of service, when the older positions are there, too. Chains of one unit can be drained.
func TestDrainedUnitLeavesOnceOthersHoldAll(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		l := healing(2)
		for j := range l.Segments[0].Chains {
			l.Segments[0].Chains[j].Units = l.Segments[0].Chains[j].Units[:replicas]
		}
		if replicas == 1 {
			l.Units = []Unit{l.Units[0], l.Units[2]}
		}
		first := l.clone()
		step := func(c Change, start Position) {
			t.Helper()
			n, err := l.With(c, l.Epoch+1, start)
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			l = n
		}
		step(Change{Leave: []Leaving{{3, 6}}, Join: []UnitID{6}, Replicas: replicas}, 10)
		if open, older := l.Deficit(replicas); open != 0 || older != 1 || len(l.Dispensable(replicas)) != 0 {
			t.Errorf("%d replicas: lack %d and %d, dispensable %v, in %+v", replicas, open, older, l.Dispensable(replicas), l)
		}
		if by, yes := l.IsLeaving(3); !yes || by != 6 {
			t.Errorf("unit 3 leaves: %v, by %d", yes, by)
		}
		whole, err := l.With(Change{Adopt: l.Behind()}, l.Epoch+1, 12)
		if err != nil || !reflect.DeepEqual(whole.Dispensable(replicas), []UnitID{3}) {
			t.Errorf("%v, dispensable %v", err, whole.Dispensable(replicas))
		}
		step(Change{Adopt: l.Behind(), Lost: []UnitID{3}}, 12)
		want := first.Next(3, 12)
		want.Segments[0].Chains[1].Units = append(slices.Clone(want.Segments[0].Chains[1].Units[1:]), 6)
		i := slices.IndexFunc(want.Units, func(u Unit) bool { return u.ID == 3 })
		want.Spares, want.Leaving = []Unit{want.Spares[0], want.Units[i]}, []Leaving{{3, 6}}
		want.Units = append(slices.Delete(want.Units, i, i+1), Unit{6, "unit:6"})
		if !reflect.DeepEqual(l, want) {
			t.Errorf("%d replicas:\n%+v, want\n%+v", replicas, l, want)
		}
		if _, err := l.With(Change{Lost: []UnitID{1}, Join: []UnitID{3}, Replicas: 2}, 9, 12); replicas == 2 && !errors.Is(err, ErrOutOfService) {
			t.Errorf("it joins again: %v", err)
		}
		if n, err := l.With(Change{Stay: []UnitID{3}, Lost: []UnitID{1}, Join: []UnitID{3}, Replicas: 2}, 9, 12); replicas == 2 && (err != nil || !n.IsMember(3)) {
			t.Errorf("in service again: %v", err)
		}
		if n, err := l.With(Change{Forget: []UnitID{3}}, 9, 12); err != nil || len(n.Leaving) != 0 {
			t.Errorf("forgotten: %+v, %v", n, err)
		}
	}
}

// TestUnitLostBeforeAChainWasAddedIsReplacedInOlderPositions: segments of different numbers of chains still are one chain's history.
func TestUnitLostBeforeAChainWasAddedIsReplacedInOlderPositions(t *testing.T) {
	l := healing(2)
	l.Spares = append(l.Spares, Unit{7, "unit:7"})
	l, err := l.With(Change{Chain: []UnitID{5, 6}}, 2, 11)
	if err != nil || !l.HasChain([]UnitID{6, 5}) || l.HasChain([]UnitID{5}) {
		t.Fatalf("%+v, %v", l, err)
	}
	// Position 11 belongs to the second chain, which has 5 positions so far, the first 6.
	if want := []Chain{{Base: 5, Units: []UnitID{3, 4}}, {Base: 6, Units: []UnitID{1, 2}}, {Units: []UnitID{5, 6}}}; !reflect.DeepEqual(l.Segments[1].Chains, want) {
		t.Errorf("chains %+v, want %+v", l.Segments[1].Chains, want)
	}
	if l, err = l.With(Change{Lost: []UnitID{1}, Join: []UnitID{7}, Replicas: 2}, 3, 20); err != nil {
		t.Fatal(err)
	}
	want := []Range{{Unit: 7, Segment: 0, Stripe: 0, From: 0, To: 6}, {Unit: 7, Segment: 1, Stripe: 1, From: 6, To: 9}}
	if got := l.Behind(); !reflect.DeepEqual(got, want) {
		t.Errorf("behind %+v, want %+v", got, want)
	}
	if l, err = l.With(Change{Adopt: want}, 4, 20); err != nil || len(l.Behind()) != 0 || len(l.Segments) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestChangeSaysWhatIsWrong(t *testing.T) {
	l := healing(1)
	for _, c := range []struct {
		name   string
		change Change
		want   error
	}{
		{"both units of a chain", Change{Lost: []UnitID{1, 2}}, ErrLastReplica},
		{"a unit that is none", Change{Lost: []UnitID{9}}, ErrNoMember},
		{"a spare that leaves", Change{Lost: []UnitID{3}}, ErrNoMember},
		{"a member that joins", Change{Join: []UnitID{1}, Replicas: 3}, ErrNoSpare},
		{"no such standby", Change{Sequencer: 1}, ErrNoSpare},
		{"no such spare", Change{Forget: []UnitID{2}}, ErrNoSpare},
		{"a chain of members", Change{Chain: []UnitID{1}}, ErrNoSpare},
		{"a unit that is none leaves", Change{Leave: []Leaving{{9, 0}}}, ErrNoMember},
		{"out of service", Change{Leave: []Leaving{{3, 0}}, Chain: []UnitID{3}}, ErrOutOfService},
	} {
		if _, err := l.With(c.change, 2, 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	n, err := l.With(Change{Lost: []UnitID{1}, Sequencer: 2, Add: []Unit{{7, "unit:7"}}, Forget: []UnitID{1, 4}, Join: []UnitID{3}, Replicas: 2}, 2, 10)
	want := &Layout{
		Log: LogID{1}, Epoch: 2, Geometry: DefaultGeometry(), Start: 10, Sequencer: Sequencer{2, "seq:2"}, Standbys: []Sequencer{{1, "seq:1"}},
		Units: []Unit{{2, "unit:2"}, {3, "unit:3"}}, Spares: []Unit{{7, "unit:7"}},
		Segments: []Segment{{Chains: []Chain{{Units: []UnitID{2}}}}, {Start: 10, Chains: []Chain{{Base: 10, Units: []UnitID{2, 3}}}}},
	}
	if err != nil || !reflect.DeepEqual(n, want) {
		t.Errorf("%+v, %v; want %+v", n, err, want)
	}
	if !reflect.DeepEqual(l, healing(1)) {
		t.Error("the base was changed")
	}
}
