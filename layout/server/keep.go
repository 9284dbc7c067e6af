package server

import (
	"cmp"
	"slices"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// A unit that left its chain and comes back with its store whole is not wiped and copied anew: a
// pause of a second would cost a copy of everything, and the store may have the only sound copy of
// a page that is damaged at the others. It joins as a spare does, and keeps the addresses below
// which everything was decided as it left. Those are as good as copied, in the last epoch in which
// it was a member (docs/model, R17-copy), so that the rebuilder goes on from there.

// kept says what a unit that joins keeps.
type kept struct {
	from, below layout.Address // all that it has there is what was decided,
	since       layout.Epoch   // as it was in this epoch: trims that came later are to be told
}

// keeps returns what a unit that joins the proposed layout keeps; ok is false for one that is to be
// wiped.
func (r *reconfiguration) keeps(m *member) (k kept, ok bool) {
	var left layout.LeftMember
	r.store.fsm.view(func(s *layout.State) { left, ok = s.Left(m.unit) })
	seal := r.seals[m.unit]
	if !ok || !left.Whole(seal.Store) || !sameChain(r.layout, left) || !r.trimsFit(m, seal, left.Base.Epoch) {
		return kept{}, false
	}
	// Once it has begun to keep its watermark speaks of later addresses. An attempt that came to
	// nothing may have left it so.
	own := seal.Watermark
	if m.report.past.Kept != 0 {
		own = m.report.past.Kept
	}
	k = kept{left.From, min(left.Below, own), left.Base.Epoch}
	return k, k.below > k.from
}

// mayWipe fails if a unit would be wiped that may have the only sound copy of something.
func (r *reconfiguration) mayWipe() error {
	if r.base == nil {
		return nil
	}
	for _, m := range r.parts {
		var left layout.LeftMember
		ok := false
		r.store.fsm.view(func(s *layout.State) { left, ok = s.Left(m.unit) })
		if _, keeps := r.keeps(m); !ok || keeps || contains(r.accepted, m.unit) {
			continue
		}
		if err := r.vouch.mayWipe(m.unit, r.seals[m.unit].Store, left, r.base); err != nil {
			return err
		}
	}
	return nil
}

// sameChain reports whether the unit joins the chain that it left. In another one other positions
// live at its addresses.
func sameChain(l *layout.Layout, left layout.LeftMember) bool {
	return slices.ContainsFunc(l.Behind(), func(x layout.Range) bool {
		if x.Unit != left.Unit || left.From < x.From || left.From >= x.To {
			return false
		}
		p, ok := l.PositionAt(l.Segments[x.Segment].Chains[x.Stripe].Head(), left.From)
		return ok && p == left.At
	})
}

// trimsFit reports whether the unit shows nothing as trimmed that the chains which it joins do not:
// as their new tail it would answer so, and after its loss the entry would be there again
// (docs/model, trim-one-sided). Its own single trims are told to the others if it knows them.
func (r *reconfiguration) trimsFit(m *member, seal layout.Seal, since layout.Epoch) bool {
	if known := m.report.trims; m.report.past.Singles && (known == 0 || known > since) {
		return false
	}
	for _, x := range r.layout.Behind() {
		if x.Unit != m.unit {
			continue
		}
		for _, u := range r.layout.Segments[x.Segment].Chains[x.Stripe].Units {
			if s, sealed := r.seals[u]; sealed && s.TrimmedBelow < min(seal.TrimmedBelow, x.To) {
				return false
			}
		}
	}
	return true
}

// keepHeader completes the header for a unit that joins and keeps what it has.
func (r *reconfiguration) keepHeader(m *member, h *pb.ReconcileHeader) {
	k, ok := r.keeps(m)
	if !ok {
		return
	}
	h.Wipe, h.Keep, h.KeepBelow = false, true, uint64(k.below)
	for _, x := range r.layout.Behind() {
		if x.Unit != m.unit {
			continue
		}
		if c := k.covers(x, m.report.copied); c.below > x.From {
			h.Copied = append(h.Copied, c.note(c.below))
		}
	}
	r.log.Info("a unit comes back with its store whole and keeps what it has", "unit", uint32(m.unit), "below", h.KeepBelow,
		"since", uint64(k.since))
}

// covers returns how much of a range that the unit is behind it has already: what it served itself,
// and what was copied to it before that.
func (k kept) covers(x layout.Range, notes []*pb.CopiedRange) copied {
	c := copied{Range: x, below: x.From, since: layout.MaxEpoch}
	for grown := true; grown && c.below < x.To; {
		grown = false
		grow := func(from, below layout.Address, since layout.Epoch) {
			if from <= c.below && c.below < below {
				c.below, c.since, grown = below, min(c.since, since), true
			}
		}
		grow(k.from, k.below, k.since)
		for _, n := range notes {
			// Above what is kept everything is forgotten, whatever was copied there.
			grow(layout.Address(n.From), min(layout.Address(n.Below), k.below), layout.Epoch(n.Since))
		}
	}
	c.below = min(c.below, x.To)
	return c
}

// settled says of each unit that the proposed layout leaves out up to where its store is settled.
func (r *reconfiguration) settled() (list []layout.Settled) {
	if r.base == nil {
		return nil
	}
	for _, u := range r.base.Units {
		if !r.layout.IsMember(u.ID) {
			list = append(list, layout.SettledAt(r.base, u.ID, r.seals))
		}
	}
	slices.SortFunc(list, func(a, b layout.Settled) int { return cmp.Compare(a.Unit, b.Unit) })
	return list
}
