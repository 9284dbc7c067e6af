package server

import (
	"fmt"

	"corfu/layout"
	"corfu/unit"
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
}

// beginBackfill takes the layout that maps what is to come; its epoch is the one that the unit serves.
func (s *Server) beginBackfill(l *layout.Layout) (*backfilling, error) {
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
	return &backfilling{reconciling{s: s, layout: l, have: make([]byte, n), buffer: make([]byte, n*reconcileBatch)}, served}, nil
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
	for _, e := range entries {
		if _, mine := b.served.PositionAt(b.s.cfg.ID, e.Address); mine {
			return fmt.Errorf("unit: backfill of address %d, which the unit serves: %w", e.Address, unit.ErrBadEntry)
		}
		if err := b.one(e); err != nil {
			return err
		}
	}
	return nil
}

// end returns once all of it is durable.
func (b *backfilling) end() error {
	b.s.ctl.RLock()
	defer b.s.ctl.RUnlock()
	if err := b.s.checkServes(b.layout); err != nil {
		return err
	}
	return b.write()
}
