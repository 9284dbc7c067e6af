package layout

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// Change is what the next layout does otherwise than its base. Its parts are done in the order of the fields; the zero Change
// keeps all members.
//
// No change moves a position: its stripe and its address stay what they were, for ever. Only the units behind it change.
type Change struct {
	Sequencer   SequencerID // of the standbys: takes over, and the old one stands by; 0: no change
	Adopt       []Range     // were filled beforehand: the unit joins the chain of older positions
	Lost        []UnitID    // leave all chains, and are spares from then on: dead, or drained
	Add         []Unit      // new spares
	Forget      []UnitID    // spares that are listed no more
	Stay        []UnitID    // are not to leave any more
	Leave       []Leaving   // are to leave, once others hold what they hold; spares among them are out of service
	Join        []UnitID    // spares that join the chains of the positions from the new start on, the shortest chain first
	Chain       []UnitID    // spares that are one more chain, head first, over which the positions from the new start on are striped, too
	MaxSessions int         // of the geometry; 0: no change. Units lay out their staging anew as they are reconciled for the epoch
	Replicas    int         // units that a chain is to have: nobody joins a chain that has as many
}

// IsZero tells whether nothing changes.
func (c Change) IsZero() bool {
	return c.Sequencer == 0 && c.MaxSessions == 0 && len(c.Lost)+len(c.Adopt)+len(c.Add)+len(c.Forget)+len(c.Stay)+len(c.Leave)+len(c.Join)+len(c.Chain) == 0
}

// Range are the addresses From … To-1 of an older segment's chain that a unit is to join, since it is in the chain that
// follows that one.
type Range struct {
	Unit            UnitID
	Segment, Stripe int
	From, To        Address
}

// What With refuses.
var (
	// ErrLastReplica: the unit is the only one of a chain. It must come back: nobody else has what it holds.
	ErrLastReplica = errors.New("the only unit of a chain")
	// ErrNoSpare: the unit, or the sequencer, does not stand by.
	ErrNoSpare = errors.New("not a spare or standby of the layout")
	// ErrOutOfService: the unit was drained, or is to leave. Add it again, or take another.
	ErrOutOfService = errors.New("out of service")
	// ErrNoMember: no chain names the unit.
	ErrNoMember = errors.New("in no chain of the layout")
)

// With is the layout of epoch e that follows l with the change, its sequencer starting at start (rule R20), behind every entry of l's
// chains. It fails with ErrLastReplica, ErrNoSpare, ErrOutOfService or
// ErrNoMember, or with what Validate says.
func (l *Layout) With(c Change, e Epoch, start Position) (*Layout, error) {
	n := l.Next(e, start)
	if err := n.takeOver(c.Sequencer); err != nil {
		return nil, err
	}
	// What was copied counts before anybody leaves: a chain of one unit can be drained.
	for _, r := range c.Adopt {
		n.adopt(r)
	}
	for _, u := range c.Lost {
		if err := n.drop(u); err != nil {
			return nil, err
		}
	}
	n.merge()
	n.Spares = append(n.Spares, c.Add...)
	for _, u := range c.Forget {
		i := n.spare(u)
		if i < 0 {
			return nil, fmt.Errorf("unit %d: %w", u, ErrNoSpare)
		}
		n.Spares = slices.Delete(n.Spares, i, i+1)
		n.stay(u)
	}
	for _, u := range c.Stay {
		n.stay(u)
	}
	for _, x := range c.Leave {
		if err := n.leave(x); err != nil {
			return nil, err
		}
	}
	for _, u := range c.Join {
		if err := n.join(u, c.Replicas); err != nil {
			return nil, err
		}
	}
	if err := n.addChain(c.Chain); err != nil {
		return nil, err
	}
	if c.MaxSessions != 0 {
		var err error
		if n.Geometry, err = n.Geometry.WithSessions(c.MaxSessions); err != nil {
			return nil, err
		}
	}
	return n, n.Validate()
}

// takeOver makes a standby the sequencer, which stands by from then on.
func (l *Layout) takeOver(id SequencerID) error {
	if id == 0 {
		return nil
	}
	i := slices.IndexFunc(l.Standbys, func(s Sequencer) bool { return s.ID == id })
	if i < 0 {
		return fmt.Errorf("sequencer %d: %w", id, ErrNoSpare)
	}
	next := l.Standbys[i]
	l.Standbys = append(slices.Delete(l.Standbys, i, i+1), l.Sequencer)
	l.Sequencer = next
	return nil
}

func (l *Layout) spare(u UnitID) int {
	return slices.IndexFunc(l.Spares, func(s Unit) bool { return s.ID == u })
}

// drop takes u out of all chains.
func (l *Layout) drop(u UnitID) error {
	found := false
	for _, s := range l.Segments {
		for j := range s.Chains {
			c := &s.Chains[j]
			i := slices.Index(c.Units, u)
			if i < 0 {
				continue
			}
			if len(c.Units) == 1 {
				return fmt.Errorf("unit %d: %w from position %d on", u, ErrLastReplica, s.Start)
			}
			c.Units, found = slices.Delete(c.Units, i, i+1), true
		}
	}
	if !found {
		return fmt.Errorf("unit %d: %w", u, ErrNoMember)
	}
	i := slices.IndexFunc(l.Units, func(x Unit) bool { return x.ID == u })
	l.Spares = append(l.Spares, l.Units[i])
	l.Units = slices.Delete(l.Units, i, i+1)
	return nil
}

// join puts a spare at the end of a chain of the last segment, which begins at Start from then on. It holds nothing of what
// lies before.
func (l *Layout) join(u UnitID, replicas int) error {
	x, err := l.enlist(u)
	if err != nil {
		return err
	}
	chain := l.seat(u, replicas)
	if chain == nil {
		return fmt.Errorf("unit %d: no chain has fewer than %d units", u, replicas)
	}
	chain.Units = append(chain.Units, u)
	l.Units = append(l.Units, x)
	return nil
}

// enlist takes u off the spares. It serves from Start on, so that a segment begins there.
func (l *Layout) enlist(u UnitID) (Unit, error) {
	i := l.spare(u)
	if i < 0 {
		return Unit{}, fmt.Errorf("unit %d: %w", u, ErrNoSpare)
	}
	if _, out := l.leaving(u); out {
		return Unit{}, fmt.Errorf("unit %d: %w", u, ErrOutOfService)
	}
	if last := len(l.Segments) - 1; l.Start > l.Segments[last].Start {
		l.Segments = append(l.Segments, Segment{Start: l.Start, Chains: l.continued(last, l.Start)})
	}
	x := l.Spares[i]
	l.Spares = slices.Delete(l.Spares, i, i+1)
	return x, nil
}

// seat is the chain that u joins: that of the unit which it replaces, else the one with the fewest units that stay; nil if none lacks any.
func (l *Layout) seat(u UnitID, replicas int) *Chain {
	chains := l.Last().Chains
	var short *Chain
	for j := range chains {
		c := &chains[j]
		n := l.staying(c.Units)
		if n >= replicas {
			continue
		}
		if slices.ContainsFunc(l.Leaving, func(x Leaving) bool { return x.By == u && contains(c.Units, x.Unit) }) {
			return c
		}
		if short == nil || n < l.staying(short.Units) {
			short = c
		}
	}
	return short
}

// continued are the chains of a segment that begins at position at and goes on as segment i would: the same position
// keeps its chain and its address. The chain of position at is the first, so they are turned.
func (l *Layout) continued(i int, at Position) []Chain {
	s := l.Segments[i]
	n := uint64(len(s.Chains))
	off := uint64(at - s.Start)
	chains := make([]Chain, n)
	for j := range chains {
		from := s.Chains[(off+uint64(j))%n]
		chains[j] = Chain{Base: from.Base + Address((off+uint64(j))/n), Units: slices.Clone(from.Units)}
	}
	return chains
}

// merge makes one segment of two that map as one.
func (l *Layout) merge() {
	for i := len(l.Segments) - 2; i >= 0; i-- {
		next := l.Segments[i+1]
		if len(next.Chains) == len(l.Segments[i].Chains) && reflect.DeepEqual(l.continued(i, next.Start), next.Chains) {
			l.Segments = slices.Delete(l.Segments, i+1, i+2)
		}
	}
}

// heirs are, for each chain of segment i, the units that its last successor has: those of the chain itself, and those that
// joined it later and do not hold its addresses yet. A chain without a successor has its own.
//
// The successor goes on at the address at which the chain ends, and has all of its units: who joins is added, and who leaves leaves all
// segments. It is the only one, since the chains of a segment have no unit in common.
func (l *Layout) heirs(i int) [][]UnitID {
	s := l.Segments[i]
	units := make([][]UnitID, len(s.Chains))
	for j, c := range s.Chains {
		units[j] = c.Units
	}
	if i+1 == len(l.Segments) {
		return units
	}
	later := l.heirs(i + 1)
	for j, c := range s.Chains {
		for k, d := range l.Segments[i+1].Chains {
			missing := func(u UnitID) bool { return !contains(later[k], u) }
			if d.Base == l.limit(i, j) && !slices.ContainsFunc(c.Units, missing) {
				units[j] = later[k]
			}
		}
	}
	return units
}

// Behind lists what units that joined a chain do not hold of its older positions, by ascending positions.
func (l *Layout) Behind() []Range {
	var list []Range
	for i := range len(l.Segments) - 1 {
		heirs := l.heirs(i)
		for j, c := range l.Segments[i].Chains {
			for _, u := range heirs[j] {
				if !contains(c.Units, u) {
					list = append(list, Range{Unit: u, Segment: i, Stripe: j, From: c.Base, To: l.limit(i, j)})
				}
			}
		}
	}
	return list
}

// adopt puts a unit into the chain of a range, at the place that it has in the chain's successor. A range that is not Behind
// is passed over: meanwhile the unit was lost.
func (l *Layout) adopt(r Range) {
	if !slices.Contains(l.Behind(), r) {
		return
	}
	c := &l.Segments[r.Segment].Chains[r.Stripe]
	var units []UnitID
	for _, u := range l.heirs(r.Segment)[r.Stripe] {
		if u == r.Unit || contains(c.Units, u) {
			units = append(units, u)
		}
	}
	c.Units = units
}

// Deficit counts the units that chains lack to have as many as replicas: of the open segment, whose chains take new entries, and of
// the older ones. Units that are to leave do not count.
func (l *Layout) Deficit(replicas int) (open, older int) {
	for i, s := range l.Segments {
		lack := 0
		for _, c := range s.Chains {
			lack += max(0, replicas-l.staying(c.Units))
		}
		if i+1 == len(l.Segments) {
			open = lack
		} else {
			older += lack
		}
	}
	return open, older
}

// Replicas is how many units the longest chain has.
func (l *Layout) Replicas() int {
	n := 0
	for _, s := range l.Segments {
		for _, c := range s.Chains {
			n = max(n, len(c.Units))
		}
	}
	return n
}

// Shortest is how many units the shortest chain has that takes new entries.
func (l *Layout) Shortest() int {
	n := l.Replicas()
	for _, c := range l.Last().Chains {
		n = min(n, len(c.Units))
	}
	return n
}

// IsMember tells whether a chain names the unit. Nobody is a member of a nil layout (epoch 0).
func (l *Layout) IsMember(u UnitID) bool {
	if l == nil {
		return false
	}
	for _, s := range l.Segments {
		for _, c := range s.Chains {
			if contains(c.Units, u) {
				return true
			}
		}
	}
	return false
}
