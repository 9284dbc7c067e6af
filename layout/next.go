package layout

import "slices"

// Next is the layout of epoch e with the members of l, its sequencer starting at start. Reconfigurations that change
// the membership go on from it with a Change.
func (l *Layout) Next(e Epoch, start Position) *Layout {
	n := l.clone()
	n.Epoch, n.Start = e, start
	return n
}

func (l *Layout) clone() *Layout {
	n := *l
	n.Units, n.Spares, n.Standbys = slices.Clone(l.Units), slices.Clone(l.Spares), slices.Clone(l.Standbys)
	n.Leaving = slices.Clone(l.Leaving)
	n.Segments = slices.Clone(l.Segments)
	for i := range n.Segments {
		n.Segments[i].Chains = slices.Clone(n.Segments[i].Chains)
		for j := range n.Segments[i].Chains {
			n.Segments[i].Chains[j].Units = slices.Clone(n.Segments[i].Chains[j].Units)
		}
	}
	return &n
}

// Addresses are those that stripe j of segment i uses at each unit of its chain: from … to−1.
func (l *Layout) Addresses(i, j int) (from, to Address) {
	from = l.Segments[i].Chains[j].Base
	return from, max(from, l.limit(i, j))
}

// limit is the first address behind the addresses that stripe j of segment i uses, or 1 + MaxAddress in the last segment.
func (l *Layout) limit(i, j int) Address {
	s := l.Segments[i]
	if i+1 == len(l.Segments) {
		return l.Geometry.MaxAddress() + 1
	}
	n := uint64(l.Segments[i+1].Start - s.Start)
	stripes := uint64(len(s.Chains))
	// Stripe j holds the positions j, j + stripes, … below n.
	return s.Chains[j].Base + Address((n+stripes-1-uint64(j))/stripes)
}
