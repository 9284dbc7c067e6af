package server

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// judgement says what the manager has to do, given what the members report. Of wait, unsure, activate and reconfigure at most one is
// set; none: all is well. Beside the last two, hindered may be; where somebody asked for a change, activate stands beside any of the others, so
// that a member that cannot be activated does not leave the change out.
type judgement struct {
	wait        string        // what cannot be mended, and why: for a member that failed, or must not be used
	hindered    string        // who refuses and cannot be left out, and why: it is tried again all the same, in the hope that it does
	away        string        // beside unsure: it was stopped by its operator, and is waited for
	unsure      string        // a member is silent, and has not failed yet: nothing is to be done before that is clear
	activate    []*member     // missed the activation of the epoch that is ACTIVE
	reconfigure string        // why a new epoch is needed
	change      layout.Change // what it has to do otherwise, if there is to be one for whatever reason
}

// scene is what is judged.
type scene struct {
	cfg      Config
	now      time.Time
	active   *layout.Layout // nil before the first epoch
	shape    *layout.Layout // what the next layout looks like without a change
	replicas int            // that a chain is to have
	members  *members
	copied   []copied      // older positions that were copied to units that joined
	failing  int           // ranges of older positions that cannot be copied, as it seems
	asked    layout.Change // by an operator
	stuck    string        // a position that only a new epoch decides; "": none

	bootstrap *layout.Layout // whose addresses members are moved to; nil: none

	givenUp  []layout.UnitID // with what they may hold
	past     past            // what stores are compared with
	alone    bool            // this layout server is the only one
	unnamed  bool            // the active record names no stores, and the next one would
	recovers string          // why an empty layout store waits that units can be asked to fill; "": there is nothing to fill it from
	resizes  bool            // all layout servers read a layout with another max_sessions than the founding one's
	left     []leftUnit      // units that left their chains and may have what members lost
	vouch    *voucher        // of what they hold
	force    bool            // an operator's word takes an epoch, even if no member changes
}

// copied says how far a range was copied to a unit that joined.
type copied struct {
	layout.Range
	below layout.Address // all below is settled there,
	since layout.Epoch   // as it was in this epoch, or became: trims that came later are to be told
}

// note is what a unit remembers of it when all below is durable there.
func (c copied) note(below layout.Address) *pb.CopiedRange {
	return &pb.CopiedRange{From: uint64(c.From), To: uint64(c.To), Below: uint64(below), Since: uint64(c.since)}
}

// judge looks at the members. It chooses between what is possible; what is safe the seals decide (rule R16).
//
// Activation comes before reconfiguration: a unit that was reconciled for the active epoch and is opened counts as intact (rule R16) when
// the next one is sealed for the sake of another member.
func (s *scene) judge() judgement {
	var j judgement
	if j.wait = cmp.Or(s.recovers, s.wentBack()); j.wait != "" {
		return j
	}
	var down, proving, refusing []*member
	var silent, doubtful, broken []string
	for _, m := range s.members.list {
		if m.standby {
			continue
		}
		r := m.report
		ready := s.active != nil && r.promise == s.active.Epoch
		refuses := m.refuses(s.now, s.cfg.FailAfter)
		if refuses && !m.pulse.failed {
			refusing = append(refusing, m)
		}
		trust, why := s.trust(m)
		switch {
		case s.handsOver(m):
			down = append(down, m)
			silent = append(silent, fmt.Sprintf("%s (%s) is being stopped by its operator", m.name, m.control))
		case m.pulse.failed:
			down = append(down, m)
			silent = append(silent, fmt.Sprintf("%s (%s): %s", m.name, m.control, r.err))
		case m.pulse.doubtful():
			doubtful = append(doubtful, m.name)
		case trust == layout.Stranger: // is left out like one that failed; once rule R16 holds without it, it is a spare
			down = append(down, m)
			silent = append(silent, fmt.Sprintf("%s (%s): %v", m.name, m.control, why))
		case ready && r.state == stateOpen:
		case ready && r.state == stateSealed && (r.reconciled || m.unit == 0) && (!refuses || m.refusal.idle()):
			j.activate = append(j.activate, m)
		case s.active != nil:
			broken = append(broken, fmt.Sprintf("%s is %s at epoch %d, not open at %d", m.name, r.state, r.promise, s.active.Epoch))
			if m.pulse.proving(s.cfg.FailAfter) {
				proving = append(proving, m)
			}
		}
	}
	switch {
	case len(j.activate) > 0 && s.asked.IsZero() && !s.force:
		return j
	case len(doubtful) > 0:
		j.unsure, j.away = strings.Join(doubtful, ", "), s.away()
		return j
	case s.active == nil:
		if j.wait, j.unsure = s.foundable(); j.wait != "" || j.unsure != "" {
			return j
		}
		if j.wait = strings.Join(silent, "; "); j.wait == "" {
			j.reconfigure, j.hindered = "bootstrap: the log has no active epoch", refusals(refusing)
		}
		return j
	}
	s.mend(&j, crew{down, refusing, proving}, silent, broken)
	if why := s.unheard(); why != "" && j.reconfigure != "" {
		return judgement{wait: why, activate: j.activate}
	}
	return j
}

// crew are members without which the log should go on: they are silent, refuse, or fall again and again.
type crew struct{ down, refusing, proving []*member }

// forEpoch are those that refuse, and on whose account an epoch is made: without them, or, if they must stay, since they may do it now. Of one
// that does not write to flash an epoch with it would ask just that.
func forEpoch(refusing, stay []*member) (list []*member) {
	for _, m := range refusing {
		if !m.refusal.idle() || !slices.Contains(stay, m) {
			list = append(list, m)
		}
	}
	return list
}

func refusals(list []*member) string {
	var all []string
	for _, m := range list {
		all = append(all, fmt.Sprintf("%s (%s): %v", m.name, m.control, &m.refusal))
	}
	return strings.Join(all, "; ")
}

// reasonAsked is why, if somebody asked and there is no other reason.
const reasonAsked = "asked for"

// mend says how to go on from an active epoch.
func (s *scene) mend(j *judgement, c crew, silent, broken []string) {
	change, stay, err := s.without(j, c)
	if err != nil {
		j.wait = fmt.Sprintf("%s; %v", strings.Join(silent, "; "), err)
		if len(silent) == 0 {
			j.wait = err.Error()
		}
		return
	}
	j.change = change
	if len(j.activate) > 0 {
		return
	}
	if refusing := forEpoch(c.refusing, stay); len(refusing) > 0 {
		silent = append(silent, refusals(refusing))
	}
	switch {
	case len(silent)+len(broken) > 0:
		j.reconfigure = strings.Join(append(silent, broken...), "; ")
	case len(s.drained(change)) > 0:
		j.reconfigure = fmt.Sprintf("units %v leave: others hold everything", s.drained(change))
	case len(change.Join) > 0:
		j.reconfigure = fmt.Sprintf("spares %v join", change.Join)
	case len(change.Adopt) > 0 && len(change.Adopt)+s.failing >= len(s.shape.Behind()):
		j.reconfigure = "what the chains' new units lacked was copied"
		if s.failing > 0 {
			j.reconfigure = "what some of the chains' new units lacked was copied; others do not take it"
		}
	case s.stuck != "":
		j.reconfigure = s.stuck
	case s.past.base.Recovered():
		j.reconfigure = "the layout store was built from what the units hold"
	case s.unnamed:
		j.reconfigure = "the record of the active epoch names no stores yet (rule R21)"
	case moved(s.active, s.shape):
		j.reconfigure = "members have other control addresses than the active layout says"
	}
	if j.reconfigure == "" && (!s.asked.IsZero() || s.force) {
		j.reconfigure = reasonAsked
	}
}

// without is the change that leaves out as many of the crew as can be. Those that refuse and stay it gives, and notes in j.
func (s *scene) without(j *judgement, c crew) (layout.Change, []*member, error) {
	gone := slices.Concat(c.down, c.refusing)
	change, err := s.change(slices.Concat(gone, c.proving))
	if err != nil && len(c.proving) > 0 {
		change, err = s.change(gone)
	}
	if err == nil || len(c.refusing) == 0 {
		return change, nil, err
	}
	if change, err = s.change(c.down); err != nil {
		return change, nil, err
	}
	var stay []*member
	var why []string
	gone = c.down
	for _, list := range s.together(c.refusing) {
		next, err := s.change(slices.Concat(gone, list))
		if err == nil {
			gone, change = slices.Concat(gone, list), next
			continue
		}
		stay = append(stay, list...)
		why = append(why, fmt.Sprintf("%s; it cannot be left out: %v", refusals(list), err))
	}
	j.hindered = strings.Join(why, "; ")
	for _, m := range stay {
		if m.report.state == stateSealed && m.report.promise == s.active.Epoch && m.refusal.task == taskActivate {
			j.activate = append(j.activate, m)
		}
	}
	return change, stay, nil
}

// together are members in groups that are left out as a whole or not at all: where one of a chain that refuses must stay, nothing is won by going on
// without another one.
func (s *scene) together(list []*member) (groups [][]*member) {
	chains := s.shape.Segments[len(s.shape.Segments)-1].Chains
	of := func(m *member) int {
		return slices.IndexFunc(chains, func(c layout.Chain) bool { return m.unit != 0 && contains(c.Units, m.unit) })
	}
	for _, m := range list {
		chain := of(m)
		i := slices.IndexFunc(groups, func(g []*member) bool { return chain >= 0 && of(g[0]) == chain })
		if i < 0 {
			groups = append(groups, []*member{m})
			continue
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// drained are the units that leave since they were to, and can.
func (s *scene) drained(c layout.Change) (list []layout.UnitID) {
	for _, u := range c.Lost {
		if m := s.members.unit(u); m != nil && !m.pulse.failed && !contains(s.asked.Lost, u) {
			if _, leaving := s.shape.IsLeaving(u); leaving {
				list = append(list, u)
			}
		}
	}
	return list
}

// change is what the next layout has to do otherwise if these members are down: they leave, a standby takes over, spares join. It fails
// if there is no way.
func (s *scene) change(down []*member) (layout.Change, error) {
	c := s.asked
	c.Replicas = s.replicas
	for _, m := range down {
		if m.unit == 0 {
			if c.Sequencer = s.standby(0); c.Sequencer == 0 {
				return c, fmt.Errorf("no standby answers that could take over from %s", m.name)
			}
		} else if !contains(c.Lost, m.unit) {
			c.Lost = append(c.Lost, m.unit)
		}
	}
	for _, r := range s.copied {
		if m := s.members.unit(r.Unit); m != nil && !contains(c.Lost, r.Unit) && fits(r, m.report.end, s.shape.Geometry) {
			c.Adopt = append(c.Adopt, r.Range)
		}
	}
	// A first look: who can go, and who joins, depends on what is missing then.
	without, err := s.shape.With(c, s.active.Epoch+1, s.active.Start)
	if err != nil {
		return c, err
	}
	for _, u := range without.Dispensable(s.replicas) {
		if !contains(c.Lost, u) {
			c.Lost = append(c.Lost, u)
		}
	}
	open, _ := without.Deficit(s.replicas)
	c.Join = s.joiners(without, c, open)
	next, err := s.shape.With(c, s.active.Epoch+1, s.active.Start)
	if err != nil {
		return c, err
	}
	if n := next.Shortest(); len(c.Lost) > 0 && len(s.givenUp) == 0 && n < s.min() {
		return c, fmt.Errorf("a chain would have %d units, min_replicas is %d and no spare answers", n, s.min())
	}
	if mutant.R16 {
		return c, nil
	}
	seals := s.foresee(c.Lost)
	if err := layout.SealedEnough(s.active, seals, s.givenUp); err != nil {
		return c, err
	}
	return c, layout.SoundEnough(s.active, seals, s.givenUp)
}

// joiners are up to n spares that answer: those first that an operator named for the place of a unit that leaves.
func (s *scene) joiners(next *layout.Layout, c layout.Change, n int) (list []layout.UnitID) {
	for _, named := range []bool{true, false} {
		for _, m := range s.members.list {
			called := slices.ContainsFunc(next.Leaving, func(x layout.Leaving) bool { return x.By == m.unit })
			_, out := next.IsLeaving(m.unit)
			free := m.standby && m.unit != 0 && s.past.mayWipe(m.unit, m.report.past, s.active.Epoch+1, len(s.givenUp)+len(s.past.accepted) > 0) == nil && !out && !contains(c.Forget, m.unit) && !contains(c.Chain, m.unit) && listedSpare(next, m.unit)
			if len(list) < n && free && called == named && m.fit(s.cfg.FailAfter) && s.mayRefill(c, list, m) {
				list = append(list, m.unit)
			}
		}
	}
	return list
}

func listedSpare(l *layout.Layout, u layout.UnitID) bool {
	return slices.ContainsFunc(l.Spares, func(x layout.Unit) bool { return x.ID == u })
}

// fits tells whether a unit whose entries end at end may take over a range: one with holes only if the first of them and
// its own last entry stand in one window (rule R4). Clients fill the holes sooner or later, since the chain needs its windows, too.
func fits(r copied, end layout.Address, g layout.Geometry) bool {
	return r.below == r.To || end <= r.below+layout.Address(g.Window)/2
}

func (s *scene) min() int {
	if s.cfg.MinReplicas > 0 {
		return s.cfg.MinReplicas
	}
	return max(1, s.replicas-1)
}

// standby is the sequencer that could take over: this one, or the first if it is 0. 0: none.
func (s *scene) standby(id layout.SequencerID) layout.SequencerID {
	for _, m := range s.members.list {
		if m.standby && m.unit == 0 && m.fit(s.cfg.FailAfter) && (id == 0 || id == m.seq) {
			return m.seq
		}
	}
	return 0
}

// foresee is what a seal would find, as far as the reports say: to seal and then find out that rule R16 does not hold would
// stop what works still.
func (s *scene) foresee(lost []layout.UnitID) layout.Seals {
	seals := layout.Seals{}
	for _, m := range s.members.list {
		out := contains(lost, m.unit)
		if m.unit == 0 || m.standby || m.pulse.failed || (out && (m.report.state == stateUnreachable || m.lost(s.now, s.cfg.FailAfter))) {
			continue
		}
		intact := m.report.intact
		if m.report.reconciled && m.report.promise == s.active.Epoch {
			intact = s.active.Epoch // it missed the activation
		}
		trust, _ := s.trust(m)
		seals[m.unit] = layout.Seal{Unit: m.unit, Trust: trust, Store: m.report.past, Intact: intact, Watermark: m.report.watermark, Corrupt: m.report.bad, MoreCorrupt: m.report.corrupt > len(m.report.bad)}
	}
	return seals
}

func contains(list []layout.UnitID, u layout.UnitID) bool { return slices.Contains(list, u) }

// moved tells whether control addresses differ between two layouts of the same members.
func moved(a, b *layout.Layout) bool {
	return a.Sequencer != b.Sequencer || differ(a.Units, b.Units) || differ(a.Spares, b.Spares) || differ(a.Standbys, b.Standbys)
}

func differ[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return true
	}
	for i := range a {
		if a[i] != b[i] {
			return true
		}
	}
	return false
}

// moveTo gives l the control addresses that b names for members with the same ids.
func moveTo(l, b *layout.Layout) {
	if b == nil {
		return
	}
	units, sequencers := map[layout.UnitID]layout.Unit{}, map[layout.SequencerID]layout.Sequencer{}
	for _, u := range append(append([]layout.Unit{}, b.Units...), b.Spares...) {
		units[u.ID] = u
	}
	for _, s := range append([]layout.Sequencer{b.Sequencer}, b.Standbys...) {
		sequencers[s.ID] = s
	}
	for _, list := range [][]layout.Unit{l.Units, l.Spares} {
		for i, u := range list {
			if v := units[u.ID]; v.Control != "" {
				list[i] = v
			}
		}
	}
	if v := sequencers[l.Sequencer.ID]; v.Control != "" {
		l.Sequencer = v
	}
	for i, s := range l.Standbys {
		if v := sequencers[s.ID]; v.Control != "" {
			l.Standbys[i] = v
		}
	}
}
