package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

const (
	// commandsRead numbers the commands of the layout store that this release reads; each new
	// command raises it. A leader writes a new one only once every layout server has said that it
	// reads it.
	commandsRead        = 3
	commandStores       = 1 // records that have an id, and name stores
	commandLeaseClients = 1
	commandRecover      = 2
	commandResize       = 3 // layouts with another max_sessions than the founding one's

	votersPoll     = 50 * time.Millisecond // while something is under way
	votersPollLead = time.Second           // of a leader, while all is well
	votersPollIdle = 5 * time.Second       // of a follower
	votersPatience = time.Second           // for one server to answer
)

// A server that is empty has forgotten what it promised the others. Two ways lead out of that:
//
//	founding   every server of the list says that its store is blank. The one with the lowest id draws the group's id, and tells
//	           the others to begin (Found), before it begins itself. Each begins with the same first configuration, in which all have a vote.
//	admission  some server is not blank. The leader that the others elect takes the empty one's vote away, waits until that is committed,
//	           says so to it (Admit), fills it, and gives the vote back. Without such a leader the empty server waits.
//
// Why admission is safe: entries and leaders that count on what the empty server had promised were
// decided by configurations in which it had a vote. The one without it is committed by a majority
// of the others, and they keep what they promised. From then on nothing counts on the old promises,
// and the server makes new ones only when it has its vote again.

// keepVoters does this server's part in it until ctx ends.
func (s *Server) keepVoters(ctx context.Context) {
	r, ok := s.store.raft.(*raftLog)
	if !ok || len(s.store.servers) < 2 {
		return
	}
	v := &voters{s: s, raft: r}
	for ctx.Err() == nil {
		over := s.store.changes() // before the look, so that no change is missed
		again := time.NewTimer(v.round(ctx))
		select {
		case <-again.C:
		case <-over:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// voters is the goroutine that founds and admits.
type voters struct {
	s    *Server
	raft *raftLog
	said string // what was logged last
}

// peerState is what one of the other servers says of itself; state is nil if it does not answer.
type peerState struct {
	Peer
	state *pb.LayoutServerState
	err   error
}

func (v *voters) round(ctx context.Context) time.Duration {
	v.learn()
	states := v.ask(ctx)
	if ctx.Err() != nil {
		return 0
	}
	var err error
	switch id := v.raft.id.get(); {
	case id.Standing == standsEmpty:
		err = v.begin(ctx, states)
	case id.Standing == standsLearning:
		err = v.graduate()
	case v.s.store.elected():
		var busy bool
		if busy, err = v.bringIn(ctx, states); !busy && err == nil {
			v.say("")
			return votersPollLead
		}
	default:
		v.say("")
		return votersPollIdle
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	v.say(text)
	return votersPoll
}

// say keeps what this server waits for, and logs it once.
func (v *voters) say(text string) {
	v.s.store.waits.Store(&text)
	if text != "" && text != v.said {
		v.s.log.Warn("layout servers", "waiting", text)
	}
	v.said = text
}

// learn notes the id of the log once it is known.
func (v *voters) learn() {
	if !v.raft.id.get().Log.IsZero() {
		return
	}
	var log layout.LogID
	v.s.store.fsm.view(func(st *layout.State) {
		if f := st.Founding(); f != nil {
			log = f.Log
		}
	})
	if log.IsZero() {
		return
	}
	if err := v.raft.id.set(func(i *identity) { i.Log = log }); err != nil {
		v.s.log.Warn("the id of the log was not noted", "err", err)
	}
}

// ask asks all other servers how they are.
func (v *voters) ask(ctx context.Context) []peerState {
	ctx, cancel := context.WithTimeout(ctx, votersPatience)
	defer cancel()
	var list []peerState
	for _, p := range v.s.store.servers {
		if p.ID != v.s.store.self {
			list = append(list, peerState{Peer: p})
		}
	}
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() {
			x := &list[i]
			var c pb.LayoutServerServiceClient
			if c, x.err = v.client(x.Peer); x.err == nil {
				x.state, x.err = c.State(ctx, &pb.LayoutServerStateRequest{})
			}
			switch {
			case x.err != nil:
				x.state = nil
			case x.state.Id != uint32(x.ID):
				x.state, x.err = nil, fmt.Errorf("layout server %d answers at %s", x.state.Id, x.Control)
			default:
				v.raft.release.heard(x.ID, x.state)
			}
		})
	}
	wg.Wait()
	return list
}

func (v *voters) client(p Peer) (pb.LayoutServerServiceClient, error) {
	conn, err := v.s.others.dial(p.Control)
	if err != nil {
		return nil, err
	}
	return pb.NewLayoutServerServiceClient(conn), nil
}

// begin is the part of an empty server: it founds the group if all are blank and it has the lowest
// id. Else it returns what it waits for.
func (v *voters) begin(ctx context.Context, states []peerState) error {
	var silent, full, old []string
	cluster := v.raft.id.get().Cluster
	for _, x := range states {
		name := fmt.Sprint(x.ID)
		switch {
		case x.state == nil:
			silent = append(silent, name)
		case x.state.Standing == "":
			old = append(old, name)
		case !x.state.Blank:
			full = append(full, name)
		case len(x.state.Cluster) == len(cluster) && cluster == clusterID{}:
			copy(cluster[:], x.state.Cluster)
		}
	}
	switch {
	case len(old) > 0:
		return fmt.Errorf("this layout server is empty, and %s of an older release, which cannot admit it: upgrade that first", named(old, "is", "are"))
	case len(full) > 0:
		return fmt.Errorf("this layout server is empty, and %s not: it has no vote until a leader, elected by the others, has brought it up to date%s",
			named(full, "is", "are"), unanswered(silent))
	case len(silent) > 0:
		return fmt.Errorf("this layout server is empty: a log is founded once every layout server has said that it is empty, too%s", unanswered(silent))
	}
	if lowest := v.s.store.servers[0].ID; lowest != v.s.store.self {
		return fmt.Errorf("all layout servers are empty: waiting for layout server %d to begin", lowest)
	}
	return v.found(ctx, cluster, states)
}

func unanswered(silent []string) string {
	switch len(silent) {
	case 0:
		return ""
	case 1:
		return "; " + named(silent, "does", "do") + " not answer: start it"
	}
	return "; " + named(silent, "does", "do") + " not answer: start them"
}

// named is "layout server 1 is", or "layout servers 1, 2 are".
func named(list []string, one, many string) string {
	if len(list) == 1 {
		return "layout server " + list[0] + " " + one
	}
	return "layout servers " + strings.Join(list, ", ") + " " + many
}

func (v *voters) found(ctx context.Context, cluster clusterID, states []peerState) error {
	none := clusterID{}
	if cluster == none {
		cluster = newClusterID()
	}
	// Noted before anybody hears of it: a founding that stops half-way goes on with the same id.
	if err := v.raft.id.set(func(i *identity) { i.Cluster = cluster }); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, votersPatience)
	defer cancel()
	for _, x := range states {
		c, err := v.client(x.Peer)
		if err == nil {
			_, err = c.Found(ctx, &pb.FoundServersRequest{Cluster: cluster[:], Incarnation: x.state.Incarnation})
		}
		if err != nil {
			return fmt.Errorf("layout server %d does not begin: %s", x.ID, status.Convert(err).Message())
		}
	}
	return v.raft.found(cluster)
}

// found begins with the first configuration.
func (s *raftLog) found(cluster clusterID) error {
	if err := s.BootstrapCluster(s.wanted()).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("begin: %w", err)
	} else if err != nil && s.LastIndex() == 0 {
		return fmt.Errorf("begin: %w", err)
	}
	return s.id.set(func(i *identity) { i.Standing, i.Cluster = standsMember, cluster })
}

// blank reports whether the store has nothing that could matter to anybody: no entry behind the
// first configuration.
func (s *raftLog) blank() bool { return s.LastIndex() <= 1 && s.Stats()["last_snapshot_index"] == "0" }

// graduate takes the vote that the leader gave back.
func (v *voters) graduate() error {
	has, err := v.raft.votesSince(v.raft.id.get().Without)
	if err != nil {
		return err
	}
	if !has {
		return errors.New("this layout server was empty: it has no vote until it is up to date")
	}
	v.s.log.Info("this layout server is up to date, and has its vote back")
	return v.raft.id.set(func(i *identity) { i.Standing = standsMember })
}

// votesSince reports whether the last configuration behind an index gives this server a vote. It
// goes by what is stored: the one that Raft has in memory may be older than the entries beside it,
// while a snapshot is being installed.
func (s *raftLog) votesSince(index uint64) (bool, error) {
	first, err := s.disk.FirstIndex()
	if err != nil {
		return false, err
	}
	last, err := s.disk.LastIndex()
	if err != nil {
		return false, err
	}
	for i := last; i > index && i >= first; i-- {
		var l raft.Log
		if err := s.disk.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			continue
		} else if err != nil {
			return false, err
		}
		if l.Type == raft.LogConfiguration {
			return votes(raft.DecodeConfiguration(l.Data), s.self), nil
		}
	}
	list, err := s.snaps.List()
	if err != nil || len(list) == 0 || list[0].ConfigurationIndex <= index {
		return false, err
	}
	return votes(list[0].Configuration, s.self), nil
}

func votes(c raft.Configuration, id uint16) bool {
	return slices.ContainsFunc(c.Servers, func(x raft.Server) bool { return x.ID == serverID(id) && x.Suffrage == raft.Voter })
}

// bringIn is the part of the leader. busy: somebody has no vote yet.
func (v *voters) bringIn(ctx context.Context, states []peerState) (busy bool, err error) {
	commit := v.raft.CommitIndex() // before the states: who has this had all that was committed
	for _, x := range states {
		if x.state == nil || x.state.Standing == "" {
			continue
		}
		f := v.raft.GetConfiguration()
		if err := f.Error(); err != nil {
			return true, err
		}
		voter := votes(f.Configuration(), x.ID)
		switch {
		case standing(x.state.Standing) == standsEmpty:
			busy, err = true, errors.Join(err, v.admit(ctx, x, voter))
		case !voter && x.state.LastIndex < commit:
			busy = true
		case !voter:
			busy = true
			v.s.log.Info("a layout server is up to date: it gets its vote back", "server", x.ID)
			id := serverID(x.ID)
			err = errors.Join(err, v.raft.await(v.raft.AddVoter(id, raft.ServerAddress(id), 0, enqueueTimeout).Error, applyPatience))
		}
	}
	return busy, err
}

// admit takes the vote of an empty server away, and tells it so once that is committed.
func (v *voters) admit(ctx context.Context, x peerState, voter bool) error {
	if voter {
		v.s.log.Warn("a layout server lost its store: it has no vote until it is up to date", "server", x.ID)
		if err := v.raft.await(v.raft.DemoteVoter(serverID(x.ID), 0, enqueueTimeout).Error, applyPatience); err != nil {
			return fmt.Errorf("take the vote of layout server %d, which is empty: %w", x.ID, err)
		}
	} else if err := v.raft.Barrier(); err != nil { // the configuration without it may have come from a leader before, and not be committed
		return fmt.Errorf("admit layout server %d, which is empty: %w", x.ID, err)
	}
	without := v.raft.CommitIndex() // it is committed, here or before, that the server has no vote, and this alone gives it back
	if !v.s.store.elected() {
		return errNotLeader
	}
	c, err := v.client(x.Peer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, votersPatience)
	defer cancel()
	id := v.raft.id.get()
	_, err = c.Admit(ctx, &pb.AdmitServerRequest{Incarnation: x.state.Incarnation, Without: without, Cluster: id.Cluster[:], Log: id.Log[:]})
	if err != nil {
		return fmt.Errorf("admit layout server %d, which is empty: %s", x.ID, status.Convert(err).Message())
	}
	return nil
}

// Found is the word of the server that founds the group.
func (v stateService) Found(_ context.Context, q *pb.FoundServersRequest) (*pb.FoundServersReply, error) {
	r, err := v.asked(q.Incarnation)
	if err != nil {
		return nil, err
	}
	var cluster clusterID
	if copy(cluster[:], q.Cluster) != len(cluster) || cluster == (clusterID{}) {
		return nil, status.Error(codes.InvalidArgument, "a group of layout servers has an id of 16 bytes")
	}
	id := r.id.get()
	if id.member() && id.Cluster == cluster {
		return &pb.FoundServersReply{}, nil
	}
	if !r.blank() || id.member() {
		return nil, status.Error(codes.FailedPrecondition, "this layout server is not empty")
	}
	if err := r.found(cluster); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &pb.FoundServersReply{}, nil
}

// Admit is the word of a leader.
func (v stateService) Admit(_ context.Context, q *pb.AdmitServerRequest) (*pb.AdmitServerReply, error) {
	r, err := v.asked(q.Incarnation)
	if err != nil {
		return nil, err
	}
	if r.id.get().member() {
		return nil, status.Error(codes.FailedPrecondition, "this layout server is not empty")
	}
	err = r.id.set(func(i *identity) {
		i.Standing, i.Without = standsLearning, q.Without
		copy(i.Cluster[:], q.Cluster)
		copy(i.Log[:], q.Log)
	})
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	v.s.log.Info("this layout server is being filled", "without_a_vote_since_entry", q.Without)
	return &pb.AdmitServerReply{}, nil
}

// asked checks that a request is meant for the store that is there now.
func (v stateService) asked(incarnation string) (*raftLog, error) {
	r, ok := v.s.store.raft.(*raftLog)
	if !ok || r.id.get().Incarnation != incarnation {
		return nil, status.Error(codes.FailedPrecondition, "the store of this layout server is another one by now: ask it for its state")
	}
	return r, nil
}

// releases is what the other servers said of what they understand.
type releases struct {
	mu    sync.Mutex
	known map[uint16]*pb.LayoutServerState
}

func (r *releases) heard(id uint16, st *pb.LayoutServerState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[uint16]*pb.LayoutServerState{}
	}
	r.known[id] = st
}

// speaks reports whether a server is known to have the handshake of Raft connections.
func (r *releases) speaks(id uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[id].GetStanding() != ""
}

// commands is the highest number of a command that all of n other servers read; 0 while one of them
// was not heard.
func (r *releases) commands(n int) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) < n {
		return 0
	}
	least := uint32(commandsRead)
	for _, st := range r.known {
		least = min(least, st.Commands)
	}
	return least
}
