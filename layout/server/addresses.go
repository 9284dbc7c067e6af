package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"corfu/layout"
)

// The layout in the store says where members are. A member moves when all layout servers'
// configurations name another address for it: if each leader took its own configuration's word, the
// address would flip with every leader, with a new epoch each time.

// addressesOf returns the control addresses that a layout names, by the names of members; nil if
// there is none.
func addressesOf(l *layout.Layout) map[string]string {
	if l == nil {
		return nil
	}
	all := map[string]string{}
	for _, u := range slices.Concat(l.Units, l.Spares) {
		all[unitName(u.ID)] = u.Control
	}
	for _, s := range append([]layout.Sequencer{l.Sequencer}, l.Standbys...) {
		all[sequencerName(s.ID)] = s.Control
	}
	return all
}

func unitName(id layout.UnitID) string           { return fmt.Sprintf("unit %d", id) }
func sequencerName(id layout.SequencerID) string { return fmt.Sprintf("sequencer %d", id) }

// configured is what the layout servers' configurations say, by server. known is false while one of
// them was not heard, or is of a release that does not say.
func (s *store) configured(bootstrap *layout.Layout) (said map[uint16]map[string]string, known bool) {
	said, known = map[uint16]map[string]string{s.self: addressesOf(bootstrap)}, true
	r, ok := s.raft.(*raftLog)
	if !ok {
		return said, true
	}
	r.release.mu.Lock()
	defer r.release.mu.Unlock()
	for _, p := range s.servers {
		if p.ID == s.self {
			continue
		}
		st := r.release.known[p.ID]
		if st.GetStanding() == "" {
			known = false
			continue
		}
		said[p.ID] = st.Members
	}
	return said, known
}

// agreed is the bootstrap layout with those addresses alone on which all configurations agree that
// say anything of the member.
func (m *manager) agreed() *layout.Layout {
	if m.cfg.Bootstrap == nil {
		return nil
	}
	l := m.cfg.Bootstrap.Next(0, 0)
	said, known := m.store.configured(m.cfg.Bootstrap)
	keep := func(name, addr string) string {
		for _, all := range said {
			if other := all[name]; !known || (other != "" && other != addr) {
				return ""
			}
		}
		return addr
	}
	for _, list := range [][]layout.Unit{l.Units, l.Spares} {
		for i, u := range list {
			list[i].Control = keep(unitName(u.ID), u.Control)
		}
	}
	l.Sequencer.Control = keep(sequencerName(l.Sequencer.ID), l.Sequencer.Control)
	for i, s := range l.Standbys {
		l.Standbys[i].Control = keep(sequencerName(s.ID), s.Control)
	}
	return l
}

// differences says which configuration names another address for a member than the layout in use
// does.
func (m *manager) differences(active *layout.Layout) (list []string) {
	said, _ := m.store.configured(m.cfg.Bootstrap)
	stands := addressesOf(active)
	for _, name := range slices.Sorted(maps.Keys(stands)) {
		for _, id := range slices.Sorted(maps.Keys(said)) {
			if other := said[id][name]; other != "" && other != stands[name] {
				list = append(list, fmt.Sprintf("%s is at %s in the layout, and at %s in the configuration of layout server %d", name, stands[name], other, id))
			}
		}
	}
	return list
}

// compare logs differences that are new, and keeps them for the status.
func (m *manager) compare(founding, active *layout.Layout) {
	var list []string
	if active != nil && m.agrees(founding) {
		list = m.differences(active)
	}
	if text := strings.Join(list, "; "); text != m.differ {
		if m.differ = text; text != "" {
			m.log.Warn("configurations name other addresses than the layout: the layout's are used until all layout servers' configurations name the same new one",
				"differences", text)
		}
	}
	m.set(func(s *shown) { s.differences = list })
}
