package server

import "corfu/layout"

// allotment hands out the staging slots of a unit, in runs of consecutive ones: a session's are its
// slice, with a key of its own. The first clients get as many as the geometry gives to one; later
// ones get fewer, so that the same memory serves many. A session with one slot appends one page at
// a time.
type allotment struct {
	whole int    // slots of a session where there is plenty
	used  []bool // by slot
	free  int
}

func newAllotment(g layout.Geometry) *allotment {
	n := g.SessionSlots * g.MaxSessions
	return &allotment{whole: g.SessionSlots, used: make([]bool, n), free: n}
}

// size is how many slots the next session gets where left of all slots are free: a whole slice from
// the first half, a quarter and a sixteenth of one from the next eighth each, and single ones from
// what remains.
func size(left, all, whole int) int {
	switch {
	case left > all/2:
		return min(whole, left)
	case left > all*7/16:
		return max(1, whole/4)
	case left > all*3/8:
		return max(1, whole/16)
	}
	return min(1, left)
}

// capacity is how many sessions a unit of geometry g serves at once.
func capacity(g layout.Geometry) (n int) {
	all := g.SessionSlots * g.MaxSessions
	for left := all; left > 0; n++ {
		left -= size(left, all, g.SessionSlots)
	}
	return n
}

// take gives a run of slots; n is 0 if none is free.
func (s *allotment) take() (first, n int) {
	for n = size(s.free, len(s.used), s.whole); n > 0; n /= 2 { // a shorter one where no run is long enough
		if first, ok := s.run(n); ok {
			for i := range n {
				s.used[first+i] = true
			}
			s.free -= n
			return first, n
		}
	}
	return 0, 0
}

// run finds n free slots that follow each other.
func (s *allotment) run(n int) (first int, ok bool) {
	length := 0
	for i, used := range s.used {
		if length++; used {
			length = 0
		}
		if length == n {
			return i - n + 1, true
		}
	}
	return 0, false
}

// give takes one slot back.
func (s *allotment) give(slot int) {
	if s.used[slot] {
		s.used[slot] = false
		s.free++
	}
}
