package server

import (
	"errors"
	"fmt"
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

// errGaveUp: the disk of this server, the leader, does not answer. It leads no longer, and another is elected.
var errGaveUp = errors.New("the disk of the layout server that leads does not answer: another one is elected")

// errNotStored: no majority of the layout servers has stored a command. What it would have done may yet be done.
var errNotStored = errors.New("no majority of the layout servers stored it in time")

// applyPatience is how long a command may take until a majority has stored it.
const applyPatience = 5 * time.Second

// Apply implements Consensus.
func (s *raftLog) Apply(command []byte) (any, error) {
	if s.fallen() {
		return nil, raft.ErrNotLeader
	}
	f := s.Raft.Apply(command, enqueueTimeout)
	if err := s.await(f.Error, applyPatience); err != nil {
		return nil, err
	}
	return f.Response(), nil
}

// await waits for an answer of Raft, whose loop stands still while its disk does.
func (s *raftLog) await(answer func() error, patience time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- answer() }()
	late := time.NewTimer(patience)
	defer late.Stop()
	look := time.NewTicker(fallPoll)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			if trouble := s.disk.trouble(); err != nil && trouble != nil {
				err = fmt.Errorf("%w (layout server %d: %w)", err, s.self, trouble)
			}
			return err
		case <-look.C:
			if s.fallen() {
				return errGaveUp
			}
		case <-late.C:
			if trouble := s.disk.trouble(); trouble != nil {
				return fmt.Errorf("layout server %d: %w", s.self, trouble)
			}
			return errNotStored
		}
	}
}

// fallen reports whether this server must not lead, though Raft may think that it does: its disk hangs. A single
// server has nobody to make room for.
func (s *raftLog) fallen() bool { return len(s.servers) > 1 && s.disk.hangs() }

// Verify implements Consensus.
func (s *raftLog) Verify() error {
	if len(s.servers) == 1 { // nobody else can have been elected, and Raft's loop may be waiting for room on a disk
		if _, leads := s.Leader(); !leads {
			return raft.ErrNotLeader
		}
		return nil
	}
	if s.fallen() {
		return raft.ErrNotLeader
	}
	return s.await(s.VerifyLeader().Error, applyPatience)
}

// Leader implements Consensus.
func (s *raftLog) Leader() (uint64, bool) {
	term := s.CurrentTerm()
	return term, s.State() == raft.Leader && s.CurrentTerm() == term && !s.fallen() // a term later it may lead, too
}

// Changes implements Consensus.
func (s *raftLog) Changes() <-chan struct{} { return s.reigns.changes() }

// Barrier implements Consensus.
func (s *raftLog) Barrier() error {
	if s.fallen() {
		return raft.ErrNotLeader
	}
	return s.await(s.Raft.Barrier(enqueueTimeout).Error, applyPatience)
}

// Standing implements Consensus.
func (s *raftLog) Standing() Standing {
	st := Standing{Role: strings.ToLower(s.State().String()), Term: s.CurrentTerm(), Commit: s.CommitIndex(), Heard: s.LastContact()}
	_, id := s.LeaderWithID()
	for _, p := range s.servers {
		if serverID(p.ID) == id {
			st.Leader = p.ID
		}
	}
	if id := s.id.get(); !id.member() {
		st.Role = string(id.Standing)
	}
	if s.fallen() && st.Leader == s.self {
		st.Role, st.Leader = "follower", 0
	}
	return st
}

// HandOver implements Consensus.
func (s *raftLog) HandOver() error {
	if s.fallen() {
		return errGaveUp
	}
	return s.await(s.LeadershipTransfer().Error, applyPatience)
}

// Close implements Consensus. A disk that hangs is not waited for: the process ends, and with it what it has begun.
func (s *raftLog) Close() error {
	s.disk.stop()
	err := s.await(s.Shutdown().Error, applyPatience)
	s.reigns.close()
	if err != nil {
		return err
	}
	return s.disk.Close()
}
