package sim

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"corfu/layout"
	"corfu/layout/server"
)

// consensus is the log of commands that the layout servers share. It keeps what Raft promises and nothing more: one order, and a
// server that thinks it leads may be wrong, in which case its commands fail, or take effect although it hears otherwise.
type consensus struct {
	f    *Fabric
	rand *rand.Rand

	mu      sync.Mutex
	log     [][]byte
	state   *layout.State // what the log amounts to, for the run's own eyes
	records records
	term    uint64
	members []*peer
	changed chan struct{} // closed when somebody begins or ends to think it leads
}

// peer is one layout server's part.
type peer struct {
	c       *consensus
	host    *Host
	fsm     raft.FSM
	applied int
	last    any
	term    uint64 // in which it thinks it leads; 0: it does not
	closed  bool
}

var _ server.Consensus = (*peer)(nil)

func newConsensus(f *Fabric) *consensus {
	return &consensus{f: f, rand: f.chance("consensus"), state: layout.NewState(), records: records{said: map[layout.Epoch]layout.Record{}}, changed: make(chan struct{})}
}

// join gives a layout server's way in. It has everything that was committed, or hears of it as soon as it is to lead.
func (c *consensus) join(h *Host) func(raft.FSM) (server.Consensus, error) {
	return func(fsm raft.FSM) (server.Consensus, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		p := &peer{c: c, host: h, fsm: fsm}
		c.members = append(c.members, p)
		return p, nil
	}
}

// elect makes the server on a host the leader of a new term. Leaders of older ones go on until they are deposed.
func (c *consensus) elect(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.term++
	for _, p := range c.members {
		if p.host.name == host && !p.closed {
			p.set(c.term)
		}
	}
}

// depose ends what leaders of older terms think of themselves.
func (c *consensus) depose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.members {
		if p.term != c.term {
			p.set(0)
		}
	}
}

// look calls fn with what was committed. Nothing is committed meanwhile.
func (c *consensus) look(fn func(*layout.State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(c.state)
}

// wait is the time of a round of messages among the servers.
func (c *consensus) wait() {
	c.mu.Lock()
	d := c.f.latency(c.rand) + c.f.latency(c.rand)
	c.mu.Unlock()
	time.Sleep(d)
}

// catchUp applies what was committed. c.mu is held.
func (p *peer) catchUp() {
	for ; p.applied < len(p.c.log); p.applied++ {
		p.last = p.fsm.Apply(&raft.Log{Index: uint64(p.applied + 1), Data: p.c.log[p.applied]})
	}
}

// set says in which term the server thinks it leads. c.mu is held.
func (p *peer) set(term uint64) {
	if p.term != term {
		p.term = term
		close(p.c.changed)
		p.c.changed = make(chan struct{})
	}
}

// errLost is the answer to a command that may have been committed.
var errLost = errors.New("sim: leadership was lost while the command was on its way")

// methodActive is what Fabric.Hold calls the command that makes an epoch ACTIVE.
const methodActive = "active"

// Apply implements server.Consensus.
func (p *peer) Apply(command []byte) (any, error) {
	c := p.c
	cmd, err := layout.DecodeCommand(command)
	if d, ok := cmd.(layout.Decide); ok && d.Verdict == layout.Active {
		c.f.held(p.host.name, methodActive)
	}
	c.f.runs(p.host.name)
	c.wait()
	dead := p.host.killed()
	c.mu.Lock()
	if p.term == 0 || p.closed {
		c.mu.Unlock()
		return nil, raft.ErrNotLeader
	}
	if (p.term != c.term && !c.f.weird.Rivals) || dead {
		// A leader of the past: nobody follows it.
		p.set(0)
		c.mu.Unlock()
		return nil, errLost
	}
	lost := c.rand.Float64() < c.f.loss()
	if lost && c.rand.IntN(2) == 0 {
		c.mu.Unlock()
		return nil, errLost
	}
	c.log = append(c.log, append([]byte(nil), command...))
	if err == nil {
		_, _ = c.state.Apply(cmd)
		c.records.watch(c.state)
	}
	p.catchUp()
	a := p.last
	c.mu.Unlock()
	c.wait()
	if lost {
		return nil, errLost
	}
	return a, nil
}

// Verify implements server.Consensus.
func (p *peer) Verify() error {
	p.c.f.runs(p.host.name)
	p.c.wait()
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.term == 0 || p.term != p.c.term || p.closed {
		return raft.ErrNotLeader
	}
	p.catchUp()
	return nil
}

// Leader implements server.Consensus.
func (p *peer) Leader() (uint64, bool) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.term, p.term != 0 && !p.closed
}

// Changes implements server.Consensus.
func (p *peer) Changes() <-chan struct{} {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.c.changed
}

// Standing implements server.Consensus. Servers know of no other's leadership: whoever asks one that does not lead asks the next.
func (p *peer) Standing() server.Standing {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return server.Standing{Term: p.c.term, Commit: uint64(p.applied)}
}

// HandOver implements server.Consensus; elections are the plan's.
func (p *peer) HandOver() error { return nil }

// Barrier implements server.Consensus.
func (p *peer) Barrier() error { return p.Verify() }

// Close implements server.Consensus.
func (p *peer) Close() error {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.closed = true
	p.set(0)
	return nil
}
