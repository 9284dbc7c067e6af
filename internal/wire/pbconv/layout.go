// Package pbconv converts layouts between package layout and the control plane's
// protobuf. It is apart from package wire so that the pure packages, which import
// wire, do not pull in gRPC.
package pbconv

import (
	"errors"
	"fmt"
	"math"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// ErrBadLayout: the message is not a valid layout. The peer that sent it is of another version, or broken: do not use
// what it says.
var ErrBadLayout = errors.New("not a valid layout")

// Layout gives the message for l.
func Layout(l *layout.Layout) *pb.Layout {
	m := &pb.Layout{
		Log:   append([]byte(nil), l.Log[:]...),
		Epoch: uint64(l.Epoch),
		Geometry: &pb.Geometry{
			PageSize:     uint32(l.Geometry.PageSize),
			Window:       uint32(l.Geometry.Window),
			SessionSlots: uint32(l.Geometry.SessionSlots),
			MaxSessions:  uint32(l.Geometry.MaxSessions),
		},
		Durability: uint32(l.Durability),
		Sequencer:  &pb.Sequencer{Id: uint32(l.Sequencer.ID), Control: l.Sequencer.Control},
		Start:      uint64(l.Start),
	}
	for _, u := range l.Units {
		m.Units = append(m.Units, &pb.Unit{Id: uint32(u.ID), Control: u.Control})
	}
	for _, u := range l.Spares {
		m.Spares = append(m.Spares, &pb.Unit{Id: uint32(u.ID), Control: u.Control})
	}
	for _, s := range l.Standbys {
		m.Standbys = append(m.Standbys, &pb.Sequencer{Id: uint32(s.ID), Control: s.Control})
	}
	for _, x := range l.Leaving {
		m.Leaving = append(m.Leaving, &pb.Leaving{Unit: uint32(x.Unit), By: uint32(x.By)})
	}
	for _, s := range l.Segments {
		ps := &pb.Segment{Start: uint64(s.Start)}
		for _, c := range s.Chains {
			pc := &pb.Chain{Base: uint64(c.Base)}
			for _, u := range c.Units {
				pc.Units = append(pc.Units, uint32(u))
			}
			ps.Chains = append(ps.Chains, pc)
		}
		m.Segments = append(m.Segments, ps)
	}
	return m
}

// ToLayout gives the layout that m describes, validated. It fails with ErrBadLayout.
func ToLayout(m *pb.Layout) (*layout.Layout, error) {
	l, err := toLayout(m)
	if err == nil {
		err = l.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadLayout, err)
	}
	return l, nil
}

func toLayout(m *pb.Layout) (*layout.Layout, error) {
	if m == nil {
		return nil, errors.New("no layout")
	}
	if n := len(m.Log); n != len(layout.LogID{}) {
		return nil, fmt.Errorf("log id of %d bytes", n)
	}
	if m.Durability > math.MaxUint8 {
		return nil, fmt.Errorf("unknown durability %d", m.Durability)
	}
	// The getters take a missing message for an empty one; Validate refuses that.
	g, s := m.GetGeometry(), m.GetSequencer()
	l := &layout.Layout{
		Log:   layout.LogID(m.Log),
		Epoch: layout.Epoch(m.Epoch),
		Geometry: layout.Geometry{
			PageSize:     int(g.GetPageSize()),
			Window:       int(g.GetWindow()),
			SessionSlots: int(g.GetSessionSlots()),
			MaxSessions:  int(g.GetMaxSessions()),
		},
		Durability: layout.Durability(m.Durability),
		Sequencer:  layout.Sequencer{ID: layout.SequencerID(s.GetId()), Control: s.GetControl()},
		Start:      layout.Position(m.Start),
	}
	for _, u := range m.Units {
		l.Units = append(l.Units, layout.Unit{ID: layout.UnitID(u.GetId()), Control: u.GetControl()})
	}
	for _, u := range m.Spares {
		l.Spares = append(l.Spares, layout.Unit{ID: layout.UnitID(u.GetId()), Control: u.GetControl()})
	}
	for _, s := range m.Standbys {
		l.Standbys = append(l.Standbys, layout.Sequencer{ID: layout.SequencerID(s.GetId()), Control: s.GetControl()})
	}
	for _, x := range m.Leaving {
		l.Leaving = append(l.Leaving, layout.Leaving{Unit: layout.UnitID(x.GetUnit()), By: layout.UnitID(x.GetBy())})
	}
	for _, ps := range m.Segments {
		seg := layout.Segment{Start: layout.Position(ps.GetStart())}
		for _, pc := range ps.GetChains() {
			c := layout.Chain{Base: layout.Address(pc.GetBase())}
			for _, u := range pc.GetUnits() {
				c.Units = append(c.Units, layout.UnitID(u))
			}
			seg.Chains = append(seg.Chains, c)
		}
		l.Segments = append(l.Segments, seg)
	}
	return l, nil
}
