package server

import (
	"context"
	"sync"
	"time"

	"corfu/layout"
)

// poll asks all members, and says what changed.
func (m *manager) poll(ctx context.Context, shape *layout.Layout) {
	var mu sync.Mutex // of what the members are as a whole
	clients := 0
	if m.vitals.due(time.Now()) {
		clients = vitalClients
	}
	each(m.members.list, func(x *member) { m.pollMember(ctx, &mu, x, shape, clients) })
	if clients > 0 {
		m.vitals.copies(time.Now(), m.rebuilder.progress())
	}
	m.judgeReach(time.Now())
	show := make([]shownMember, len(m.members.list))
	m.metrics.up.Reset()
	for i, x := range m.members.list {
		show[i] = shownMember{x.name, x.control, x.role(), x.unit, x.seq, x.shownReport(m.cfg.FailAfter), x.silence(), x.unreached, 0, m.members.waited(x, m.cfg)}
		if x.stops() {
			show[i].stopped = max(time.Since(x.stopped), time.Millisecond)
		}
		up := 0.0
		if x.report.state != stateUnreachable {
			up = 1
		}
		m.metrics.up.WithLabelValues(x.name).Set(up)
	}
	m.metrics.observeMembers(m.members.list, m.cfg.FailAfter)
	m.set(func(s *shown) { s.members, s.down = show, m.reach.down })
}

// pollMember asks one. Nobody is waited for beyond the moment at which it has failed.
func (m *manager) pollMember(ctx context.Context, mu *sync.Mutex, x *member, shape *layout.Layout, clients int) {
	mu.Lock()
	m.heardOf(x, time.Now())
	left, silent := x.pulse.left(m.members.patience(x, m.cfg))
	mu.Unlock()
	patience := m.cfg.stateTimeout()
	if silent {
		patience = min(patience, max(left-time.Since(x.asked), minPause))
	}
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := x.poll(bounded, shape, clients)
	if r.state == stateUnreachable && context.Cause(ctx) == context.Canceled {
		return // the server stops
	}
	m.store.seenAtUnit(r.past.Client)
	now := time.Now()
	if clients > 0 {
		m.vitals.take(now, x, r)
		for _, c := range r.vitals.GetClients() {
			m.store.clients.raise(layout.ClientID(c.Client))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	m.members.hear(x, r, shape.Epoch > 0, now)
	took, resumed := m.took(x, began, now), x.pulse.missed > 0
	r = m.heartbeat(ctx, x, r, took)
	x.asked = now
	if was := x.report; was.state != r.state || was.promise != r.promise {
		m.log.Info("member", "name", x.name, "state", r.state, "epoch", uint64(r.promise), "was", was.state, "err", r.err)
	}
	x.report = r
	if r.state != stateUnreachable {
		x.fabric.keep(took, m.cfg.stateTimeout()+m.cfg.Poll, fabricPatience*m.cfg.FailAfter, resumed)
	}
}

// took is how long x was asked: since the last time, that of the call itself included. Of one that was never heard only the time counts in
// which this leader could hear others.
func (m *manager) took(x *member, began, now time.Time) time.Duration {
	from := x.asked
	if from.IsZero() {
		from = began
	}
	if runs := m.members.runs; !x.pulse.heard && runs.After(from) {
		from = runs
	}
	return now.Sub(from)
}

// heartbeat counts an answer, or that there was none, and gives the report that stands: of a member that has not failed yet it
// is the last one.
func (m *manager) heartbeat(ctx context.Context, x *member, r report, took time.Duration) report {
	answered := r.state != stateUnreachable
	restarted := answered && r.state == stateClosed && x.report.state == stateOpen
	if answered && m.stopNotice(ctx, x, r, time.Now()) {
		restarted = false // on purpose: it is no fall, and its member need not prove anything
	}
	if answered && (x.pulse.failed || (r.state == stateClosed && x.report.state != stateClosed)) {
		// Whoever was started anew may have been mended. A heartbeat that was missed is no such thing: busy machines miss some, and a
		// member that refuses would never count as failed there.
		x.refusal = refusal{}
	}
	if answered {
		m.flash(x, r)
	}
	x.pulse.beat(answered, restarted, took, m.cfg.stateTimeout()+m.cfg.Poll, m.members.patience(x, m.cfg))
	if !answered && !x.pulse.failed && x.pulse.heard {
		return x.report
	}
	return r
}

// untilFailure is how long until the first member that is silent counts as failed, unless it answers: waiting for the heartbeat after
// that would cost the log up to one more.
func (m *manager) untilFailure() time.Duration {
	first := m.cfg.Poll // the next heartbeat is there before
	for _, x := range m.members.list {
		if left, silent := x.pulse.left(m.members.patience(x, m.cfg)); silent && !x.standby {
			first = min(first, max(left-time.Since(x.asked), minPause))
		}
	}
	return first
}

// minPause is the shortest time between two looks at the members.
const minPause = 5 * time.Millisecond
