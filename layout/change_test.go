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
	return list
}

// TestR17ChangesMoveNoPosition tries every sequence of changes up to a depth, with the tail going on by 0, 1 or 2 positions in
// between: every layout is valid, no position ever changes its stripe's address, no unit is said to hold what it was not given, and
// once all is adopted and merged nothing is left of what happened.
func TestR17ChangesMoveNoPosition(t *testing.T) {
	const seen = 14
	checked := 0
	var walk func(l *Layout, held [][]UnitID, depth int)
	walk = func(l *Layout, held [][]UnitID, depth int) {
		for _, c := range changes(l) {
			for gap := range Position(3) {
				start := l.Start + gap
				n, err := l.With(c, l.Epoch+1, start)
				if err != nil {
					if !errors.Is(err, ErrLastReplica) && !strings.Contains(err.Error(), "no chain has fewer") {
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
					if was.Address != is.Address {
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
	if len(c.Join) == 1 { // the shortest chain, the first from start on
		best := start
		for p := start; p < start+Position(len(l.Segments[0].Chains)); p++ {
			if len(out[p]) < len(out[best]) {
				best = p
			}
		}
		for p := best; p < Position(len(out)); p += Position(len(l.Segments[0].Chains)) {
			out[p] = append(out[p], c.Join[0])
		}
	}
	return out
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
