package server

import (
	"cmp"
	"slices"
	"sync/atomic"

	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit"
)

// traffic counts what one session got.
type traffic struct{ acks, coldReads atomic.Uint64 }

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
