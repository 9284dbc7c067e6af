package control

import (
	"context"
	"errors"
	"sync"
	"time"
)

// StopNotice is how a member tells the leader of the layout servers that it is being stopped on purpose: the answer to the next
// heartbeat says so. The zero value is ready.
//
// The notice is advice. The leader waits for the member for a bounded time instead of counting it as failed at once, and decides
// nothing else by it: one that is lost costs what a crash costs, and one that lies buys no more than answering heartbeats does.
type StopNotice struct {
	mu       sync.Mutex
	stopping bool
	asked    time.Time     // of the last heartbeat
	heard    chan struct{} // closed with the first answer that says so; nil: nobody waits
}

// StopNoticeTime is how long a stop may wait until the leader has asked: several heartbeats of 100 ms.
const StopNoticeTime = time.Second

// ErrNoLeader: no leader of the layout servers asks. The stop was not announced.
var ErrNoLeader = errors.New("no layout server asks this member for its state")

// Answer notes a heartbeat and reports whether the member is being stopped. It is called last before the answer goes.
func (n *StopNotice) Answer(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = now
	if n.stopping && n.heard != nil {
		close(n.heard)
		n.heard = nil
	}
	return n.stopping
}

// Announce says with each heartbeat from now on that the member is being stopped. It returns once the first was answered, and fails
// if none comes before ctx ends, or none came within StopNoticeTime before the call. The member goes on serving meanwhile.
func (n *StopNotice) Announce(ctx context.Context) error {
	n.mu.Lock()
	n.stopping = true
	asked, heard := n.asked, make(chan struct{})
	n.heard = heard
	n.mu.Unlock()
	if time.Since(asked) > StopNoticeTime {
		return ErrNoLeader
	}
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
		return ErrNoLeader
	}
}
