package client

import (
	"sync"
	"time"
)

const (
	// mostPatience is the longest that a hole is waited for because writers were slow. It covers a
	// writer at the other side of the Earth, which takes two round trips of some 200 ms from its
	// token to its entry.
	mostPatience = 500 * time.Millisecond
	// calmDown is how long without a filled hole halves what was added to the hole time-out.
	calmDown = 10 * time.Second
)

// patience is how much longer than the hole time-out this client waits for a hole. Where holes have
// to be filled again and again their writers are not dead but far away, and would lose every
// position to readers that are close. So each fill doubles the wait, once in as much time as it is
// long: the holes of a client that died come in rows, and count as one.
type patience struct {
	mu     sync.Mutex
	factor int // 0 stands for 1
	filled time.Time
}

// filling notes that a hole became junk while this client waited for it, after base hole time-out.
func (h *patience) filling(base time.Duration, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.at(now)
	if now.Sub(h.filled) < base*time.Duration(f) && h.factor > 0 {
		return
	}
	if base*time.Duration(f) < mostPatience {
		f *= 2
	}
	h.factor, h.filled = f, now
}

// at is the factor of now. h.mu is held.
func (h *patience) at(now time.Time) int {
	f := max(1, h.factor)
	for t := now.Sub(h.filled); t >= calmDown && f > 1; t -= calmDown {
		f /= 2
	}
	return f
}

// wait is the hole time-out as it is now.
func (h *patience) wait(base time.Duration, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(base, min(base*time.Duration(h.at(now)), mostPatience))
}
