package server

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"corfu/internal/mutant"
	"corfu/layout"
)

// Stores of members may go back: a volume that is not mounted, a drive that was replaced, a
// directory that was restored (rules R21 to R27). layout.Record.Judge says what a store counts for;
// this file says what the leader does about it.

// past answers for the layout store, for one round of the manager or one attempt.
type past struct {
	store    *store
	base     layout.Record // of the latest ACTIVE epoch; zero: there is none
	notes    []layout.MemberNote
	accepted []layout.UnitID // whose stores an operator takes as they are (rule R27)
}

func (s *store) past(accepted []layout.UnitID) past {
	p := past{store: s, accepted: accepted}
	s.fsm.view(func(x *layout.State) {
		if x.Latest() != 0 {
			p.base, _ = x.Record(x.Latest())
		}
		p.notes = slices.Clone(x.Notes())
	})
	return p
}

// view calls fn with the layout store's state. The zero past has none: nothing is held against any
// store.
func (p past) view(fn func(*layout.State)) {
	if p.store != nil {
		p.store.fsm.view(fn)
	}
}

// leads reports whether this server leads still: then its state has all that was committed before
// the call.
func (p past) leads() bool {
	if p.store == nil {
		return true
	}
	_, err := p.store.verify()
	return err == nil
}

// judge returns what the store of a member of the base counts for, and why not for all.
func (p past) judge(u layout.UnitID, x layout.StoreState) (layout.Trust, error) {
	if contains(p.accepted, u) {
		return layout.Trusted, nil
	}
	return p.base.Judge(u, x, p.notes)
}

// check fails with layout.ErrWentBack if what a unit says proves that the layout store went back
// (rule R25).
func (p past) check(u layout.UnitID, x layout.StoreState, promise layout.Epoch) (err error) {
	p.view(func(s *layout.State) { err = s.CheckPast(u, x, promise) })
	return err
}

// mayFound fails if the log cannot be founded over the store of a unit (rule R26).
func (p past) mayFound(u layout.UnitID, x layout.StoreState) (err error) {
	p.view(func(s *layout.State) {
		if !s.MayFound(x) {
			err = fmt.Errorf("unit %d holds a log already, and this layout store has none: its directory was lost, or is not mounted. "+
				"Restore it, or build it from what the units hold: corfu layout recover", u)
		}
	})
	return err
}

// mayWipe fails if the store of a unit that is to join must not be wiped (rule R27): loss says that
// epoch n is made with an accepted loss.
func (p past) mayWipe(u layout.UnitID, x layout.StoreState, n layout.Epoch, loss bool) (err error) {
	if contains(p.accepted, u) {
		return nil
	}
	p.view(func(s *layout.State) {
		if !s.MayWipe(x, n, loss) {
			err = fmt.Errorf("unit %d may hold entries that were given up with --accept-loss: it is not wiped, and joins nothing, "+
				"unless somebody says so: corfu unit add %d=ADDRESS --accept-loss", u, u)
		}
	})
	return err
}

// trust judges what a member reported last. One that has missed a heartbeat since is not judged:
// its report may be older than the epoch for which it was reconciled, and would make a stranger of
// it.
func (s *scene) trust(m *member) (layout.Trust, error) {
	if m.unit == 0 || m.standby || m.report.state == stateUnreachable || m.pulse.missed > 0 {
		return layout.Trusted, nil
	}
	return s.past.judge(m.unit, m.report.past)
}

// namePast notes for the status, and says once, which stores do not count, or are not wiped.
func (m *manager) namePast(s *scene) {
	for _, x := range m.members.list {
		if x.unit == 0 || x.report.state == stateUnreachable || x.pulse.missed > 0 {
			continue
		}
		_, err := s.trust(x)
		if err == nil && x.standby && s.active != nil {
			err = s.past.mayWipe(x.unit, x.report.past, s.active.Epoch+1, false)
		}
		was := x.past
		if x.past = ""; err != nil {
			x.past = err.Error()
		}
		if x.past != "" && x.past != was {
			m.log.Error("PAST LOST: a store does not count for what it holds", "member", x.name, "store", x.report.store, "err", err)
		}
	}
}

// wentBack returns why the leader must not decide anything; "": nothing is known against it. What
// any unit says counts, spares included (rule R25).
func (s *scene) wentBack() string {
	for _, m := range s.members.list {
		if m.unit == 0 || m.report.state == stateUnreachable {
			continue
		}
		err := s.past.check(m.unit, m.report.past, m.report.promise)
		if err != nil && !s.past.leads() {
			return "" // what it lacks another leader may have written
		}
		if err != nil {
			return fmt.Sprintf("%v. Nothing is decided, and nothing is wiped. Restore the layout store, or build it from what the units hold: "+
				"corfu layout recover", err)
		}
	}
	return ""
}

// unheard returns why a single layout server waits before it decides: its directory may be an old
// copy. Whatever epoch followed the one that it takes for active, a member of each of that one's
// chains had promised it (rule R16), so that all members together know (rule R25). Several servers
// would all have to go back. "": it need not wait.
func (s *scene) unheard() string {
	if s.active == nil || mutant.R25 {
		return ""
	}
	for _, m := range s.members.list {
		if m.unit != 0 && !m.standby && !m.pulse.heard && s.past.needed(m.unit, s.givenUp) {
			return fmt.Sprintf("%s (%s) has not answered, and the layout store was built from what the units hold: its first epoch needs every member. "+
				"Start the unit, or give up what it may hold: corfu unit remove %d --accept-loss", m.name, m.control, m.unit)
		}
	}
	if !s.alone {
		return ""
	}
	for _, m := range s.members.list {
		waived := s.past.base.Recovered() && !s.past.base.Needs(m.unit) // by the operator who had the layout store built
		if m.unit != 0 && !m.standby && !m.pulse.heard && !contains(s.givenUp, m.unit) && !waived {
			return fmt.Sprintf("%s (%s) has not answered since this layout server started: it is the only one, and its directory may be an old copy. "+
				"Start the unit, or give up what it may hold: corfu unit remove %d --accept-loss", m.name, m.control, m.unit)
		}
	}
	return ""
}

// foundable returns why the log cannot be founded yet: every unit that is listed has to answer,
// spares included, and to be blank (rule R26).
func (s *scene) foundable() (wait, unsure string) {
	if mutant.R26 {
		return "", ""
	}
	for _, m := range s.members.list {
		switch {
		case m.unit == 0:
		case m.pulse.failed:
			return fmt.Sprintf("%s (%s): %s: the log is founded once all units of the list answer", m.name, m.control, m.report.err), ""
		case m.pulse.doubtful():
			unsure = m.name
		default:
			if err := s.past.mayFound(m.unit, m.report.past); err != nil {
				return err.Error(), ""
			}
		}
	}
	return "", unsure
}

// judgeSeals checks what was sealed against the layout store, and takes out of the seals the stores
// that are nobody's: no source, and nothing in rule R16. It fails if nothing may be decided, or a
// unit of the next layout cannot be what it is to be.
func (r *reconfiguration) judgeSeals() error {
	p := r.store.past(r.accepted)
	for u, s := range r.seals {
		if err := p.check(u, s.Store, 0); err != nil {
			return err
		}
		if r.base == nil {
			if err := p.mayFound(u, s.Store); err != nil {
				return err
			}
			continue
		}
		if !r.base.IsMember(u) {
			if err := p.mayWipe(u, s.Store, r.epoch, r.acceptsLoss()); err != nil {
				return err
			}
			continue
		}
		trust, why := p.judge(u, s.Store)
		if trust == layout.Trusted {
			continue
		}
		r.log.Warn("a store has lost its past: it does not count (rule R16)", "unit", uint32(u), "trust", trust.String(), "why", why)
		s.Trust = trust
		r.seals[u] = s
		if trust == layout.Stranger {
			delete(r.seals, u)
			if !contains(r.change.Lost, u) {
				return why // the next attempt leaves it out, as far as it can
			}
		}
	}
	return nil
}

// acceptsLoss reports whether an operator gave up something for this epoch (rule R27).
func (r *reconfiguration) acceptsLoss() bool { return len(r.givenUp)+len(r.accepted) > 0 }

// identify completes the proposal with what names the record and the stores (rule R21), once all
// layout servers read that.
func (r *reconfiguration) identify(p layout.Propose) layout.Propose {
	if !r.names {
		return p
	}
	p.ID, p.AcceptedLoss = newRecordID(), r.acceptsLoss()
	for _, u := range p.Layout.Units {
		p.Stores = append(p.Stores, layout.MemberStore{Unit: u.ID, Store: r.seals[u.ID].Store.Store})
	}
	p.Left = r.settled()
	slices.SortFunc(p.Stores, func(a, b layout.MemberStore) int { return cmp.Compare(a.Unit, b.Unit) })
	return p
}

func newRecordID() layout.RecordID {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
		if id := layout.RecordID(binary.LittleEndian.Uint64(b[:])); id != 0 {
			return id
		}
	}
}

// noteEvery is how often what members have durable is written down while they take entries (rule
// R23).
const noteEvery = time.Second

// noteMembers writes down how much each member of the active epoch has durable, if that is news
// (rule R23). now or later: at once, or only if it is due.
func (m *manager) noteMembers(active *layout.Layout, now time.Time) {
	if active == nil || now.Sub(m.noted) < noteEvery {
		return
	}
	p := m.store.past(nil)
	if p.base.ID == 0 || p.base.Epoch != active.Epoch {
		return
	}
	n := layout.Note{Epoch: active.Epoch}
	for _, x := range m.members.list {
		r := x.report
		if x.unit == 0 || x.standby || r.state != stateOpen || r.promise != active.Epoch || r.past.Reconciled != p.base.Ref() {
			continue
		}
		is := layout.MemberNote{Unit: x.unit, Reconciled: r.past.Reconciled, Changes: r.past.Changes}
		known := slices.ContainsFunc(p.notes, func(n layout.MemberNote) bool {
			return n.Unit == is.Unit && n.Reconciled == is.Reconciled && n.Changes >= is.Changes
		})
		if !known {
			n.Members = append(n.Members, is)
		}
	}
	m.noted = now
	if len(n.Members) == 0 {
		return
	}
	if _, err := m.store.apply(n); err != nil {
		m.log.Warn("what the members have is not noted", "err", err)
	}
}

// names reports whether records may name themselves and stores (rule R21): a layout server of the
// release before stops at a command that it cannot read, so that all must have said that they can,
// once.
func (m *manager) names() bool {
	known := false
	m.store.fsm.view(func(s *layout.State) { known = s.KnowsStores() })
	return known || m.store.allRead(commandStores)
}

// resizes reports whether every layout server reads a record with another max_sessions than the founding layout's.
func (m *manager) resizes() bool { return m.store.allRead(commandResize) }

// unnamed reports whether the active record names no stores though it could: the epoch that does is
// made at once, so that stores that go back are found out from then on.
func (m *manager) unnamed() bool {
	p := m.store.past(nil)
	if p.base.Epoch == 0 || p.base.ID != 0 {
		return false
	}
	for _, x := range m.members.list {
		if x.unit != 0 && !x.standby && x.report.past.Store.IsZero() {
			return false // of the release before
		}
	}
	return m.names()
}
