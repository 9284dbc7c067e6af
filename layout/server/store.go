package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
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
	raft *raft.Raft
	bolt *raftboltdb.BoltStore
	fsm  *fsm

	trouble atomic.Pointer[string] // what the manager cannot mend; "" or nil: nothing
}

// openStore opens or makes the store in cfg.Dir and, a new one, bootstraps it with this server as its only member.
func openStore(cfg Config) (*store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	// Below errors Raft tells of its elections, which are no news where there is one server.
	logger := hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Error, DisableTime: true, Output: slogWriter{cfg.Logger}})
	// Without the time-out a second process in the same directory would wait for ever.
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(cfg.Dir, "raft.db"),
		BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return nil, fmt.Errorf("open %s (is another layout server running there?): %w", filepath.Join(cfg.Dir, "raft.db"), err)
	}
	s := &store{bolt: bolt, fsm: newFSM()}
	if err := s.start(cfg, logger); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return s, nil
}

func (s *store) start(cfg Config, logger hclog.Logger) error {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, logger)
	if err != nil {
		return err
	}
	// The name stands for the address too: Raft writes a member's address into its log, and a single server's may change with
	// every start. Nobody ever dials it.
	id := fmt.Sprintf("layout-%d", cfg.ID)
	addr, transport := raft.NewInmemTransport(raft.ServerAddress(id))
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoLegacyTelemetry = raft.ServerID(id), logger, true
	c.SnapshotThreshold, c.TrailingLogs = snapshotEvery, trailingCommands
	// Alone there is nobody whose silence could be mistaken: elect at once.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	known, err := raft.HasExistingState(s.bolt, s.bolt, snaps)
	if err != nil {
		return err
	}
	if !known {
		members := raft.Configuration{Servers: []raft.Server{{ID: c.LocalID, Address: addr}}}
		if err := raft.BootstrapCluster(c, s.bolt, s.bolt, snaps, transport, members); err != nil {
			return err
		}
	}
	s.raft, err = raft.NewRaft(c, s.fsm, s.bolt, s.bolt, snaps, transport)
	return err
}

// apply commits a command and gives its result. It fails with what layout.State.Apply refuses, errNotLeader or errUnknown.
func (s *store) apply(c layout.Command) (layout.Result, error) {
	f := s.raft.Apply(layout.EncodeCommand(c), enqueueTimeout)
	if err := f.Error(); err != nil {
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) {
			return layout.Result{}, fmt.Errorf("%w: %w", errNotLeader, err)
		}
		return layout.Result{}, fmt.Errorf("%w: %w", errUnknown, err)
	}
	r := f.Response().(response)
	return r.result, r.err
}

// verify fails with errNotLeader unless this server leads: what it reads of the state afterwards is then no older than the call.
// (Commands that earlier leaders committed were applied before this one began to serve; see lead.)
func (s *store) verify() error {
	if err := s.raft.VerifyLeader().Error(); err != nil {
		return fmt.Errorf("%w: %w", errNotLeader, err)
	}
	return nil
}

// lead waits until this server leads and has applied every command committed before, and gives its term.
func (s *store) lead(ctx context.Context) (term uint64, err error) {
	for {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if s.elected() {
			term = s.raft.CurrentTerm()
			if err := s.raft.Barrier(enqueueTimeout).Error(); err == nil && s.raft.CurrentTerm() == term {
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
	return errors.Join(s.raft.Shutdown().Error(), s.bolt.Close())
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

// slogWriter turns Raft's lines, "[ERROR] raft: text: k=v", into records.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(b []byte) (int, error) {
	w.log.Error(strings.TrimSpace(strings.TrimPrefix(string(b), "[ERROR]")))
	return len(b), nil
}
