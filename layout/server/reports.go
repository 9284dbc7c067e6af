package server

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// reports are what clients said lately of members that they cannot reach over the fabric. They are
// evidence, not orders: a client may be the one that is broken, or lie. What counts are voices, not
// reports: all clients of one identity at one host are one voice.
type reports struct {
	mu    sync.Mutex
	by    map[voice]voiced
	epoch layout.Epoch // of the layout that they speak of
}

// voice is a client as far as the network shows it: who it is by its certificate, and from which
// host it calls.
type voice struct{ identity, host string }

// voiced is the latest report of a voice.
type voiced struct {
	at      time.Time
	client  uint32
	failed  map[string]complaint // by the member's name
	reached []string
}

type complaint struct {
	since    time.Time
	addr     string
	provider string
	err      string
}

const (
	reportLife   = 2 * time.Second // clients repeat theirs several times in that
	maxVoices    = 1024
	maxFailed    = 64               // members that one report may name
	maxText      = 200              // of an error, in bytes
	believeAgain = 30 * time.Second // between two members that are left out on the clients' word alone
	enoughVoices = 2                // that are believed although others reach the member, if they are more
)

func newReports() *reports { return &reports{by: map[voice]voiced{}} }

// take notes a report.
func (r *reports) take(v voice, q *pb.UnreachableReport, now time.Time) {
	x := voiced{at: now, client: q.Client, failed: map[string]complaint{}, reached: q.Reached[:min(len(q.Reached), maxFailed)]}
	for _, f := range q.Failed[:min(len(q.Failed), maxFailed)] {
		lasted := min(time.Duration(f.ForMs)*time.Millisecond, time.Hour)
		x.failed[f.Member] = complaint{now.Add(-lasted), line(f.Address), line(f.Provider), line(f.Error)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := layout.Epoch(q.Epoch); e != r.epoch {
		clear(r.by) // what was said of another layout goes for it alone
		r.epoch = e
	}
	maps.DeleteFunc(r.by, func(_ voice, o voiced) bool { return now.Sub(o.at) > reportLife })
	if _, known := r.by[v]; known || len(r.by) < maxVoices {
		r.by[v] = x
	}
}

// line makes a client's text one that a log and a status can show.
func line(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// against returns what clients say against a member. linked says that the leader's own link to it
// carries, which contradicts them.
func (r *reports) against(x *member, linked bool, now time.Time, failAfter time.Duration) (unreached, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var worst complaint
	var first voice
	complaining := map[uint32]bool{}
	voices, contradicted := 0, 0
	for v, o := range r.by {
		c, complains := o.failed[x.name]
		if now.Sub(o.at) > reportLife {
			continue
		}
		if !complains {
			if slices.Contains(o.reached, x.name) {
				contradicted++
			}
			continue
		}
		complaining[o.client] = true
		if voices++; voices == 1 || c.since.Before(worst.since) {
			worst, first = c, v
		}
	}
	if worst.since.Before(x.back) {
		worst.since = x.back // what clients met while it was stopped is not held against it
	}
	lasted := now.Sub(worst.since)
	if voices == 0 || lasted < failAfter {
		return unreached{}, false
	}
	for _, c := range x.report.carried {
		if !complaining[c] {
			contradicted++
		}
	}
	if linked {
		contradicted++
	}
	leave := contradicted == 0 || (voices >= enoughVoices && voices > contradicted)
	where := ""
	if worst.addr != "" {
		where = fmt.Sprintf(" at %s (%s)", worst.addr, worst.provider)
	}
	why := fmt.Sprintf("a client at %s cannot reach it%s: %s", first.host, where, worst.err)
	if voices > 1 {
		why += fmt.Sprintf("; %d clients say so", voices)
	}
	if contradicted > 0 {
		why += "; others reach it"
	}
	return unreached{x, why, lasted, leave}, true
}

func (r *reports) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.by)
}

// ReportUnreachable implements pb.LayoutServiceServer.
func (v service) ReportUnreachable(ctx context.Context, q *pb.UnreachableReport) (*pb.UnreachableReply, error) {
	if !v.s.store.elected() {
		return nil, v.refuse(v.s.store.notLeader())
	}
	if l, _ := v.s.store.fsm.active.get(); l == nil || uint64(l.Epoch) != q.Epoch {
		return &pb.UnreachableReply{}, nil // the client will hear of the layout in force
	}
	v.s.manager.reach.reports.take(voiceOf(ctx), q, time.Now())
	return &pb.UnreachableReply{}, nil
}

// voiceOf returns whose voice a call is.
func voiceOf(ctx context.Context) voice {
	var v voice
	if id, err := control.Caller(ctx); err == nil {
		v.identity = id.String()
	}
	if p, ok := peer.FromContext(ctx); ok {
		if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
			v.host = host
		}
	}
	return v
}
