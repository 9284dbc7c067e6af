package server

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

var (
	// errEmptyStore answers everything that the others ask of a server that lost its store, or
	// never had one.
	errEmptyStore = errors.New("this layout server is empty: it takes part once the leader has admitted it")
	// errNoVote answers what would make a server vote or stand for election that must not.
	errNoVote = errors.New("this layout server has no vote at present")
)

// gate stands between Raft and the others. It lets through what the server may do by its standing
// and by the state of its disk.
//
// An empty server answers nothing: what it confirmed or voted for before is forgotten, so that a
// confirmation now could count for an entry that it once promised to another leader. Filled as a
// server without a vote, it takes entries, and neither votes nor stands for election, though
// entries of the past that it is sent name it a voter.
type gate struct {
	transport
	mayVote func() bool
	mayTake func() bool
	refused atomic.Uint64

	rpcs chan raft.RPC
	done chan struct{}
	once sync.Once
	pump sync.WaitGroup
}

func newGate(t transport, mayTake, mayVote func() bool) *gate {
	g := &gate{transport: t, mayVote: mayVote, mayTake: mayTake, rpcs: make(chan raft.RPC), done: make(chan struct{})}
	g.pump.Go(g.run)
	return g
}

func (g *gate) run() {
	for {
		select {
		case rpc := <-g.transport.Consumer():
			if err := g.refuse(rpc.Command); err != nil {
				g.refused.Add(1)
				rpc.Respond(nil, err)
				continue
			}
			select {
			case g.rpcs <- rpc:
			case <-g.done:
				rpc.Respond(nil, raft.ErrTransportShutdown)
				return
			}
		case <-g.done:
			return
		}
	}
}

// refuse returns why a request of another server is not for Raft to answer; nil: it is.
func (g *gate) refuse(command any) error {
	if !g.mayTake() {
		return errEmptyStore
	}
	switch command.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
		if !g.mayVote() {
			return errNoVote
		}
	}
	return nil
}

// Consumer implements raft.Transport.
func (g *gate) Consumer() <-chan raft.RPC { return g.rpcs }

// SetHeartbeatHandler implements raft.Transport.
func (g *gate) SetHeartbeatHandler(cb func(raft.RPC)) {
	if cb == nil {
		g.transport.SetHeartbeatHandler(nil)
		return
	}
	g.transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if err := g.refuse(rpc.Command); err != nil {
			rpc.Respond(nil, err)
			return
		}
		cb(rpc)
	})
}

// RequestVote implements raft.Transport.
func (g *gate) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	if !g.mayVote() {
		return errNoVote
	}
	return g.transport.RequestVote(id, to, q, a)
}

// RequestPreVote implements raft.WithPreVote.
func (g *gate) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	if !g.mayVote() {
		return errNoVote
	}
	return g.transport.RequestPreVote(id, to, q, a)
}

// AppendEntries implements raft.Transport.
func (g *gate) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	if !g.mayVote() {
		return errNoVote
	}
	return g.transport.AppendEntries(id, to, q, a)
}

// AppendEntriesPipeline implements raft.Transport. A pipeline would go on after the gate has
// closed, and saves little where commands are few.
func (g *gate) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// InstallSnapshot implements raft.Transport.
func (g *gate) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, q *raft.InstallSnapshotRequest, a *raft.InstallSnapshotResponse, data io.Reader) error {
	if !g.mayVote() {
		return errNoVote
	}
	return g.transport.InstallSnapshot(id, to, q, a, data)
}

// Close implements raft.WithClose.
func (g *gate) Close() error {
	err := g.transport.Close()
	g.once.Do(func() { close(g.done) })
	g.pump.Wait()
	return err
}
