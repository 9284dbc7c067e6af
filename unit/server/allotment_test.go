package server

import (
	"testing"

	"corfu/layout"
)

// The default geometry serves thousands of clients at once, the first ones with whole slices; no
// slot is handed out twice, and all come back.
func TestSlicesServeThousands(t *testing.T) {
	for _, g := range []layout.Geometry{layout.DefaultGeometry(), {SessionSlots: 64, MaxSessions: 32}, {SessionSlots: 1, MaxSessions: 1}, {SessionSlots: 3, MaxSessions: 5}} {
		s := newAllotment(g)
		owner := make([]int, g.SessionSlots*g.MaxSessions)
		var all [][2]int
		for {
			first, n := s.take()
			if n == 0 {
				break
			}
			all = append(all, [2]int{first, n})
			for i := first; i < first+n; i++ {
				if owner[i] != 0 {
					t.Fatalf("%+v: slot %d belongs to sessions %d and %d", g, i, owner[i], len(all))
				}
				owner[i] = len(all)
			}
		}
		if len(all) != capacity(g) || s.free != 0 {
			t.Errorf("%+v: %d sessions, %d slots left; want %d and none", g, len(all), s.free, capacity(g))
		}
		for i := range max(1, g.MaxSessions/2) {
			if all[i][1] != g.SessionSlots {
				t.Errorf("%+v: session %d has %d slots, want %d", g, i, all[i][1], g.SessionSlots)
			}
		}
		for _, x := range all {
			for i := range x[1] {
				s.give(x[0] + i)
			}
		}
		if first, n := s.take(); first != 0 || n != g.SessionSlots {
			t.Errorf("%+v: after all ended, the next gets %d slots from %d", g, n, first)
		}
	}
	if n := capacity(layout.DefaultGeometry()); n < 2000 {
		t.Errorf("the default serves %d clients", n)
	}
	if n := capacity(layout.Geometry{SessionSlots: 64, MaxSessions: 32}); n < 500 {
		t.Errorf("a log of an older release serves %d clients", n)
	}
}
