package server

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"corfu/layout"
)

// errImpossible: what an operator asked for cannot be done with this layout. Nothing was changed.
var errImpossible = errors.New("not possible")

// asked is what an operator wants to be otherwise.
type asked struct {
	remove  []layout.UnitID
	add     []layout.Unit
	drain   []layout.Leaving
	shorter bool // drained units leave at once
	chain   []layout.UnitID

	failover bool               // a standby takes over,
	from     layout.SequencerID // from this one; 0: from whoever it is
	to       layout.SequencerID // and it is this one; 0: the first that answers

	sessions int // max_sessions of the geometry; 0: as it is

	acceptLoss bool // of what only the units that are to go may have, or of what the stores of those that are added do not have
}

// accepts are the units whose stores are taken as they are, or may be wiped though they may hold what was given up (rule R27).
func (a *asked) accepts() (list []layout.UnitID) {
	if !a.acceptLoss {
		return nil
	}
	for _, u := range a.add {
		list = append(list, u.ID)
	}
	return list
}

// givenUp are the units whose entries may be lost. It is said of nobody else: one that fails in the meantime is waited for.
func (a *asked) givenUp() (list []layout.UnitID) {
	if !a.acceptLoss {
		return nil
	}
	list = slices.Clone(a.remove)
	for _, x := range a.drain {
		list = append(list, x.Unit)
	}
	return list
}

func (a *asked) isZero() bool {
	return !a.failover && a.sessions == 0 && len(a.remove)+len(a.add)+len(a.drain)+len(a.chain) == 0
}

// scene is what this round judges, with the first of the pending requests that asks for a change. Requests for what is so already, and
// for what cannot be, are answered.
func (m *manager) scene(active, shape *layout.Layout, resizes bool) *scene {
	s := &scene{resizes: resizes, cfg: m.cfg, now: time.Now(), active: active, shape: shape, members: &m.members, alone: m.cfg.alone(), past: m.store.past(nil), vouch: m.vouch, left: m.leftUnits()}
	founding, _ := m.layouts()
	s.replicas = founding.Replicas()
	if m.agrees(founding) {
		s.bootstrap = m.agreed()
	}
	if active == nil {
		m.later(0) // the epoch with which the log begins is made without them
		return s
	}
	s.copied, s.failing = m.rebuilder.copied(active)
	for i := 0; i < len(m.pending); {
		q := m.pending[i]
		if q.asked.isZero() {
			i++
			continue
		}
		c, err := s.wanted(&q.asked)
		switch {
		case err != nil && s.anySilent():
			// Whether it can be done is clear in a heartbeat or two. An epoch that is made meanwhile, for whatever reason, is not its answer.
			m.waiting = append(m.waiting, q)
			m.pending = slices.Delete(m.pending, i, i+1)
			continue
		case err != nil:
			q.done <- outcome{err: fmt.Errorf("%w: %w", errImpossible, err)}
		case c.IsZero() && !s.needsWord(q.asked.accepts()):
			q.done <- outcome{layout: active}
		default:
			s.asked, s.givenUp, s.past.accepted = c, q.asked.givenUp(), q.asked.accepts()
			s.force = c.IsZero()
			m.later(i + 1) // the others that ask for a change wait for the next epoch
			return s
		}
		m.pending = slices.Delete(m.pending, i, i+1)
	}
	return s
}

// anySilent tells whether a unit or sequencer that stands by missed a heartbeat, and has not failed.
func (s *scene) anySilent() bool {
	return slices.ContainsFunc(s.members.list, func(m *member) bool {
		return m.standby && m.pulse.heard && m.pulse.missed > 0 && !m.pulse.failed
	})
}

// later lets the pending requests from i on wait that ask for a change.
func (m *manager) later(i int) {
	kept := m.pending[:i:i]
	for _, q := range m.pending[i:] {
		if q.asked.isZero() {
			kept = append(kept, q)
		} else {
			m.waiting = append(m.waiting, q)
		}
	}
	m.pending = kept
}

// wanted says what is still to change before the layout is as asked for: nothing, if it is already, or is on its way there.
func (s *scene) wanted(a *asked) (c layout.Change, err error) {
	for _, step := range []func(*asked, *layout.Change) error{s.wantAdded, s.wantRemoved, s.wantDrained, s.wantChain, s.wantSequencer, s.wantSessions} {
		if err := step(a, &c); err != nil {
			return c, err
		}
	}
	if c.IsZero() {
		return c, nil
	}
	s.asked, s.givenUp, s.past.accepted = c, a.givenUp(), a.accepts()
	defer func() { s.asked, s.givenUp, s.past.accepted = layout.Change{}, nil, nil }()
	full, err := s.change(nil)
	if err == nil {
		err = s.checkReplaced(a, full)
	}
	return c, err
}

// needsWord reports whether the store of one of the units counts for nothing, or is not wiped, unless an operator takes it as it is.
func (s *scene) needsWord(units []layout.UnitID) bool {
	return slices.ContainsFunc(units, func(u layout.UnitID) bool {
		m := s.members.unit(u)
		if m == nil || m.report.state == stateUnreachable {
			return false
		}
		if m.standby {
			return s.past.mayWipe(u, m.report.past, s.active.Epoch+1, false) != nil || s.unvouched(m)
		}
		trust, _ := s.trust(m)
		return trust != layout.Trusted
	})
}

func (s *scene) wantAdded(a *asked, c *layout.Change) error {
	for _, u := range a.add {
		if known, ok := s.listed(u.ID); ok {
			if known.Control != u.Control {
				return fmt.Errorf("unit %d is listed already, at %s", u.ID, known.Control)
			}
			if _, leaving := s.shape.IsLeaving(u.ID); leaving {
				c.Stay = append(c.Stay, u.ID)
			}
			continue
		}
		if named := s.configured(u); named != u.Control {
			return fmt.Errorf("the configuration of the layout servers has unit %d at %s, and moves it there: change that first, or add the unit by another id", u.ID, named)
		}
		if m := s.members.unit(u.ID); m == nil || m.control != u.Control || m.report.state == stateUnreachable {
			why := ""
			if m != nil {
				why = ": " + m.report.err
			}
			return fmt.Errorf("unit %d does not answer at %s, start it first%s", u.ID, u.Control, why)
		}
		c.Add = append(c.Add, u)
	}
	return nil
}

// configured is the address that the next epoch would have for a unit once it is listed (moveTo).
func (s *scene) configured(u layout.Unit) string {
	l := &layout.Layout{Spares: []layout.Unit{u}}
	moveTo(l, s.bootstrap)
	return l.Spares[0].Control
}

// listed gives a unit of the layout, spares included.
func (s *scene) listed(id layout.UnitID) (layout.Unit, bool) {
	for _, u := range slices.Concat(s.shape.Units, s.shape.Spares) {
		if u.ID == id {
			return u, true
		}
	}
	return layout.Unit{}, false
}

func (s *scene) wantRemoved(a *asked, c *layout.Change) error {
	for _, u := range a.remove {
		if _, ok := s.listed(u); !ok {
			continue
		}
		if s.shape.IsMember(u) {
			c.Lost = append(c.Lost, u)
		}
		c.Forget = append(c.Forget, u)
	}
	return nil
}

func (s *scene) wantDrained(a *asked, c *layout.Change) error {
	for _, x := range a.drain {
		if _, ok := s.listed(x.Unit); !ok {
			return fmt.Errorf("unit %d: %w", x.Unit, layout.ErrNoMember)
		}
		by, leaving := s.shape.IsLeaving(x.Unit)
		member := s.shape.IsMember(x.Unit)
		if x.By != 0 {
			if _, ok := s.listed(x.By); !ok && !addsUnit(c, x.By) {
				return fmt.Errorf("unit %d is not listed: add it (corfu unit add), or give its address", x.By)
			}
			if s.shape.IsMember(x.By) && member && by != x.By {
				return fmt.Errorf("unit %d is in a chain already, it cannot take the place of unit %d", x.By, x.Unit)
			}
		}
		if a.shorter && member {
			c.Lost = append(c.Lost, x.Unit)
		}
		if !leaving || (x.By != 0 && by != x.By) {
			c.Leave = append(c.Leave, x)
		}
	}
	return nil
}

func addsUnit(c *layout.Change, id layout.UnitID) bool {
	return slices.ContainsFunc(c.Add, func(u layout.Unit) bool { return u.ID == id })
}

// checkReplaced fails if nobody takes the place of a unit that is to leave, and the chain is not to get shorter.
func (s *scene) checkReplaced(a *asked, c layout.Change) error {
	if len(a.drain) == 0 || a.shorter {
		return nil
	}
	next, err := s.shape.With(c, s.active.Epoch+1, s.active.Start)
	if err != nil {
		return err
	}
	was, _ := s.shape.Deficit(s.replicas)
	if is, _ := next.Deficit(s.replicas); is > was {
		return errors.New("no spare answers that could take its place: add one (corfu unit add), or let the chain get shorter (--shorter)")
	}
	for _, x := range a.drain {
		if x.By != 0 && s.shape.IsMember(x.Unit) && !next.IsMember(x.By) {
			return fmt.Errorf("unit %d does not answer, it cannot take the place of unit %d", x.By, x.Unit)
		}
	}
	return nil
}

func (s *scene) wantChain(a *asked, c *layout.Change) error {
	if len(a.chain) == 0 || s.shape.HasChain(a.chain) {
		return nil
	}
	if len(a.chain) != s.replicas {
		return fmt.Errorf("a chain of %d units, the others have %d", len(a.chain), s.replicas)
	}
	for _, u := range a.chain {
		m := s.members.unit(u)
		switch _, listed := s.listed(u); {
		case !listed && !addsUnit(c, u):
			return fmt.Errorf("unit %d is not listed: add it (corfu unit add), or give its address", u)
		case s.shape.IsMember(u):
			return fmt.Errorf("unit %d is in a chain already", u)
		case m == nil || !m.fit(s.cfg.FailAfter):
			return fmt.Errorf("unit %d does not answer", u)
		}
	}
	c.Chain = a.chain
	return nil
}

func (s *scene) wantSequencer(a *asked, c *layout.Change) error {
	now := s.shape.Sequencer.ID
	if !a.failover || (a.from != 0 && a.from != now) || a.to == now {
		return nil
	}
	if c.Sequencer = s.standby(a.to); c.Sequencer == 0 {
		if a.to != 0 {
			return fmt.Errorf("sequencer %d does not stand by, or does not answer", a.to)
		}
		return errors.New("no standby answers that could become the sequencer")
	}
	return nil
}

// wantSessions asks for another max_sessions, which takes that every layout server and every unit knows of such a change.
func (s *scene) wantSessions(a *asked, c *layout.Change) error {
	g := s.shape.Geometry
	if a.sessions == 0 || a.sessions == g.MaxSessions {
		return nil
	}
	if _, err := g.WithSessions(a.sessions); err != nil {
		return err
	}
	if !s.resizes {
		return errors.New("a layout server is of a release that does not know another max_sessions, or does not answer: upgrade it, or start it")
	}
	for _, m := range s.members.list {
		if m.unit == 0 || (m.standby && m.report.state == stateUnreachable) || contains(c.Lost, m.unit) || contains(c.Forget, m.unit) {
			continue
		}
		switch {
		case m.report.state == stateUnreachable:
			return fmt.Errorf("%s does not answer, so that nobody knows whether it has the memory: %s", m.name, m.report.err)
		case !m.report.resizes:
			return fmt.Errorf("%s is of a release that does not know another max_sessions: upgrade it", m.name)
		}
	}
	c.MaxSessions = a.sessions
	return nil
}

// asksSessions reports whether a request that waits for an answer wants another max_sessions.
func (m *manager) asksSessions() bool {
	return slices.ContainsFunc(m.pending, func(q *request) bool { return q.asked.sessions != 0 })
}

// candidates is the shape with the units that pending requests add among the spares: they are asked for their state before they are
// listed, and can take a place at once.
func (m *manager) candidates(shape *layout.Layout) *layout.Layout {
	all := shape
	for _, q := range m.pending {
		for _, u := range q.asked.add {
			known := func(x layout.Unit) bool { return x.ID == u.ID }
			if slices.ContainsFunc(all.Units, known) || slices.ContainsFunc(all.Spares, known) {
				continue
			}
			if all == shape {
				all = shape.Next(shape.Epoch, shape.Start)
			}
			all.Spares = append(all.Spares, u)
		}
	}
	return all
}

// answerDry answers those who want to know only, if anything is to be said.
func (m *manager) answerDry(shape *layout.Layout, j judgement) bool {
	kept, found := m.pending[:0:0], false
	for _, q := range m.pending {
		if !q.dry {
			kept = append(kept, q)
			continue
		}
		if j.unsure != "" {
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
