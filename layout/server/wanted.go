package server

import (
	"errors"
	"fmt"

	"corfu/layout"
)

// errImpossible: what an operator asked for cannot be done with this layout. Nothing was changed.
var errImpossible = errors.New("not possible")

// scene is what this round judges, with the first of the pending requests that asks for a change.
func (m *manager) scene(active, shape *layout.Layout) *scene {
	s := &scene{cfg: m.cfg, active: active, shape: shape, members: &m.members}
	founding, _ := m.layouts()
	s.replicas = founding.Replicas()
	if active == nil {
		return s
	}
	s.copied = m.rebuilder.copied(active)
	for i, q := range m.pending {
		if !q.failover && len(q.change.Forget)+len(q.change.Add) == 0 {
			continue
		}
		asked, err := s.wanted(q)
		if err == nil {
			s.asked = asked
			// The others that ask for a change wait for the next epoch.
			m.waiting = append(m.waiting, m.later(i+1)...)
			return s
		}
		q.done <- outcome{err: fmt.Errorf("%w: %w", errImpossible, err)}
		m.pending = append(m.pending[:i:i], m.pending[i+1:]...)
		return s
	}
	return s
}

// later takes the requests from i on that ask for a change out of the pending ones.
func (m *manager) later(i int) (later []*request) {
	kept := m.pending[:i:i]
	for _, q := range m.pending[i:] {
		if q.failover || len(q.change.Forget)+len(q.change.Add) > 0 {
			later = append(later, q)
		} else {
			kept = append(kept, q)
		}
	}
	m.pending = kept
	return later
}

// wanted says what a request asks to change.
func (s *scene) wanted(q *request) (layout.Change, error) {
	c := q.change
	for _, u := range c.Forget {
		if s.shape.IsMember(u) {
			c.Lost = append(c.Lost, u)
		}
	}
	for _, u := range c.Add {
		if m := s.members.unit(u.ID); m != nil {
			return c, fmt.Errorf("unit %d is listed already, at %s", u.ID, m.control)
		}
	}
	if q.failover {
		if c.Sequencer = s.standby(); c.Sequencer == 0 {
			return c, errors.New("no standby answers that could become the sequencer")
		}
	}
	s.asked = c
	defer func() { s.asked = layout.Change{} }()
	_, err := s.change(nil)
	return c, err
}

// answerDry answers those who want to know only, if anything is to be said.
func (m *manager) answerDry(shape *layout.Layout, j judgement) bool {
	kept, found := m.pending[:0:0], false
	for _, q := range m.pending {
		if !q.dry {
			kept = append(kept, q)
			continue
		}
		if j.unsure != "" || len(j.activate) > 0 {
			kept = append(kept, q)
			continue
		}
		found = true
		o := outcome{}
		switch {
		case j.wait != "":
			o.err = fmt.Errorf("%w: %s", errUnreachable, j.wait)
		case shape.Epoch == 0:
			o.err = errNoEpoch
		default:
			// Where the sequencer will start the seals will say.
			o.layout, o.err = shape.With(j.change, shape.Epoch+1, m.foreseenStart(shape))
		}
		q.done <- o
	}
	m.pending = kept
	return found
}

// foreseenStart is where the next epoch would start, as far as the reports say.
func (m *manager) foreseenStart(shape *layout.Layout) layout.Position {
	seals := layout.Seals{}
	for _, x := range m.members.list {
		if x.unit != 0 && !x.standby {
			seals[x.unit] = layout.Seal{Unit: x.unit, End: x.report.end}
		}
	}
	start, err := layout.StartAfter(shape, seals)
	if err != nil {
		return shape.Start
	}
	return start
}

// deficit says loudly what is missing: once when it changes, and all the time by the metric.
func (m *manager) deficit(l *layout.Layout, replicas int) {
	if l == nil {
		return
	}
	open, older := l.Deficit(replicas)
	m.metrics.observeChains(l, replicas)
	m.metrics.deficit.WithLabelValues("open").Set(float64(open))
	m.metrics.deficit.WithLabelValues("older").Set(float64(older))
	var was int
	m.set(func(s *shown) { was, s.deficit = s.deficit, open+older })
	switch now := open + older; {
	case now == was:
	case now == 0:
		m.log.Info("every chain has all its replicas again")
	case open > 0:
		m.log.Error("UNDER-REPLICATED: chains that take new entries lack units, and no spare is there: start the units that are down, or add a spare (corfu unit add)",
			"lacking", open, "lacking_of_older_positions", older)
	default:
		m.log.Warn("older positions lack replicas until they are copied", "lacking", older)
	}
}
