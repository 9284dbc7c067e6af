package server

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"corfu/internal/wire/pb"
)

// A member that is stopped on purpose says so with its last heartbeats (control.StopNotice). Mostly it comes back within seconds: it
// is restarted. Left out, it would have to be copied to, and a spare that took its place, too; so the leader waits for it, for
// RestartGrace, as for one that missed a heartbeat. The epoch that it then needs has the members of the one before. A sequencer is not
// waited for where a standby answers.
//
// The notice is advice: it says how long silence may last, and no safety rule asks for it. One that is lost leaves the member to
// fail_after, like one that crashed. One that is a lie delays by RestartGrace what the log does without the member, once: a member
// can delay more by answering heartbeats and nothing else. What the member holds is judged by what it shows when it is sealed.

// defaultRestartGrace is time for `systemctl restart` (1 to 3 s: a stop that brings everything to flash, and a start that reads the
// window), and little enough for those who wait with their appends if the member does not come back.
const defaultRestartGrace = 5 * time.Second

// restartGrace is how long a member may be silent that announced its stop.
func (c Config) restartGrace() time.Duration { return max(c.RestartGrace, c.FailAfter) }

// stops are the members that announced their stop, as any leader heard it: by name, and when. A member that is back is struck out.
type stops struct {
	mu sync.Mutex
	at map[string]time.Time
}

// note adds a member, or takes the later of two notices.
func (s *stops) note(name string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[string]time.Time{}
	}
	was, known := s.at[name]
	if at.After(was) && (known || len(s.at) < maxStops || s.forget(at)) {
		s.at[name] = at
	}
}

const (
	// maxStops bounds the list, and stopsKept its age: by then the members were left out, or are back.
	maxStops  = 4096
	stopsKept = time.Hour
)

// forget drops what is too old, and reports whether there is room. mu is held.
func (s *stops) forget(now time.Time) bool {
	maps.DeleteFunc(s.at, func(_ string, at time.Time) bool { return now.Sub(at) > stopsKept })
	return len(s.at) < maxStops
}

func (s *stops) strike(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, name)
}

// of returns when a member announced its stop; zero: it did not, or it is back.
func (s *stops) of(name string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[name]
}

// stops reports whether the member announced its stop and was not heard of as one that runs since.
func (m *member) stops() bool { return !m.stopped.IsZero() }

// excused reports whether the member is being stopped, so that nothing else is held against it: for as long as it would be waited for, or
// one that only says so would never be found out.
func (m *member) excused(now time.Time, c Config) bool {
	return m.stops() && now.Sub(m.stopped) < c.restartGrace()
}

// waited is how long the log waits for the member yet; 0: it does not wait for it.
func (ms *members) waited(m *member, c Config) time.Duration {
	if left, silent := m.pulse.left(ms.patience(m, c)); silent && m.stops() && !m.standby {
		return left
	}
	return 0
}

// patience is how long m may be silent.
func (ms *members) patience(m *member, c Config) time.Duration {
	patience := m.pulse.patience(!ms.runs.IsZero(), c.Poll, c.FailAfter)
	if m.stops() {
		return max(patience, c.restartGrace())
	}
	return patience
}

// heardOf takes over, for a member that this leader never heard, what it told another one. Its silence began then.
func (m *manager) heardOf(x *member, now time.Time) {
	if x.pulse.heard || x.stops() {
		return
	}
	if at := m.stops.of(x.name); !at.IsZero() && now.Sub(at) < m.cfg.restartGrace() {
		x.stopped = at
		x.pulse.silent = max(x.pulse.silent, now.Sub(at))
	}
}

// stopNotice notes what an answer says of the member's stop. It reports whether the member is one that was stopped on purpose and is back.
func (m *manager) stopNotice(ctx context.Context, x *member, r report, now time.Time) (back bool) {
	switch {
	case r.stopping && !x.stops():
		x.stopped = now
		m.stops.note(x.name, now)
		m.log.Info("a member is being stopped on purpose", "member", x.name, "waited_for", m.cfg.restartGrace())
		m.passOn(ctx, x.name)
	case !r.stopping && x.stops():
		m.log.Info("a member that was stopped is back", "member", x.name, "after", now.Sub(x.stopped).Round(time.Millisecond))
		x.stopped, x.back = time.Time{}, now
		m.stops.strike(x.name)
		return true
	}
	return false
}

// passOn tells the other layout servers, in the background, that a member is being stopped: one of them may lead before it is back. That
// machine may stop as a whole, with the layout server that leads.
func (m *manager) passOn(ctx context.Context, name string) {
	q := &pb.NoteStopsRequest{Stops: []*pb.AnnouncedStop{{Member: name}}}
	for _, p := range m.store.servers {
		if p.ID == m.store.self {
			continue
		}
		m.passing.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, othersPatience)
			defer cancel()
			if conn, err := m.others.dial(p.Control); err == nil {
				_, _ = pb.NewLayoutServerServiceClient(conn).NoteStops(ctx, q) // without it the member has fail_after there
			}
		})
	}
}

// NoteStops implements pb.LayoutServerServiceServer.
func (v stateService) NoteStops(_ context.Context, q *pb.NoteStopsRequest) (*pb.NoteStopsReply, error) {
	for _, x := range q.Stops {
		ago := min(time.Duration(x.AgoMs)*time.Millisecond, stopsKept)
		v.s.manager.stops.note(line(x.Member), time.Now().Add(-ago))
	}
	return &pb.NoteStopsReply{}, nil
}

// handsOver reports whether a sequencer is being stopped, and a standby answers that can take over at once.
func (s *scene) handsOver(m *member) bool { return m.unit == 0 && m.stops() && s.standby(0) != 0 }

// away says which members the log waits for since they were stopped on purpose; "": none.
func (s *scene) away() string {
	var list []string
	for _, m := range s.members.list {
		if left := s.members.waited(m, s.cfg); left > 0 {
			list = append(list, fmt.Sprintf("%s (%s) was stopped by its operator %v ago, and is waited for %v more", m.name, m.control,
				s.now.Sub(m.stopped).Round(100*time.Millisecond), left.Round(100*time.Millisecond)))
		}
	}
	return strings.Join(list, "; ")
}
