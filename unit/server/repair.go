package server

import (
	"bytes"
	"errors"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

var (
	// errChanging: the unit changes its epoch, or restarts. Whoever asked learns the new one.
	errChanging = errors.New("unit: changing its epoch")

	// errReadBack: flash took a page and gives another one.
	errReadBack = errors.New("unit: a page that was written anew does not read back")
)

// stored tells what flash has at a: EMPTY if that is no whole page of a, or cannot be read, or no layout names a.
func (s *Server) stored(a layout.Address, page []byte) (wire.State, error) {
	p, log, mapped := s.position(a)
	if !mapped {
		return wire.Empty, nil
	}
	if err := s.store.ReadPage(a, page); err != nil {
		clear(page)
		return wire.Empty, err
	}
	state, _ := unit.Classify(page, log, p)
	return state, nil
}

// suspect looks once more at an address whose page did not verify, or could not be read, while no repair writes to it. If that is so
// still the core is told: the copy is CORRUPT, and is to be repaired. It reports whether that is so; sure: it could be found out.
func (s *Server) suspect(a layout.Address) (corrupt, sure bool) {
	// While an epoch changes, pages may be wiped and written.
	if !s.ctl.TryRLock() {
		return false, false
	}
	defer s.ctl.RUnlock()
	judge := func(damaged bool) error {
		return s.do(func(u *unit.Unit) {
			if damaged {
				u.Damaged(a)
			}
			corrupt, sure = u.IsCorrupt(a), u.View().Phase == unit.Open
		})
	}
	// What is known need not wait for a repair that has the disk.
	if err := judge(false); err != nil || corrupt {
		return corrupt, sure
	}
	s.repairMu.Lock()
	defer s.repairMu.Unlock()
	meta := s.store.Meta()
	if meta.Layout == nil {
		return false, false
	}
	switch state, _ := s.stored(a, flash.Buffer(meta.Layout.Geometry.PageSize)); state {
	case wire.Durable, wire.DurableJunk, wire.Trimmed:
		return false, true
	}
	err := judge(true)
	if err == nil && corrupt {
		if err := s.saveSettled(); err != nil {
			s.cfg.Logger.Warn("a corrupt page is not noted: after a crash it is found only by the next scrub or reader", "address", uint64(a), "error", err)
		}
	}
	return corrupt, err == nil && sure
}

// remember looks again at pages that a life before found CORRUPT, and tells the core which are so still: without that it would count, in
// rule R16, for entries that it cannot supply. The core is loaded, and serves nobody yet.
func (s *Server) remember(meta flash.Meta) {
	page := flash.Buffer(meta.Layout.Geometry.PageSize)
	var bad []layout.Address
	for _, a := range meta.Corrupt {
		if a >= meta.SettledBelow {
			continue
		}
		switch state, _ := s.stored(a, page); state {
		case wire.Durable, wire.DurableJunk, wire.Trimmed:
		default:
			bad = append(bad, a)
		}
	}
	s.core.Remember(bad, meta.MoreCorrupt)
}

// isRepairing tells whether the page of a is just being written anew: what flash gives meanwhile is not durable.
func (s *Server) isRepairing(a layout.Address) bool { return s.repairing.Load() == uint64(a)+1 }

// fetch tells what stands at a durably, for a unit whose copy is CORRUPT. Its page is header and payload.
func (s *Server) fetch(log layout.LogID, n layout.Epoch, a layout.Address) (e unit.Entry, err error) {
	if !s.ctl.TryRLock() {
		return e, errChanging
	}
	defer s.ctl.RUnlock()
	var v unit.View
	if e := s.do(func(u *unit.Unit) { v, err = u.View(), u.CheckOpen(log, n) }); e != nil || err != nil {
		return unit.Entry{}, firstError(e, err)
	}
	p, _, mapped := s.position(a)
	if !mapped {
		return e, fmt.Errorf("unit: address %d has no position: %w", a, unit.ErrBadEntry)
	}
	page := flash.Buffer(v.Geometry.PageSize)
	state, err := s.lookup(a, page)
	if err != nil {
		state = wire.Corrupt // the disk gives an error here, too
	}
	e = unit.Entry{Address: a, State: state}
	if state == wire.Durable {
		h, err := wire.VerifyPage(page, log, p)
		if err != nil {
			return unit.Entry{Address: a, State: wire.Corrupt}, nil
		}
		e.Attempt, e.Page = h.Attempt, page[:wire.HeaderSize+h.Length]
	}
	return e, nil
}

// fetchLeft tells what flash has of position p at address a, if that is an entry or junk. The unit left its chains; the layout server
// knows that the address was decided here, by what this start of the unit said of its store (rule R24).
func (s *Server) fetchLeft(log layout.LogID, start layout.StartID, a layout.Address, p layout.Position) (unit.Entry, error) {
	e := unit.Entry{Address: a}
	if !s.ctl.TryRLock() {
		return e, errChanging
	}
	defer s.ctl.RUnlock()
	meta := s.store.Meta()
	switch err := s.checkStart(start); {
	case err != nil:
		return e, err
	case meta.Layout == nil:
		return e, unit.ErrNotOpen
	case layout.LogID(meta.Log) != log:
		return e, unit.ErrOtherLog
	case a < meta.TrimmedBelow || a > meta.Layout.Geometry.MaxAddress():
		return e, nil
	}
	page := flash.Buffer(meta.Layout.Geometry.PageSize)
	if err := s.store.ReadPage(a, page); err != nil {
		return e, fmt.Errorf("unit: address %d: %w", a, err)
	}
	switch state, h := unit.Classify(page, log, p); state {
	case wire.Durable:
		e.State, e.Attempt, e.Page = state, h.Attempt, page[:wire.HeaderSize+h.Length]
	case wire.DurableJunk:
		e.State = state
	}
	return e, nil
}

// untrimmed fails with errForgotten unless it is certain that the address was not trimmed by itself since the epoch; 0: it need not be.
func untrimmed(u *unit.Unit, meta flash.Meta, since layout.Epoch, a layout.Address) error {
	if since == 0 || meta.Trims == 0 {
		return nil
	}
	if list, known := u.Trims(since, a, a+1); !known || len(list) > 0 {
		return errForgotten
	}
	return nil
}

// repair replaces the CORRUPT copy of an address by what another member of the chain holds durably in epoch n, or, with since, by what a unit
// has that left the chain and has heard of no trims since that epoch. When it returns nil that
// is on flash and was read back. One at a time; an epoch does not end in the middle of it.
func (s *Server) repair(log layout.LogID, n, since layout.Epoch, e unit.Entry) error {
	if !s.ctl.TryRLock() {
		return errChanging
	}
	defer s.ctl.RUnlock()
	s.repairMu.Lock()
	defer s.repairMu.Unlock()
	if e.Address >= s.store.Meta().SettledBelow {
		if err := s.saveSettled(); err != nil {
			return err
		}
	}
	meta := s.store.Meta()
	if meta.Layout == nil {
		return unit.ErrNotOpen
	}
	size := meta.Layout.Geometry.PageSize
	have, out := flash.Buffer(size), flash.Buffer(size)
	_, _ = s.stored(e.Address, have) // what cannot be read is zero
	s.repairing.Store(uint64(e.Address) + 1)
	defer s.repairing.Store(0)
	var write bool
	var err error
	if x := s.do(func(u *unit.Unit) {
		if err = untrimmed(u, meta, since, e.Address); err == nil {
			write, err = u.BeginRepair(log, n, e, have, out, meta.SettledBelow)
		}
	}); x != nil || err != nil || !write {
		return firstError(x, err)
	}
	err = s.rewrite(e.Address, out, have)
	if err != nil {
		s.m.repairErrors.Inc()
	}
	return firstError(s.do(func(u *unit.Unit) { u.EndRepair(err == nil) }), err)
}

// rewrite puts a page on flash and reads it back into back.
func (s *Server) rewrite(a layout.Address, page, back []byte) error {
	if err := s.store.Write([]flash.Page{{Address: a, Bytes: page}}); err != nil {
		return err
	}
	if err := s.store.ReadPage(a, back); err != nil {
		return err
	}
	if !bytes.Equal(page, back) {
		return fmt.Errorf("%w: address %d", errReadBack, a)
	}
	return nil
}
