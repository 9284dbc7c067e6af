package server

import (
	"slices"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
)

// subscription is what a client that follows the log wants to hear of on a connection: one Progress.
// The loop owns it.
type subscription struct {
	from, above layout.Address
	wanted      bool
}

// followers are the connections with a subscription that is not answered yet. The loop owns them.
type followers struct {
	links []*link
	moves uint64    // of the core, when all of them were looked at
	fresh bool      // one of them was not
	last  time.Time // of a subscription
}

// lately reports whether clients follow: between two subscriptions of one there is a moment without.
func (f *followers) lately(now time.Time) bool {
	return len(f.links) > 0 || now.Sub(f.last) < time.Second
}

// subscribe notes what a connection wants to hear of, in place of what it wanted before: however
// many it asks for, there is one, and it ends with the session.
func (s *Server) subscribe(l *link, from, above layout.Address) {
	if s.loopState.live[l.id] != l {
		return
	}
	f := &s.loopState.followers
	if !l.follows.wanted {
		f.links = append(f.links, l)
	}
	l.follows = subscription{from, above, true}
	f.fresh, f.last = true, time.Now()
	s.followed.Store(true)
}

func (f *followers) drop(l *link) {
	if i := slices.Index(f.links, l); i >= 0 {
		f.links = slices.Delete(f.links, i, i+1)
	}
	l.follows.wanted = false
}

// awaited reports whether clients follow that nobody rings for: under memory durability the scan alone
// finds most entries.
func (s *Server) awaited() bool { return len(s.loopState.followers.links) > 0 && s.core.Lazy() }

// push answers the subscriptions that have something to hear. It never waits: a message goes into
// the connection's outbox, in place of one that is there still.
func (s *Server) push() {
	f := &s.loopState.followers
	if len(f.links) == 0 || (!f.fresh && f.moves == s.core.Moves()) {
		return
	}
	f.fresh, f.moves = false, s.core.Moves()
	kept := f.links[:0]
	for _, l := range f.links {
		x := &l.follows
		below, top := s.core.Readable(x.from)
		if below <= x.from && top <= x.above {
			kept = append(kept, l)
			continue
		}
		x.wanted = false
		l.out.progress(wire.Progress{Below: below, Top: max(top, below)})
		s.m.progress.Inc()
	}
	clear(f.links[len(kept):])
	f.links = kept
}
