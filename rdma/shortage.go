package rdma

import (
	"errors"
	"sync"
	"syscall"
	"time"
)

// Exhausted reports whether an error says that the kernel gives no more of what a connection or a
// region takes: EAGAIN is the answer of the rdma controller of a cgroup, ENOMEM that of
// RLIMIT_MEMLOCK and of the device.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM)
}

// Shortage notes that a member has to turn connections away, for want of resources. Its methods may
// be called by several goroutines. The zero value has none.
type Shortage struct {
	mu          sync.Mutex
	text        string
	count       int
	first, last time.Time
	hold        time.Duration
}

const (
	shortageGap     = 10 * time.Second // refusals further apart have nothing to do with each other
	shortageHoldMin = time.Minute
	shortageHoldMax = time.Hour
)

// Note counts a refusal, if err says that resources are exhausted. It reports whether a shortage
// begins with it.
func (s *Shortage) Note(err error, now time.Time) (begins bool) {
	if !Exhausted(err) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == 0 || now.Sub(s.last) > max(shortageGap, s.hold) {
		s.count, s.first, begins = 0, now, true
		s.hold = min(max(2*s.hold, shortageHoldMin), shortageHoldMax)
	}
	s.count++
	s.last, s.text = now, err.Error()
	return begins
}

// Text returns what the last refusal said, and for how long there has been a shortage; "": there is
// none. One refusal is none. What ended the need is often that the member was left out, so that a
// shortage counts for a minute after the last refusal, and twice as long each time.
func (s *Shortage) Text(now time.Time) (text string, lasts time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count < 2 || now.Sub(s.last) > s.hold {
		return "", 0
	}
	return s.text, now.Sub(s.first)
}
