package server

import (
	"cmp"
	"errors"
	"fmt"

	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

// A unit never lets clients publish at an address for which flash has no room: whatever happens to the disk later, what
// was published can be written. So room is made ahead of the window, and where there is none the window stops.

// load makes room for a window, as far as there is any, and builds it from flash. Nothing is registered.
func (s *Server) load(u *unit.Unit, meta flash.Meta) error {
	from := max(meta.SettledBelow, meta.TrimmedBelow, meta.Layout.First(s.cfg.ID))
	limit, err := s.store.Reserve(from, from+layout.Address(meta.Layout.Geometry.Window))
	if err != nil {
		s.cfg.Logger.Error("no room for a whole window", "room_below", limit, "error", err)
	}
	u.SetLimit(limit)
	return u.Load(s.store, meta.SettledBelow, meta.TrimmedBelow)
}

// setLimit tells the core how far there is room. The loop calls it.
func (s *Server) setLimit() {
	if v := s.core.View(); v.Geometry.Window > 0 && !v.Outdated {
		s.core.SetLimit(s.store.Limit(max(v.Watermark, v.TrimmedBelow)))
	}
}

// ahead asks for room, as the window moves. The loop calls it.
func (s *Server) ahead(v unit.View) {
	if v.Geometry.Window == 0 || v.Outdated {
		return
	}
	top := v.Base + layout.Address(v.Geometry.Window)
	// By segments, that it costs nothing; from 1, so that the first time counts.
	if n := uint64(top)/uint64(s.store.SegmentPages()) + 1; n != s.loopState.asked {
		s.loopState.asked = n
		s.store.Ahead(max(v.Watermark, v.TrimmedBelow), top)
	}
}

// room tells the core why there is no more room.
func (s *Server) room() unit.Room {
	switch err := s.store.NoRoom(); {
	case err == nil:
		return unit.RoomGrows
	case errors.Is(err, flash.ErrFull):
		return unit.RoomFull
	}
	return unit.RoomFails
}

// noRoom returns what keeps flash from having more room, unless it is that flash is full.
func (s *Server) noRoom() error {
	if err := s.store.NoRoom(); !errors.Is(err, flash.ErrFull) {
		return err
	}
	return nil
}

// checkRoom fails with flash.ErrFull, or with what else is the cause, if there is no room for a whole window: clients could publish at any of its addresses.
func (s *Server) checkRoom() (err error) {
	e := s.do(func(u *unit.Unit) {
		if v := u.View(); v.Base+layout.Address(v.Geometry.Window) > v.Limit {
			err = fmt.Errorf("unit %d: room for addresses below %d only, a window takes %d pages of %d bytes: %w",
				s.cfg.ID, v.Limit, v.Geometry.Window, v.Geometry.PageSize, cmp.Or(s.noRoom(), flash.ErrFull))
		}
	})
	return firstError(e, err)
}
