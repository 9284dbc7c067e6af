package server

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"corfu/internal/clusterstatus"
	"corfu/rdma"
)

// A member may answer every heartbeat over TCP and be of no use to any client, because the fabric
// does not carry to it. It counts as one that refuses then (refuse.go), after twice fail_after: the
// log goes on without it, or waits and names it. Two witnesses say so: the leader's own link
// (fabric.go), and the clients (reports.go).

// reach judges what the fabric carries. The manager owns it.
type reach struct {
	log     *slog.Logger
	reports *reports

	down     string    // why the leader's own link is taken for broken; "": it is not
	foreign  bool      // all members speak another fabric than this server, which was said
	named    []string  // that cannot be reached, as was said last
	yielded  time.Time // when leadership was last handed over for that
	pause    time.Duration
	believed time.Time // when a member was last left out on the clients' word alone
}

const (
	// yieldMin and yieldMax are for how long a server keeps the leadership that it hands over since
	// it reaches no member: where no layout server reaches any, it must not go round between them.
	yieldMin = 10 * time.Second
	yieldMax = 5 * time.Minute
)

// forget ends what was known: another server leads.
func (r *reach) forget() {
	r.reports.forget()
	r.down, r.foreign, r.named, r.believed = "", false, nil, time.Time{}
}

// unreached is a member that the fabric does not reach.
type unreached struct {
	m     *member
	why   string
	since time.Duration
	leave bool // it is to be left out, not only named
}

// judgeReach looks at what the fabric reached since the last heartbeat.
func (m *manager) judgeReach(now time.Time) {
	list := m.reach.weigh(m.members.list, m.cfg, now)
	var names []string
	for _, x := range m.members.list {
		x.unreached = ""
		i := slices.IndexFunc(list, func(u unreached) bool { return u.m == x })
		if i >= 0 {
			x.unreached = list[i].why
			names = append(names, fmt.Sprintf("%s: %s", x.name, list[i].why))
		}
		m.reachable(x, i >= 0 && list[i].leave, list, i)
	}
	m.metrics.observeReach(m.members.list, m.reach.down != "")
	if !sameMembers(names, m.reach.named) {
		m.reach.named = names
		if len(names) > 0 {
			m.log.Error("UNREACHABLE over the fabric: look at the addresses that members tell (fabric.advertise), at firewalls, and at the network",
				"members", strings.Join(names, "; "))
		} else {
			m.log.Info("the fabric reaches every member again")
		}
	}
	m.yield(now)
}

// sameMembers compares what is said of members by their names: times in the text differ each time.
func sameMembers(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool {
		p, _, _ := strings.Cut(x, ":")
		q, _, _ := strings.Cut(y, ":")
		return p == q
	})
}

// reachable notes that the fabric reaches a member, or that it has failed.
func (m *manager) reachable(x *member, failed bool, list []unreached, i int) {
	switch {
	case failed && x.refusal.task != taskFabric && x.refuses(time.Now(), m.cfg.FailAfter): // it goes already, for another reason
	case failed:
		if x.refusal.task != taskFabric {
			x.refusal = refusal{}
			m.note(blame{x, taskFabric, time.Now().Add(-list[i].since), errors.New(list[i].why)})
		}
		x.refusal.last, x.refusal.err = time.Now(), clusterstatus.Brief(list[i].why)
	case x.refusal.task == taskFabric && !x.standby:
		x.refusal = refusal{}
	}
}

// weigh returns the members that the fabric does not reach, as far as the leader's links and the
// clients say.
func (r *reach) weigh(members []*member, cfg Config, now time.Time) (list []unreached) {
	var known, reached, failed, foreign int
	sights := make([]sight, len(members))
	for i, x := range members {
		if x.report.state == stateUnreachable || x.pulse.failed {
			continue // the control plane says what is to be said of it
		}
		s := x.fabric.look()
		if sights[i] = s; !s.known {
			continue
		}
		known++
		var other *rdma.ProviderError
		switch {
		case s.failed && errors.As(s.err, &other):
			foreign++
			failed++
		case s.failed:
			failed++
		case s.doubt:
		default:
			reached++
		}
	}
	switch own := known >= 2 && failed == known; {
	case own && foreign == known:
		if r.down = ""; !r.foreign {
			r.foreign = true
			for _, s := range sights {
				if s.known {
					r.log.Warn("the members speak another fabric than this layout server, which seals them over TCP alone and relies on what clients report", "why", s.err)
					break
				}
			}
		}
	case own:
		r.down = r.ownFault(members, sights)
	case reached > 0:
		if r.down != "" || r.foreign {
			// The link carries again, which the first members show a moment before the others.
			for i, x := range members {
				x.fabric.again()
				sights[i] = sight{}
			}
		}
		r.down, r.foreign = "", false
	}
	for i, x := range members {
		if x.excused(now, cfg) {
			continue // somebody stops it, and clients see that before the leader does
		}
		s := sights[i]
		ownLink := r.down != "" || r.foreign
		u, complained := r.reports.against(x, !ownLink && s.known && !s.failed && !s.doubt, now, cfg.FailAfter)
		switch {
		case s.failed && !ownLink:
			// One link that fails is the member's only if another one carries: else it may be the
			// leader's own that goes.
			list = append(list, unreached{x, s.err.Error(), s.silent, reached > 0})
		case x.report.refused != "" && x.report.state != stateUnreachable && x.report.refusedFor >= cfg.FailAfter:
			list = append(list, unreached{x, "it has to turn connections away: " + x.report.refused, x.report.refusedFor, true})
		case complained:
			if u.leave && !x.standby && x.refusal.task != taskFabric && now.Sub(r.believed) < believeAgain {
				u.leave = false
			}
			if u.leave && x.refusal.task != taskFabric {
				r.believed = now
			}
			list = append(list, u)
		}
	}
	return list
}

// ownFault says that the leader's own link is broken.
func (r *reach) ownFault(members []*member, sights []sight) string {
	for i, x := range members {
		if sights[i].failed {
			return fmt.Sprintf("this layout server reaches no member over the fabric, so that its own link to it must be broken; of %s: %v", x.name, sights[i].err)
		}
	}
	return ""
}

// yield hands leadership over if the leader's own link to the fabric is broken: another server may
// have one that carries.
func (m *manager) yield(now time.Time) {
	r := &m.reach
	was := m.ownFault
	if m.ownFault = r.down; r.down == "" {
		if was != "" {
			m.log.Info("the fabric reaches members again")
			r.pause = 0
		}
		return
	}
	alone := len(m.store.servers) < 2
	if was == "" {
		m.log.Error("FABRIC DOWN: no member is blamed for it, and none is left out: mend this machine's link", "why", r.down, "another_server_can_lead", !alone)
	}
	if alone || now.Sub(r.yielded) < r.pause {
		return
	}
	r.yielded, r.pause = now, min(max(2*r.pause, yieldMin), yieldMax)
	m.store.handOver(m.log)
}
