package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// A unit that left its chains keeps its pages, and may have the only sound copy of one that is
// damaged at all members. What it has below the address that was settled as it left is what was
// decided there, but for trims that it did not hear of: so it can supply such a page, to a member
// that knows that the address was not trimmed since.

// leftUnit is a unit that left its chains and stands by.
type leftUnit struct {
	m     *member
	left  layout.LeftMember
	start layout.StartID // of the unit, with its store whole (rule R24); 0: it does not answer
}

// leftUnits returns the units that left their chains and whose stores are whole, or that do not
// answer.
func (m *manager) leftUnits() (list []leftUnit) {
	m.store.fsm.view(func(s *layout.State) {
		for _, x := range m.members.list {
			l, ok := s.Left(x.unit)
			switch {
			case !ok || !x.standby || l.Below <= l.From:
			case x.report.state == stateUnreachable:
				list = append(list, leftUnit{m: x, left: l})
			case l.Whole(x.report.past) && x.report.past.Entries:
				list = append(list, leftUnit{x, l, x.report.past.Start})
			}
		}
	})
	return list
}

// sameLeft reports whether two looks found the same units in the same starts.
func sameLeft(a, b []leftUnit) bool {
	return slices.EqualFunc(a, b, func(x, y leftUnit) bool {
		return x.m == y.m && x.start == y.start && x.left.Base.Ref() == y.left.Base.Ref()
	})
}

// fetch returns what the store has of position p at address a: an entry, verified, or junk; nil for
// anything else.
func (x leftUnit) fetch(ctx context.Context, log layout.LogID, a layout.Address, p layout.Position) (*pb.Entry, error) {
	if x.start == 0 {
		return nil, fmt.Errorf("%s, which left the chain, may have it: %w", x.m.name, errUnreachable)
	}
	e, err := x.m.units().Fetch(ctx, &pb.FetchRequest{Log: log[:], Address: uint64(a), Start: uint64(x.start), Position: uint64(p)})
	if err != nil {
		return nil, fmt.Errorf("%s, which left the chain: %w", x.m.name, err)
	}
	switch wire.State(e.State) {
	case wire.DurableJunk:
		return &pb.Entry{Address: uint64(a), State: e.State}, nil
	case wire.Durable:
		h, err := wire.VerifyPage(e.Page, log, p)
		if err != nil || uint64(h.Attempt) != e.Attempt || h.Flags.Kind() != wire.FlagData {
			return nil, fmt.Errorf("%s, which left the chain: %w", x.m.name, errBadEntry)
		}
		e.Address = uint64(a)
		return e, nil
	}
	return nil, nil
}

// fromLeft asks units that left the chain for what all members have lost. since is the epoch from
// which on the unit has not heard of trims.
func (r *repairer) fromLeft(ctx context.Context, w repairs, a layout.Address, p layout.Position) (e *pb.Entry, since layout.Epoch, err error) {
	errs := []error{errLost}
	for _, x := range w.left {
		if a < x.left.From || a >= x.left.Below {
			continue
		}
		e, err := x.fetch(ctx, w.active.Log, a, p)
		if err == nil && e != nil {
			return e, x.left.Base.Epoch, nil
		}
		errs = append(errs, err)
	}
	return nil, 0, errors.Join(errs...)
}
