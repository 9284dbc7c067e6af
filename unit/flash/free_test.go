package flash

import "testing"

// TestFreeIsWhatCapacityLeaves: on both kinds of volume a segment more is that much less room.
func TestFreeIsWhatCapacityLeaves(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{Capacity: 4 << 20})
		before, err := s.Free()
		must(t, err)
		used := s.Stats().Used
		must(t, s.Write([]Page{page(100_000, 0)})) // far away: in a segment of its own
		after, err := s.Free()
		must(t, err)
		if more := s.Stats().Used - used; more <= 0 || before-after != more || before > 4<<20 {
			t.Errorf("free were %d, are %d bytes; %d more are used", before, after, more)
		}
	})
}
