package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/mutant"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// A layout store that is empty beside units that hold a log was lost: the directory is not mounted,
// or all machines of the layout servers were replaced. It is built from what the units hold
// (layout.PlanRecovery): by an operator's word, or by the leader itself where it is proven that no
// newer epoch was active and no other layout server asks the units.

// recovering is what the leader knows about building the store by itself. The manager owns it.
type recovering struct {
	next  time.Time // when the units are to be asked again
	since time.Time // from when on all answers allowed it; zero: they do not
	wait  string    // why it is not done; "": there is nothing to build, or it was done
}

// recoverEvery is how often the units are asked while the store waits.
const recoverEvery = 500 * time.Millisecond

// mayRecover builds the store if that is proven to be right. It returns why the log waits; "": no
// unit of the list holds anything.
func (m *manager) mayRecover(ctx context.Context, now time.Time) string {
	r := &m.recovering
	if mutant.R26 || m.cfg.Bootstrap == nil || !slices.ContainsFunc(m.members.list, (*member).holdsSomething) {
		*r = recovering{}
		return ""
	}
	if now.Before(r.next) {
		return r.wait
	}
	list := m.survey(ctx, m.listed(nil))
	if layout.NewestActive(answers(list)).IsZero() {
		*r = recovering{next: now.Add(recoverEvery)}
		return "" // there is nothing to build from: an attempt to found the log came to nothing, or rule R26 forbids one
	}
	p, err := layout.PlanRecovery(answers(list), nil)
	if err == nil {
		err = m.proven(list, p)
	}
	switch {
	case err != nil:
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = now
	}
	window := m.cfg.otherWindow()
	switch other := m.otherLeads(list); {
	case err != nil:
	case other != "":
		err = errors.New(other)
	case now.Sub(r.since) < window:
		err = fmt.Errorf("every member holds %v and promised nothing beyond it; it is built in %v, if no other layout server asks the units until then",
			p.Active, (window - now.Sub(r.since)).Round(time.Second))
	default:
		err = m.build(p, "every member of every chain holds the newest record and promised nothing beyond it, and no other layout server asks the units")
	}
	r.next, r.wait = now.Add(recoverEvery), ""
	if err != nil {
		r.wait = fmt.Sprintf("the layout store: it is empty, and units hold a log. Mount its directory, or see what it would be built from (corfu layout recover): %v", err)
	}
	return r.wait
}

// holdsSomething reports whether a unit answered that it holds more than a blank store does.
func (m *member) holdsSomething() bool {
	return m.unit != 0 && (m.report.foreign || (m.report.state != stateUnreachable && !m.report.past.Blank()))
}

// listed are the units of the first layout, and those that are asked besides.
func (m *manager) listed(ask []layout.Unit) []layout.Unit {
	if b := m.cfg.Bootstrap; b != nil {
		return slices.Concat(ask, b.Units, b.Spares)
	}
	return ask
}

// proven fails unless no newer epoch than the plan's can have been active, the plan is for the log
// of the configuration, and every unit of the list answered: one that does not may hold another
// log, or know a newer epoch.
func (m *manager) proven(list []surveyed, p *layout.Plan) error {
	if b := m.cfg.Bootstrap; !b.Log.IsZero() && b.Log != p.Layout.Log {
		return fmt.Errorf("the units hold log %v, and the configuration says %v", p.Layout.Log, b.Log)
	}
	why := slices.Clone(p.Unsure)
	for _, x := range p.Missing {
		why = append(why, fmt.Sprintf("unit %d, a member of %v: %s", x.Unit, p.Active, x.Why))
	}
	for _, x := range list {
		if x.err != nil && !slices.ContainsFunc(p.Missing, func(y layout.Missing) bool { return y.Unit == x.ID }) {
			why = append(why, fmt.Sprintf("unit %d (%s): %v", x.ID, x.Control, x.err))
		}
	}
	if len(why) > 0 {
		return errors.New(strings.Join(why, "; "))
	}
	return nil
}

// build writes what was planned, and says so.
func (m *manager) build(p *layout.Plan, why string) error {
	if !m.store.allRead(commandRecover) {
		return errors.New("not every layout server answers that it reads what is to be written: start all of them, with this release")
	}
	if _, err := m.store.apply(p.Recover); err != nil {
		return fmt.Errorf("build the layout store: %w", err)
	}
	var units []uint32
	for _, u := range p.Layout.Units {
		units = append(units, uint32(u.ID))
	}
	m.log.Warn("RECOVERED: the layout store was lost, and is built from what the units hold", "log", p.Layout.Log, "epoch", uint64(p.Active.Epoch),
		"record", fmt.Sprintf("%016x", uint64(p.Active.ID)), "units", units, "attempted", uint64(p.Attempted), "clients", uint32(p.Clients),
		"accepted_loss", p.AcceptedLoss, "unsure", p.Unsure, "why", why)
	return nil
}

// needed reports whether the first epoch of a store that was built from units cannot be made
// without unit u: what the lost store had noted of the members is gone, so that one whose store
// went back is found out only beside the others (rule R23).
func (p past) needed(u layout.UnitID, givenUp []layout.UnitID) bool {
	return p.base.Needs(u) && !contains(givenUp, u) && !contains(p.accepted, u)
}

// checkNeeded fails if a member was not sealed without which the first epoch of a store that was
// built from units is not made.
func (p past) checkNeeded(seals layout.Seals, givenUp []layout.UnitID) error {
	for _, m := range p.base.Stores {
		if s, ok := seals[m.Unit]; p.needed(m.Unit, givenUp) && (!ok || s.Trust != layout.Trusted) {
			return fmt.Errorf("unit %d was not sealed with the store that it had: the layout store was built from what the units hold, and its first epoch needs every "+
				"member. Give up what it may hold: corfu unit remove %d --accept-loss", m.Unit, m.Unit)
		}
	}
	return nil
}

// recoverRequest is an operator's word.
type recoverRequest struct {
	execute bool
	givenUp []layout.UnitID
	ask     []layout.Unit
}

// planned answers an operator: what would be done, and why it is not, or that it was.
func (m *manager) planned(ctx context.Context, q recoverRequest) *pb.RecoverReply {
	list := m.survey(ctx, m.listed(q.ask))
	r := &pb.RecoverReply{}
	p, err := layout.PlanRecovery(answers(list), q.givenUp)
	for _, x := range list {
		u := &pb.RecoverUnit{Id: uint32(x.ID), Control: x.Control}
		if u.State = pbconv.StoreState(x.known.Store); x.err != nil {
			u.Error, u.State = x.err.Error(), nil
		}
		if !x.known.Log.IsZero() {
			u.Log = x.known.Log[:]
		}
		u.Promise = uint64(x.known.Promise)
		if p != nil {
			u.Member = p.Layout.IsMember(x.ID)
			for _, y := range p.Missing {
				if y.Unit == x.ID {
					u.Missing = y.Why
				}
			}
		}
		r.Units = append(r.Units, u)
	}
	if err != nil {
		r.Refused = err.Error()
		return r
	}
	r.Layout, r.Record, r.Attempted, r.Clients = pbconv.Layout(p.Layout), pbconv.RecordRef(p.Active), uint64(p.Attempted), uint32(p.Clients)
	r.Unsure, r.AcceptedLoss = p.Unsure, p.AcceptedLoss
	if r.Refused = m.mayBuild(list, p); r.Refused == "" && q.execute {
		if err := m.build(p, "an operator said so"); err != nil {
			r.Refused = err.Error()
		} else {
			r.Done = true
		}
	}
	return r
}

// mayBuild returns why not even an operator's word is enough; "": it is.
func (m *manager) mayBuild(list []surveyed, p *layout.Plan) string {
	var missing, ids []string
	for _, x := range p.Missing {
		missing = append(missing, fmt.Sprintf("unit %d: %s", x.Unit, x.Why))
		ids = append(ids, fmt.Sprint(x.Unit))
	}
	switch b := m.cfg.Bootstrap; {
	case b != nil && !b.Log.IsZero() && b.Log != p.Layout.Log:
		return fmt.Sprintf("the units hold log %v, and the configuration of the layout servers says %v: correct one of the two", p.Layout.Log, b.Log)
	case len(missing) > 0:
		return fmt.Sprintf("members may know a newer epoch, or hold the only copy of something: %s. Start them, or give up what they may hold: --accept-loss %s",
			strings.Join(missing, "; "), strings.Join(ids, ","))
	}
	return m.otherLeads(list)
}

// Recover implements pb.LayoutServiceServer.
func (v service) Recover(ctx context.Context, q *pb.RecoverRequest) (*pb.RecoverReply, error) {
	term, leads := v.s.store.raft.Leader()
	if !leads || v.s.store.catchUp(term) != nil {
		return nil, v.refuse(errNotLeader)
	}
	var latest layout.Epoch
	v.s.store.fsm.view(func(s *layout.State) { latest = s.Latest() })
	if latest != 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "the layout store has epoch %d: it is not empty, and nothing is built. If it went back (corfu status), "+
			"stop all layout servers, move their directories away, start them, and ask again", latest)
	}
	ask := recoverRequest{execute: q.Execute}
	for _, u := range q.AcceptLoss {
		ask.givenUp = append(ask.givenUp, layout.UnitID(u))
	}
	for _, u := range q.Ask {
		ask.ask = append(ask.ask, layout.Unit{ID: layout.UnitID(u.GetId()), Control: u.GetControl()})
	}
	return v.s.manager.planned(ctx, ask), nil
}
