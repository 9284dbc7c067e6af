package server

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// historyLength is how many reconfigurations are kept, and shown.
const historyLength = 20

// history is what this server remembers of the reconfigurations that it led since it leads. That an epoch was, and what it changed, stands
// in the layout records, which all layout servers keep (layout.MaxRecords of them); when, why and how long is known here alone.
type history struct {
	mu    sync.Mutex
	since time.Time                   // when this server began to lead
	list  []*pb.ReconfigurationStatus // newest first; an entry is not changed once it is here
}

// begin forgets what was before this server led.
func (h *history) begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since, h.list = now, nil
}

// add notes how an attempt ended. Attempts that fail one after the other for one reason are one entry.
func (h *history) add(r *reconfiguration, reason string, began time.Time, err error) {
	x := &pb.ReconfigurationStatus{Epoch: uint64(r.epoch), Result: resultActive, AtMs: uint64(began.UnixMilli()),
		TookMs: uint64(time.Since(began).Milliseconds()), Reason: clusterstatus.Brief(reason), Phases: r.took}
	if err != nil {
		x.Result, x.Error, x.Attempts = resultAborted, clusterstatus.Brief(err.Error()), 1
	} else {
		x.Changes = changes(r.base, r.layout)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.list) > 0 {
		if last := h.list[0]; err != nil && last.Result == resultAborted && last.Reason == x.Reason {
			x.Attempts += last.Attempts
			h.list = h.list[1:]
		}
	}
	h.list = slices.Insert(h.list, 0, x)
	h.list = h.list[:min(len(h.list), historyLength)]
}

// all is what is remembered, and behind it what the records say of older epochs.
func (h *history) all(st *store) (list []*pb.ReconfigurationStatus, since time.Time) {
	h.mu.Lock()
	list, since = slices.Clone(h.list), h.since
	h.mu.Unlock()
	known := map[uint64]bool{}
	for _, x := range list {
		known[x.Epoch] = true
	}
	st.fsm.view(func(s *layout.State) {
		for e := s.Highest(); e > 0 && s.Highest()-e < layout.MaxRecords && len(list) < historyLength; e-- {
			rec, ok := s.Record(e)
			if !ok || known[uint64(e)] || rec.Layout == nil || rec.Verdict == layout.Undecided {
				continue
			}
			x := &pb.ReconfigurationStatus{Epoch: uint64(e), Result: resultAborted}
			if rec.Verdict == layout.Active {
				base, _ := s.Record(rec.Base)
				x.Result = resultActive
				if rec.Base == 0 || base.Layout != nil {
					x.Changes = changes(base.Layout, rec.Layout)
				}
			}
			list = append(list, x)
		}
	})
	slices.SortStableFunc(list, func(a, b *pb.ReconfigurationStatus) int { return int(b.Epoch) - int(a.Epoch) })
	return list, since
}

// changes says what a layout does otherwise than its base, for people. A nil base: the log begins.
func changes(base, next *layout.Layout) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if base == nil {
		last := next.Segments[len(next.Segments)-1]
		say("the log begins: %s, sequencer %d", chainsText(last.Chains), next.Sequencer.ID)
		return list
	}
	if a, b := base.Sequencer.ID, next.Sequencer.ID; a != b {
		say("sequencer %d took over from %d", b, a)
	}
	for _, u := range base.Units {
		if !next.IsMember(u.ID) {
			say("unit %d left its chain", u.ID)
		}
	}
	for _, u := range next.Units {
		if !base.IsMember(u.ID) {
			say("unit %d joined %s", u.ID, chainsText(chainsWith(next, u.ID)))
		}
	}
	behind := map[layout.UnitID]bool{}
	for _, r := range next.Behind() {
		behind[r.Unit] = true
	}
	told := map[layout.UnitID]bool{}
	for _, r := range base.Behind() {
		if !behind[r.Unit] && !told[r.Unit] && next.IsMember(r.Unit) {
			told[r.Unit] = true
			say("unit %d holds the older positions, too", r.Unit)
		}
	}
	for _, u := range next.Spares {
		if !listed(base, u.ID) {
			say("spare %d was added", u.ID)
		}
	}
	for _, u := range slices.Concat(base.Units, base.Spares) {
		if !listed(next, u.ID) {
			say("unit %d was forgotten", u.ID)
		}
	}
	if a, b := len(base.Segments[len(base.Segments)-1].Chains), len(next.Segments[len(next.Segments)-1].Chains); a != b {
		say("%d chains became %d", a, b)
	}
	if a, b := base.Geometry.MaxSessions, next.Geometry.MaxSessions; a != b {
		say("max_sessions %d became %d", a, b)
	}
	if len(list) == 0 {
		say("the same members")
	}
	return list
}

func listed(l *layout.Layout, u layout.UnitID) bool {
	return slices.ContainsFunc(slices.Concat(l.Units, l.Spares), func(x layout.Unit) bool { return x.ID == u })
}

// chainsWith are the chains that take new entries and name the unit.
func chainsWith(l *layout.Layout, u layout.UnitID) (list []layout.Chain) {
	for _, c := range l.Last().Chains {
		if contains(c.Units, u) {
			list = append(list, c)
		}
	}
	return list
}

// chainsText is "chains 1-2, 3-4".
func chainsText(list []layout.Chain) string {
	var b strings.Builder
	b.WriteString("chain ")
	if len(list) != 1 {
		b.Reset()
		b.WriteString("chains ")
	}
	for i, c := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		for k, u := range c.Units {
			if k > 0 {
				b.WriteByte('-')
			}
			fmt.Fprint(&b, u)
		}
	}
	return b.String()
}
