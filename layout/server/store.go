package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"corfu/layout"
)

// errNotLeader: this server does not lead the layout servers. Nothing was done; ask another, or again.
var errNotLeader = errors.New("not the leader of the layout servers")

// errUnknown: leadership was lost while a command was on its way. It may take effect, now or later: look at the state before
// anything is done on the strength of it.
var errUnknown = errors.New("the outcome of the command is unknown")

const (
	enqueueTimeout   = 5 * time.Second
	snapshotsKept    = 2
	snapshotEvery    = 1024 // commands
	trailingCommands = 256
)

// store is the replicated state machine.
type store struct {
	raft    *raft.Raft
	bolt    *raftboltdb.BoltStore
	fsm     *fsm
	reigns  reigns
	self    uint16
	servers []Peer // by id
	opened  time.Time
}

// openStore opens or makes the store in cfg.Dir and, a new one, bootstraps it with the servers of the configuration.
func openStore(cfg Config) (*store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	// Without the time-out a second process in the same directory would wait for ever.
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(cfg.Dir, "raft.db"),
		BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return nil, fmt.Errorf("open %s (is another layout server running there?): %w", filepath.Join(cfg.Dir, "raft.db"), err)
	}
	s := &store{bolt: bolt, fsm: newFSM(), self: cfg.ID, servers: cfg.peers(), opened: time.Now()}
	if err := s.startRaft(cfg, newLogger(cfg.Logger)); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	s.watch(cfg.Logger)
	return s, nil
}

// apply commits a command and gives its result. It fails with what layout.State.Apply refuses, errNotLeader or errUnknown.
func (s *store) apply(c layout.Command) (layout.Result, error) {
	f := s.raft.Apply(layout.EncodeCommand(c), enqueueTimeout)
	if err := f.Error(); err != nil {
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return layout.Result{}, s.notLeader()
		}
		return layout.Result{}, fmt.Errorf("%w: %w", errUnknown, err)
	}
	r := f.Response().(response)
	return r.result, r.err
}

// lead waits until this server leads and has applied every command committed before, and gives its term.
func (s *store) lead(ctx context.Context) (term uint64, err error) {
	for {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if s.elected() {
			term = s.raft.CurrentTerm()
			if s.catchUp(term) == nil {
				return term, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(leadPoll):
		}
	}
}

// leadPoll is how often it is looked whether this server leads by now.
const leadPoll = 5 * time.Millisecond

// elected tells whether this server leads as Raft sees it; it need not have applied what earlier leaders committed.
func (s *store) elected() bool { return s.raft.State() == raft.Leader }

// leads tells whether this server still leads in the term.
func (s *store) leads(term uint64) bool {
	return s.elected() && s.raft.CurrentTerm() == term
}

func (s *store) close() error {
	err := s.raft.Shutdown().Error()
	s.reigns.close()
	return errors.Join(err, s.bolt.Close())
}

// response is what a command gave.
type response struct {
	result layout.Result
	err    error
}

// fsm puts layout.State under Raft.
type fsm struct {
	mu     sync.Mutex
	state  *layout.State
	active hub
}

func newFSM() *fsm { return &fsm{state: layout.NewState(), active: hub{changed: make(chan struct{})}} }

// view calls fn with the state, which must not be kept; layouts of it may be.
func (f *fsm) view(fn func(*layout.State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f.state)
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any {
	c, err := layout.DecodeCommand(l.Data)
	if err != nil {
		// To skip it would make this server's state another than the others'. A newer build must read it.
		panic(fmt.Sprintf("layout store: command %d of the log cannot be read: %v", l.Index, err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.state.Apply(c)
	f.active.set(f.state.Active())
	return response{r, err}
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return snapshot(f.state.Snapshot()), nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	s, err := layout.Restore(b)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	f.active.set(s.Active())
	return nil
}

type snapshot []byte

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// hub tells watchers of the latest ACTIVE layout.
type hub struct {
	mu      sync.Mutex
	layout  *layout.Layout
	changed chan struct{}
}

// get gives the layout (nil: none yet) and a channel that is closed once there is another.
func (h *hub) get() (*layout.Layout, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.layout, h.changed
}

func (h *hub) set(l *layout.Layout) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l == h.layout {
		return
	}
	h.layout = l
	close(h.changed)
	h.changed = make(chan struct{})
}
