package server

import (
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// reigns knows when leadership begins or ends here.
type reigns struct {
	mu      sync.Mutex
	change  chan struct{} // closed at the next beginning or end
	done    chan struct{}
	running sync.WaitGroup
}

// watch begins to follow who leads, and logs it.
func (s *raftLog) watch(log *slog.Logger) {
	s.reigns.change, s.reigns.done = make(chan struct{}), make(chan struct{})
	seen := make(chan raft.Observation, 64)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	s.RegisterObserver(observer)
	s.reigns.running.Go(func() {
		defer s.DeregisterObserver(observer)
		silent := map[raft.ServerID]bool{}
		look := time.NewTicker(fallPoll)
		defer look.Stop()
		fallen := false
		for {
			select {
			case <-s.reigns.done:
				return
			case <-look.C:
				if now := s.fallen(); now != fallen {
					fallen = now
					s.reigns.next()
					s.reportFall(log, fallen)
				}
			case <-s.LeaderCh():
				clear(silent)
				s.reigns.next()
			case o := <-seen:
				s.report(log, o.Data, silent)
			}
		}
	})
}

// fallPoll is how often it is looked whether the disk hangs.
const fallPoll = 50 * time.Millisecond

func (s *raftLog) reportFall(log *slog.Logger, fallen bool) {
	if fallen {
		log.Error("the disk does not answer: this layout server neither leads nor votes until it does", "err", s.disk.trouble())
		return
	}
	log.Info("the disk answers again")
}

// report logs news of the other servers.
func (s *raftLog) report(log *slog.Logger, data any, silent map[raft.ServerID]bool) {
	switch o := data.(type) {
	case raft.LeaderObservation:
		if st := s.Standing(); st.Leader != 0 && st.Leader != s.self {
			log.Info("follows the leader of the layout servers", "leader", st.Leader, "term", st.Term)
		}
	case raft.FailedHeartbeatObservation:
		if !silent[o.PeerID] {
			silent[o.PeerID] = true
			log.Warn("a layout server does not answer", "server", o.PeerID)
		}
	case raft.ResumedHeartbeatObservation:
		if silent[o.PeerID] {
			delete(silent, o.PeerID)
			log.Info("a layout server answers again", "server", o.PeerID)
		}
	}
}

func (r *reigns) next() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.change)
	r.change = make(chan struct{})
}

func (r *reigns) close() {
	close(r.done)
	r.running.Wait()
}

// changes is Consensus.Changes.
func (r *reigns) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.change
}
