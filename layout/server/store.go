package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"corfu/internal/sleep"
	"corfu/layout"
)

// errNotLeader: this server does not lead the layout servers. Nothing was done; ask another, or again.
var errNotLeader = errors.New("not the leader of the layout servers")

// errUnknown: leadership was lost while a command was on its way. It may take effect, now or later: look at the state before
// anything is done on the strength of it.
var errUnknown = errors.New("the outcome of the command is unknown")

// store is the replicated state machine.
type store struct {
	raft    Consensus
	fsm     *fsm
	self    uint16
	servers []Peer // by id
	opened  time.Time

	caughtUp atomic.Uint64  // the term in which everything older was applied
	reigning sync.WaitGroup // who waits for the end of a term

	trouble atomic.Pointer[string] // what the manager cannot mend; "" or nil: nothing
	clients clientIDs
	waits   atomic.Pointer[string] // why this server has no vote; "" or nil: it has one
}

// ailing returns why this server is of no use to the others at present, or of less; nil: it is well.
func (s *store) ailing() error {
	if err := s.diskTrouble(); err != nil {
		return err
	}
	if r, ok := s.raft.(*raftLog); ok && !r.id.get().member() {
		if w := s.waits.Load(); w != nil && *w != "" {
			return errors.New(*w)
		}
	}
	return nil
}

// diskTrouble returns what ails the disk of the store; nil: nothing.
func (s *store) diskTrouble() error {
	if r, ok := s.raft.(*raftLog); ok {
		return r.disk.trouble()
	}
	return nil
}

// openStore opens or makes the store: Raft in cfg.Dir, or what cfg.Consensus brings.
func openStore(cfg Config) (*store, error) {
	s := &store{fsm: newFSM(), clients: clientIDs{mu: make(turns, 1)}, self: cfg.ID, servers: cfg.peers(), opened: time.Now()}
	open := cfg.Consensus
	if open == nil {
		open = func(f raft.FSM) (Consensus, error) { return openRaft(cfg, f) }
	}
	var err error
	if s.raft, err = open(s.fsm); err != nil {
		return nil, err
	}
	return s, nil
}

// apply commits a command and gives its result. It fails with what layout.State.Apply refuses, errNotLeader or errUnknown.
func (s *store) apply(c layout.Command) (layout.Result, error) {
	a, err := s.raft.Apply(layout.EncodeCommand(c))
	if err != nil {
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return layout.Result{}, s.notLeader()
		}
		return layout.Result{}, fmt.Errorf("%w: %w", errUnknown, err)
	}
	r := a.(response)
	return r.result, r.err
}

// lead waits until this server leads and has applied every command committed before, and gives its term.
func (s *store) lead(ctx context.Context) (term uint64, err error) {
	for {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if term, ok := s.raft.Leader(); ok && s.catchUp(term) == nil {
			return term, nil
		}
		if err := sleep.For(ctx, leadPoll); err != nil {
			return 0, err
		}
	}
}

// leadPoll is how often it is looked whether this server leads by now.
const leadPoll = 5 * time.Millisecond

// elected tells whether this server leads as Raft sees it; it need not have applied what earlier leaders committed.
func (s *store) elected() bool {
	_, ok := s.raft.Leader()
	return ok
}

// leads tells whether this server still leads in the term.
func (s *store) leads(term uint64) bool {
	now, ok := s.raft.Leader()
	return ok && now == term
}

func (s *store) close() error {
	err := s.raft.Close()
	s.reigning.Wait()
	return err
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
