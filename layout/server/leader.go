package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"corfu/layout"
)

// notLeaderError is errNotLeader that says who leads.
type notLeaderError struct{ leader Peer } // ID 0: none is known

func (e *notLeaderError) Error() string {
	if e.leader.ID == 0 {
		return errNotLeader.Error() + ", and it knows of none: one is elected within a few seconds, or corfu status says why not"
	}
	return fmt.Sprintf("%v: that is server %d at %s", errNotLeader, e.leader.ID, e.leader.Control)
}

func (e *notLeaderError) Unwrap() error { return errNotLeader }

func (s *store) notLeader() error { return &notLeaderError{s.leader()} }

// leader is the server that this one takes for the leader; ID 0: none is known, or this one is, which does not know it yet or any more.
func (s *store) leader() Peer {
	id := s.raft.Standing().Leader
	for _, p := range s.servers {
		if p.ID == id && p.ID != s.self {
			return p
		}
	}
	return Peer{}
}

// changes gives a channel that is closed when leadership begins or ends here after the call.
func (s *store) changes() <-chan struct{} { return s.raft.Changes() }

// during gives a context that ends when this server no longer leads in the term: what a leader does for its term must not go on
// under another. That it goes on for a moment is harmless (rules R13 to R17).
func (s *store) during(ctx context.Context, term uint64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	s.reigning.Go(func() {
		defer cancel()
		for {
			over := s.changes() // before the look, so that no change is missed
			if !s.leads(term) {
				return
			}
			select {
			case <-over:
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, cancel
}

// catchUp waits until this server, the leader in the term, has applied everything that was committed before.
func (s *store) catchUp(term uint64) error {
	if err := s.raft.Barrier(); err != nil || !s.leads(term) {
		return s.notLeader()
	}
	s.caughtUp.Store(term)
	return nil
}

// verify fails with errNotLeader unless this server leads and has applied all that any leader committed before the call. It gives the
// term: what is read of the state afterwards is linearizable if leads(term) still holds after it was read.
func (s *store) verify() (term uint64, err error) {
	term, leads := s.raft.Leader()
	if !leads {
		return 0, s.notLeader()
	}
	if s.caughtUp.Load() != term { // just elected: its state may be that of long ago
		return term, s.catchUp(term)
	}
	if err := s.raft.Verify(); err != nil || !s.leads(term) {
		return 0, s.notLeader()
	}
	return term, nil
}

// active is the latest ACTIVE layout, linearizable (nil: none yet), the term it was read in, and a channel that is closed once there
// is another. It fails with errNotLeader.
//
// Only the leader gives a layout away, before and after a change of leaders, and so nobody who saw an epoch is shown an older one:
// a follower may have applied what its leader has not.
func (s *store) active() (l *layout.Layout, term uint64, changed <-chan struct{}, err error) {
	if term, err = s.verify(); err != nil {
		return nil, 0, nil, err
	}
	l, changed = s.fsm.active.get()
	if !s.leads(term) {
		return nil, 0, nil, s.notLeader()
	}
	return l, term, changed, nil
}

// contact is how long ago this server heard of its leader; 0 where it leads itself.
func (s *store) contact() time.Duration {
	if s.elected() {
		return 0
	}
	last := s.raft.Standing().Heard
	if last.IsZero() {
		last = s.opened
	}
	return time.Since(last)
}

// handOver asks another server to lead, so that the others need not wait for this one's silence. If it fails they will elect one.
func (s *store) handOver(log *slog.Logger) {
	if len(s.servers) < 2 || !s.elected() {
		return
	}
	if err := s.raft.HandOver(); err != nil {
		log.Info("leadership was not handed over", "err", err)
	}
}
