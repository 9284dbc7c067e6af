package server

import (
	"fmt"
	"slices"

	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

// backfilling takes entries of older positions while the unit serves, at addresses that its layout does not map: it
// joined the chain behind them. Nobody asks for them before a later layout maps them, and that one is reconciled first (rule R17). A seal
// ends it.
//
// What comes is final: the sender saw it durable at every member of the chain in the epoch that the unit serves. Only a trim can still change
// it, and of those the sender hears when the next epoch is sealed.
type backfilling struct {
	reconciling
	served *layout.Layout
	copied []*pb.CopiedRange // what is, once the stream has ended well
}

// beginBackfill takes the layout that maps what is to come; its epoch is the one that the unit serves.
func (s *Server) beginBackfill(l *layout.Layout, h *pb.ReconcileHeader) (*backfilling, error) {
	s.ctl.RLock()
	defer s.ctl.RUnlock()
	if err := s.checkServes(l); err != nil {
		return nil, err
	}
	served := s.store.Meta().Layout
	if served == nil || served.Geometry != l.Geometry {
		return nil, fmt.Errorf("unit: backfill of another geometry: %w", unit.ErrBadEntry)
	}
	n := l.Geometry.PageSize
	return &backfilling{reconciling{s: s, layout: l, have: s.newRuns(n), buffer: make([]byte, n*reconcileBatch)}, served, h.Copied}, nil
}

func (s *Server) checkServes(l *layout.Layout) (err error) {
	if e := s.do(func(u *unit.Unit) { err = u.CheckOpen(l.Log, l.Epoch) }); e != nil {
		return e
	}
	return err
}

// add takes entries, in order of their addresses. Where the unit serves already it takes none.
func (b *backfilling) add(entries []unit.Entry) error {
	b.s.ctl.RLock()
	defer b.s.ctl.RUnlock()
	if err := b.s.checkServes(b.layout); err != nil {
		return err
	}
	return b.all(entries, func(a layout.Address) error {
		if _, mine := b.served.PositionAt(b.s.cfg.ID, a); mine {
			return fmt.Errorf("unit: backfill of address %d, which the unit serves: %w", a, unit.ErrBadEntry)
		}
		return nil
	})
}

// end returns once all of it is durable.
func (b *backfilling) end() error {
	b.s.ctl.RLock()
	defer b.s.ctl.RUnlock()
	if err := b.s.checkServes(b.layout); err != nil {
		return err
	}
	if err := b.write(); err != nil {
		return err
	}
	return b.remember()
}

// remember notes, durably, how far the ranges are copied: whoever leads the layout servers next goes on from there. The note goes with
// what it speaks of, when the unit is wiped.
func (b *backfilling) remember() error {
	if len(b.copied) == 0 {
		return nil
	}
	return b.s.store.UpdateMeta(func(m *flash.Meta) {
		for _, c := range toCopied(b.copied) {
			m.Copied = slices.DeleteFunc(slices.Clone(m.Copied), func(o flash.Copied) bool { return o.From == c.From && o.To == c.To })
			m.Copied = append(m.Copied, c)
		}
	})
}

// toCopied returns the notes that a message brings.
func toCopied(list []*pb.CopiedRange) (out []flash.Copied) {
	for _, x := range list {
		out = append(out, flash.Copied{From: layout.Address(x.From), To: layout.Address(x.To), Below: layout.Address(x.Below), Since: layout.Epoch(x.Since)})
	}
	return out
}

// copiedRanges are the notes of remember.
func (s *Server) copiedRanges() (list []*pb.CopiedRange) {
	for _, x := range s.store.Meta().Copied {
		list = append(list, &pb.CopiedRange{From: uint64(x.From), To: uint64(x.To), Below: uint64(x.Below), Since: uint64(x.Since)})
	}
	return list
}
