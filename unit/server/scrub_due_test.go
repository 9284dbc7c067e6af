package server

import (
	"testing"
	"time"
)

// A pass that ended in the future, by a clock that was ahead, does not put the next one off,
// however far ahead it was.
func TestAStampInTheFuturePutsNoScrubOff(t *testing.T) {
	now, every := time.Now(), time.Hour
	for _, c := range []struct {
		ended time.Duration // from now
		want  time.Duration
	}{{-90 * time.Minute, -30 * time.Minute}, {-30 * time.Minute, 30 * time.Minute}, {time.Second, 0}, {every, 0}, {365 * 24 * time.Hour, 0}} {
		if got := untilNext(now.Add(c.ended), now, every); got != c.want {
			t.Errorf("ended %v from now: the next begins in %v, want %v", c.ended, got, c.want)
		}
	}
}
