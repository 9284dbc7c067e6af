package layout

import (
	"fmt"
	"slices"
)

// Leaving is a unit that is to leave its chains, and does once others hold all that it holds. One that has left, or was a spare
// when it was named, is out of service: it stands by for nothing.
//
// The layout keeps it, so that whoever leads the layout servers goes on with it.
type Leaving struct {
	Unit UnitID
	By   UnitID // the spare that takes its place; 0: any
}

// leaving gives what is said of a unit that is to leave.
func (l *Layout) leaving(u UnitID) (Leaving, bool) {
	for _, x := range l.Leaving {
		if x.Unit == u {
			return x, true
		}
	}
	return Leaving{}, false
}

// IsLeaving tells whether a unit is to leave, or out of service, and which one takes its place; 0: any.
func (l *Layout) IsLeaving(u UnitID) (by UnitID, yes bool) {
	x, yes := l.leaving(u)
	return x.By, yes
}

// leave notes that a unit is to leave.
func (l *Layout) leave(x Leaving) error {
	if l.spare(x.Unit) < 0 && !l.IsMember(x.Unit) {
		return fmt.Errorf("unit %d: %w", x.Unit, ErrNoMember)
	}
	l.stay(x.Unit)
	l.Leaving = append(l.Leaving, x)
	return nil
}

func (l *Layout) stay(u UnitID) {
	l.Leaving = slices.DeleteFunc(l.Leaving, func(x Leaving) bool { return x.Unit == u })
}

// staying counts the units that are not to leave.
func (l *Layout) staying(units []UnitID) int {
	n := 0
	for _, u := range units {
		if _, out := l.leaving(u); !out {
			n++
		}
	}
	return n
}

// Dispensable are the units that are to leave and can: each of their chains has replicas units that stay, older positions included.
func (l *Layout) Dispensable(replicas int) []UnitID {
	var list []UnitID
	for _, x := range l.Leaving {
		if l.IsMember(x.Unit) && l.fewest(x.Unit) >= replicas {
			list = append(list, x.Unit)
		}
	}
	return list
}

// fewest is how many units stay in the shortest of the chains that u is in.
func (l *Layout) fewest(u UnitID) int {
	n := len(l.Units)
	for _, s := range l.Segments {
		for _, c := range s.Chains {
			if contains(c.Units, u) {
				n = min(n, l.staying(c.Units))
			}
		}
	}
	return n
}

// HasChain tells whether a chain of the open segment has these units, in any order.
func (l *Layout) HasChain(units []UnitID) bool {
	want := slices.Sorted(slices.Values(units))
	return slices.ContainsFunc(l.Last().Chains, func(c Chain) bool {
		return slices.Equal(slices.Sorted(slices.Values(c.Units)), want)
	})
}

// addChain makes one more chain of spares, for the positions from Start on. Nothing is moved: older positions keep their stripes.
func (l *Layout) addChain(units []UnitID) error {
	for _, u := range units {
		x, err := l.enlist(u)
		if err != nil {
			return err
		}
		l.Units = append(l.Units, x)
	}
	if len(units) > 0 {
		last := l.Last()
		last.Chains = append(last.Chains, Chain{Units: slices.Clone(units)}) // at address 0: they hold nothing
	}
	return nil
}

func (l *Layout) validateLeaving(p *problems) {
	seen := map[UnitID]bool{}
	for _, x := range l.Leaving {
		if _, listed := l.Unit(x.Unit); !listed && l.spare(x.Unit) < 0 {
			p.add("unit %d is to leave and is not listed", x.Unit)
		}
		if seen[x.Unit] || x.Unit == x.By {
			p.add("unit %d is to leave twice, or in favour of itself", x.Unit)
		}
		seen[x.Unit] = true
	}
}
