package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// errNoEpoch: the log has no ACTIVE layout yet. Watch, or come back.
var errNoEpoch = errors.New("no layout is active yet (corfu status says what it waits for)")

// service answers the layout service's callers.
type service struct {
	pb.UnimplementedLayoutServiceServer
	s *Server
}

// Get is linearizable: a client that got an epoch from somewhere gets that or a newer one here. With known it is what this server
// has applied.
func (v service) Get(_ context.Context, q *pb.GetRequest) (*pb.Layout, error) {
	if q.GetKnown() {
		return v.known()
	}
	l, _, _, err := v.s.store.active()
	if err != nil {
		return nil, v.refuse(err)
	}
	if l == nil {
		return nil, v.refuse(errNoEpoch)
	}
	m := pbconv.Layout(l)
	if t := v.s.store.trouble.Load(); t != nil {
		m.Trouble = *t
	}
	m.FabricProvider = v.s.manager.provider()
	return m, nil
}

// known returns the layout that this server knows to have been ACTIVE. For a client that begins while nobody leads that is as good as the
// layout of a client that heard nothing for a while: what it reads and appends is judged by the epoch that the units show (R8, R12).
func (v service) known() (*pb.Layout, error) {
	if r, ok := v.s.store.raft.(*raftLog); ok && !r.id.get().member() {
		return nil, v.refuse(errNotLeader) // it is being filled: what it knows may be years old
	}
	l, _ := v.s.store.fsm.active.get()
	if l == nil {
		return nil, v.refuse(errNoEpoch)
	}
	return pbconv.Layout(l), nil
}

// Watch sends what Get would answer, and ends with the refusal of one that does not lead when this server's leadership ends.
func (v service) Watch(_ *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.Layout]) error {
	var sent layout.Epoch
	for {
		reign := v.s.store.changes()
		l, term, changed, err := v.s.store.active()
		if err != nil {
			return v.refuse(err)
		}
		for v.s.store.leads(term) {
			if l != nil && l.Epoch > sent {
				if err := stream.Send(pbconv.Layout(l)); err != nil {
					return err
				}
				sent = l.Epoch
			}
			select {
			case <-changed:
			case <-reign:
				reign = v.s.store.changes() // it may have been the beginning: leads decides
			case <-stream.Context().Done():
				return stream.Context().Err()
			case <-v.s.ctx.Done():
				return status.Error(codes.Unavailable, "the layout server stops")
			}
			l, changed = v.s.store.fsm.active.get()
		}
	}
}

func (v service) NewClientID(context.Context, *pb.NewClientIDRequest) (*pb.NewClientIDReply, error) {
	id, err := v.s.store.newClient()
	if err != nil {
		return nil, v.refuse(err)
	}
	v.s.metrics.clients.Inc()
	return &pb.NewClientIDReply{Client: uint32(id)}, nil
}

func (v service) Reconfigure(ctx context.Context, q *pb.ReconfigureRequest) (*pb.Layout, error) {
	// The server stops before the manager takes its last request.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.s.ctx, cancel)()
	reason := reasonAsked
	if q.Reason != "" {
		reason += ": " + q.Reason
	}
	ask := &request{reason: reason, op: control.Operation(ctx), asked: toAsked(q), dry: q.DryRun}
	l, err := v.s.manager.ask(ctx, ask)
	if errors.Is(err, context.Canceled) && v.s.ctx.Err() != nil {
		return nil, status.Error(codes.Unavailable, "the layout server stops: whether it was done the next leader knows, ask again")
	}
	if err != nil {
		return nil, v.refuse(err)
	}
	return pbconv.Layout(l), nil
}

func toAsked(q *pb.ReconfigureRequest) asked {
	a := asked{shorter: q.Shorter, failover: q.Failover, from: layout.SequencerID(q.FailoverFrom), to: layout.SequencerID(q.FailoverTo),
		sessions: int(q.MaxSessions), acceptLoss: q.AcceptLoss}
	for _, u := range q.Remove {
		a.remove = append(a.remove, layout.UnitID(u))
	}
	for _, u := range q.Add {
		a.add = append(a.add, layout.Unit{ID: layout.UnitID(u.GetId()), Control: u.GetControl()})
	}
	for _, x := range q.Drain {
		a.drain = append(a.drain, layout.Leaving{Unit: layout.UnitID(x.GetUnit()), By: layout.UnitID(x.GetBy())})
	}
	for _, u := range q.Chain {
		a.chain = append(a.chain, layout.UnitID(u))
	}
	return a
}

// Status is the leader's alone: it asks the members.
func (v service) Status(context.Context, *pb.StatusRequest) (*pb.StatusReply, error) {
	if !v.s.store.elected() {
		return nil, v.refuse(errNotLeader)
	}
	show := v.s.manager.status()
	m := &pb.StatusReply{EpochInProgress: uint64(show.epoch), Phase: show.phase}
	if l, _ := v.s.store.fsm.active.get(); l != nil {
		m.Layout = pbconv.Layout(l)
	}
	m.Deficit = uint32(show.deficit)
	for _, x := range v.s.manager.rebuilder.progress() {
		m.Rebuilds = append(m.Rebuilds, &pb.RebuildStatus{Unit: uint32(x.Unit), From: uint64(x.From), To: uint64(x.To), Copied: uint64(x.below),
			Bytes: uint64(x.bytes), EtaMs: uint64(x.eta(time.Now()).Milliseconds())})
	}
	for _, x := range show.members {
		m.Members = append(m.Members, &pb.MemberStatus{Name: x.name, Control: x.control, State: x.report.state,
			Epoch: uint64(x.report.promise), Error: x.report.err, Store: x.report.store, MaxAddress: uint64(x.report.end),
			Corrupt: uint32(x.report.corrupt), Lost: uint32(v.s.manager.lost(x)), Role: x.role})
	}
	return m, nil
}

// refuse is reply, and says who leads where this server does not.
func (v service) refuse(err error) error {
	if errors.Is(err, errNotLeader) {
		p := v.s.store.leader()
		return control.NotLeader(p.ID, p.Control, (&notLeaderError{p}).Error())
	}
	return reply(err)
}

// reply gives an error the code that tells the caller what to do.
func reply(err error) error {
	var code codes.Code
	switch {
	case errors.Is(err, errImpossible), errors.Is(err, errNoEpoch), errors.Is(err, layout.ErrNotFounded):
		code = codes.FailedPrecondition
	case errors.Is(err, errNotLeader):
		code = codes.Unavailable
	case errors.Is(err, errUnknown):
		code = codes.Unknown
	case errors.Is(err, layout.ErrNoClients):
		code = codes.ResourceExhausted
	case errors.Is(err, layout.ErrConflict):
		code = codes.DataLoss
	case err == context.Canceled: // the caller's own: one around which more is said is that of an attempt
		code = codes.Canceled
	case err == context.DeadlineExceeded:
		code = codes.DeadlineExceeded
	default:
		code = codes.Aborted // an epoch was, or a member is awaited: the message says why
	}
	return status.Error(code, err.Error())
}
