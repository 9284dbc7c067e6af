package server

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit"
)

// traffic counts what one session got.
type traffic struct {
	acks, coldReads atomic.Uint64
	heard           atomic.Uint64 // messages that came

	seen   uint64    // of heard, when the unit was last asked; Server.mu
	seenAt time.Time // when that had grown; Server.mu
}

// heardLately is for how long a message counts as one that came a moment ago.
const heardLately = time.Second

// maxCarried bounds the clients that an answer names.
const maxCarried = 64

// carried returns clients from which a message came over the fabric a moment ago. It is exact to the time between two calls: the leader of
// the layout servers asks ten times a second.
func (s *Server) carried(now time.Time) []uint32 {
	list := s.messages.Heard(now.Add(-heardLately))
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.sessions {
		if n := x.heard.Load(); n != x.seen {
			x.seen, x.seenAt = n, now
		}
		if now.Sub(x.seenAt) < heardLately {
			list = append(list, uint32(x.client))
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxCarried)]
}

// vitals are what the leader of the layout servers wants to know beside the state, of n clients at most.
func (s *Server) vitals(st unit.Stats, v unit.View, n int) *pb.UnitVitals {
	f := s.store.Stats()
	m := &pb.UnitVitals{Pages: st.Pages, Junk: st.Junk, ColdReads: s.coldReads.Load(), Tampered: st.Tampered, Repaired: st.Repaired,
		UsedBytes: uint64(f.Used), CapacityBytes: uint64(f.Capacity), Full: f.Full, Waiting: uint64(v.Waiting), Clients: s.clients(n)}
	if free, err := s.store.Free(); err == nil {
		m.FreeBytes = uint64(free)
	} else {
		s.cfg.Logger.Debug("free space of the store", "error", err)
	}
	return m
}

// clients are the n busiest of those with open sessions, by what they did since they were opened. A client may have several.
func (s *Server) clients(n int) []*pb.ClientVitals {
	all := map[layout.ClientID]*pb.ClientVitals{}
	s.mu.Lock()
	for x := range s.sessions {
		c := all[x.client]
		if c == nil {
			c = &pb.ClientVitals{Client: uint32(x.client)}
			all[x.client] = c
		}
		c.Pages += x.acks.Load()
		c.ColdReads += x.coldReads.Load()
	}
	s.mu.Unlock()
	list := make([]*pb.ClientVitals, 0, len(all))
	for _, c := range all {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *pb.ClientVitals) int {
		return cmp.Or(cmp.Compare(b.Pages+b.ColdReads, a.Pages+a.ColdReads), cmp.Compare(a.Client, b.Client))
	})
	return list[:min(n, len(list))]
}
