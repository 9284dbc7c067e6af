package server

import (
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Consensus puts commands in one order and hands them to an FSM: all that the layout store asks of Raft. Its errors are
// raft.ErrNotLeader, raft.ErrEnqueueTimeout and raft.ErrLeadershipTransferInProgress, of which nothing was done; after any other a
// command may yet take effect.
type Consensus interface {
	// Apply commits a command and gives what the FSM of this server answered.
	Apply(command []byte) (any, error)
	// Verify fails unless this server leads at some moment of the call.
	Verify() error
	// Leader tells whether this server leads, as far as it knows, and in which term.
	Leader() (term uint64, leads bool)
	// Changes gives a channel that is closed when leadership begins or ends here after the call, and maybe more often.
	Changes() <-chan struct{}
	// Barrier returns once the FSM has every command that was committed before the call.
	Barrier() error
	// Standing is what this server knows of its place among the others.
	Standing() Standing
	// HandOver asks another server to lead.
	HandOver() error
	Close() error
}

// Standing of a server among the others, for people and clients to know; nothing is decided by it.
type Standing struct {
	Role   string // leader, follower, candidate
	Term   uint64
	Leader uint16    // whom it takes for the leader, itself included; 0: it knows of none
	Commit uint64    // index of the last command that it knows to be committed
	Heard  time.Time // of the leader, last; zero: never
}

var _ Consensus = (*raftLog)(nil)

// Apply implements Consensus.
func (s *raftLog) Apply(command []byte) (any, error) {
	f := s.Raft.Apply(command, enqueueTimeout)
	if err := f.Error(); err != nil {
		return nil, err
	}
	return f.Response(), nil
}

// Verify implements Consensus.
func (s *raftLog) Verify() error { return s.VerifyLeader().Error() }

// Leader implements Consensus.
func (s *raftLog) Leader() (uint64, bool) {
	term := s.CurrentTerm()
	return term, s.State() == raft.Leader && s.CurrentTerm() == term // a term later it may lead, too
}

// Changes implements Consensus.
func (s *raftLog) Changes() <-chan struct{} { return s.reigns.changes() }

// Barrier implements Consensus.
func (s *raftLog) Barrier() error { return s.Raft.Barrier(enqueueTimeout).Error() }

// Standing implements Consensus.
func (s *raftLog) Standing() Standing {
	st := Standing{Role: strings.ToLower(s.State().String()), Term: s.CurrentTerm(), Commit: s.CommitIndex(), Heard: s.LastContact()}
	_, id := s.LeaderWithID()
	for _, p := range s.servers {
		if serverID(p.ID) == id {
			st.Leader = p.ID
		}
	}
	return st
}

// HandOver implements Consensus.
func (s *raftLog) HandOver() error { return s.LeadershipTransfer().Error() }

// Close implements Consensus.
func (s *raftLog) Close() error {
	err := s.Shutdown().Error()
	s.reigns.close()
	return errors.Join(err, s.bolt.Close())
}
