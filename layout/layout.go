package layout

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Unit is a storage unit as clients reach it.
type Unit struct {
	ID      UnitID
	Control string // host:port of its gRPC service
}

// Sequencer is a sequencer as clients reach it. The fabric addresses of units and sequencers
// are learned when a session is opened.
type Sequencer struct {
	ID      SequencerID
	Control string // host:port of its gRPC service
}

// Chain is an ordered list of replicas, head first.
type Chain struct {
	Base  Address // address of the chain's first position in this segment
	Units []UnitID
}

// Head is the unit at which every entry is decided.
func (c Chain) Head() UnitID { return c.Units[0] }

// Tail is the unit from which entries are read.
func (c Chain) Tail() UnitID { return c.Units[len(c.Units)-1] }

// Segment maps the positions from Start on, up to the next segment.
type Segment struct {
	Start  Position
	Chains []Chain
}

// Layout maps positions to chains in one epoch (CORFU: projection). It is
// immutable once made: everybody who holds a layout of epoch e holds the same.
type Layout struct {
	Log        LogID
	Epoch      Epoch
	Geometry   Geometry
	Durability Durability
	Sequencer  Sequencer
	Start      Position // the sequencer's first position in this epoch (rule R20)
	Units      []Unit   // every unit that a chain names
	Segments   []Segment

	// What stands by. No client needs it.
	Spares   []Unit      // hold nothing of the log; wiped before they join a chain (rule R17). Units that were lost end here
	Standbys []Sequencer // one of them goes on when the sequencer is lost
	Leaving  []Leaving   // units that are to leave; spares among them are out of service
}

// ErrBeyond: no segment holds the position, or it has no address at the chain's units.
var ErrBeyond = errors.New("position beyond the layout")

// Place is where a position lives.
type Place struct {
	Chain   Chain
	Address Address
	Segment int // index in Segments
	Stripe  int // index in the segment's Chains
}

// Last is the segment that takes new entries.
func (l *Layout) Last() *Segment { return &l.Segments[len(l.Segments)-1] }

// Locate gives the place of p. It fails with ErrBeyond.
func (l *Layout) Locate(p Position) (Place, error) {
	i := sort.Search(len(l.Segments), func(i int) bool { return l.Segments[i].Start > p }) - 1
	if i < 0 || p > MaxPosition {
		return Place{}, fmt.Errorf("position %d: %w", p, ErrBeyond)
	}
	s := &l.Segments[i]
	off, n := uint64(p-s.Start), uint64(len(s.Chains))
	c := s.Chains[off%n]
	a := c.Base + Address(off/n)
	if a > l.Geometry.MaxAddress() {
		return Place{}, fmt.Errorf("position %d: address %d: %w", p, a, ErrBeyond)
	}
	return Place{Chain: c, Address: a, Segment: i, Stripe: int(off % n)}, nil
}

// PositionAt is the inverse of Locate for one unit: the position that lives at
// address a of unit u, if any does.
func (l *Layout) PositionAt(u UnitID, a Address) (Position, bool) {
	for i := range l.Segments {
		s := &l.Segments[i]
		for j, c := range s.Chains {
			// The bound before the product: an address that a peer made up must not wrap around to a position.
			n := uint64(len(s.Chains))
			if a < c.Base || a > l.Geometry.MaxAddress() || uint64(a-c.Base) > uint64(MaxPosition)/n || !contains(c.Units, u) {
				continue
			}
			p := s.Start + Position(uint64(a-c.Base)*n) + Position(j)
			if p <= MaxPosition && (i+1 == len(l.Segments) || p < l.Segments[i+1].Start) {
				return p, true
			}
		}
	}
	return 0, false
}

// First is the lowest address of unit u; 0 if no chain names it.
func (l *Layout) First(u UnitID) Address {
	none := l.Geometry.MaxAddress() + 1
	first := none
	for i, s := range l.Segments {
		for j, c := range s.Chains {
			if contains(c.Units, u) && c.Base < l.limit(i, j) {
				first = min(first, c.Base)
			}
		}
	}
	if first == none {
		return 0
	}
	return first
}

// MappedBelow counts the addresses of unit u below a at which positions live.
func (l *Layout) MappedBelow(u UnitID, a Address) (n uint64) {
	for i, s := range l.Segments {
		for j, c := range s.Chains {
			if to := min(a, l.limit(i, j)); to > c.Base && contains(c.Units, u) {
				n += uint64(to - c.Base)
			}
		}
	}
	return n
}

// Unit gives the endpoint of a unit.
func (l *Layout) Unit(id UnitID) (Unit, bool) {
	for _, u := range l.Units {
		if u.ID == id {
			return u, true
		}
	}
	return Unit{}, false
}

func contains(ids []UnitID, id UnitID) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// Validate reports everything that is wrong with the layout.
func (l *Layout) Validate() error {
	var p problems
	if l.Log.IsZero() {
		p.add("log id is zero")
	}
	if l.Epoch == 0 || l.Epoch > MaxEpoch {
		p.add("epoch %d: must be 1 to %d", l.Epoch, MaxEpoch)
	}
	if err := l.Geometry.Validate(); err != nil {
		p.add("geometry: %w", err)
	}
	if l.Durability > Memory {
		p.add("unknown durability %d", l.Durability)
	}
	if l.Start > MaxPosition {
		p.add("sequencer start %d: must be at most %d", l.Start, MaxPosition)
	}
	l.validateUnits(&p)
	l.validateSegments(&p)
	l.validateLeaving(&p)
	return p.err()
}

func (l *Layout) validateUnits(p *problems) {
	seen := map[UnitID]bool{}
	for _, u := range slices.Concat(l.Units, l.Spares) {
		if u.ID == 0 || u.Control == "" {
			p.add("unit %d has no id or no control address", u.ID)
		}
		if seen[u.ID] {
			p.add("unit %d is listed twice", u.ID)
		}
		seen[u.ID] = true
	}
	sequencers := map[SequencerID]bool{}
	for _, s := range slices.Concat([]Sequencer{l.Sequencer}, l.Standbys) {
		if s.ID == 0 || s.Control == "" {
			p.add("sequencer %d has no id or no control address", s.ID)
		}
		if sequencers[s.ID] {
			p.add("sequencer %d is listed twice", s.ID)
		}
		sequencers[s.ID] = true
	}
}

func (l *Layout) validateSegments(p *problems) {
	if len(l.Segments) == 0 {
		p.add("no segments")
		return
	}
	if l.Segments[0].Start != 0 {
		p.add("the first segment starts at %d: must be 0", l.Segments[0].Start)
	}
	for i, s := range l.Segments {
		if i > 0 && s.Start <= l.Segments[i-1].Start {
			p.add("segment %d starts at %d: must be beyond %d", i, s.Start, l.Segments[i-1].Start)
		}
		if len(s.Chains) == 0 {
			p.add("segment %d has no chains", i)
		}
		inSegment := map[UnitID]bool{}
		for j, c := range s.Chains {
			if len(c.Units) == 0 {
				p.add("segment %d chain %d has no units", i, j)
			}
			for _, u := range c.Units {
				if _, ok := l.Unit(u); !ok {
					p.add("segment %d chain %d names unit %d, which is not listed", i, j, u)
				}
				if inSegment[u] {
					p.add("segment %d names unit %d twice", i, u)
				}
				inSegment[u] = true
			}
			if c.Base > l.Geometry.MaxAddress() {
				p.add("segment %d chain %d starts at address %d: must be at most %d", i, j, c.Base, l.Geometry.MaxAddress())
			}
		}
	}
	l.validateOverlap(p)
}

// validateOverlap refuses two segments that use one address of a unit for two positions.
func (l *Layout) validateOverlap(p *problems) {
	end := map[UnitID]Address{} // first address that earlier segments leave free
	for i, s := range l.Segments {
		if i+1 < len(l.Segments) && l.Segments[i+1].Start <= s.Start {
			return // reported already
		}
		for j, c := range s.Chains {
			for _, u := range c.Units {
				if c.Base < end[u] {
					p.add("segment %d chain %d starts at address %d of unit %d: must be at least %d", i, j, c.Base, u, end[u])
				}
				if i+1 < len(l.Segments) {
					n := uint64(l.Segments[i+1].Start-s.Start) / uint64(len(s.Chains))
					if uint64(l.Segments[i+1].Start-s.Start)%uint64(len(s.Chains)) > uint64(j) {
						n++
					}
					end[u] = c.Base + Address(n)
				}
			}
		}
	}
}
