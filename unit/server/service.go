package server

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit"
	"corfu/unit/flash"
)

// service answers the control plane.
type service struct {
	pb.UnimplementedUnitServiceServer
	s *Server
}

// toStatus gives an error its gRPC code.
func toStatus(err error) error {
	code := codes.Internal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unit.ErrPromised), errors.Is(err, unit.ErrNotSealed), errors.Is(err, unit.ErrNotReconciled),
		errors.Is(err, unit.ErrNotOpen), errors.Is(err, unit.ErrOtherLog), errors.Is(err, errChanging), errors.Is(err, errOtherStart):
		code = codes.FailedPrecondition
	case errors.Is(err, unit.ErrSound):
		code = codes.AlreadyExists
	case errors.Is(err, unit.ErrRepairBusy):
		code = codes.Aborted
	case errors.Is(err, unit.ErrBadEntry), errors.Is(err, pbconv.ErrBadLayout):
		code = codes.InvalidArgument
	case errors.Is(err, unit.ErrConflict), errors.Is(err, unit.ErrWindow):
		code = codes.DataLoss
	case errors.Is(err, errNoSession), errors.Is(err, errTooMany), errors.Is(err, errNoMemory), errors.Is(err, flash.ErrFull), rdma.Exhausted(err):
		code = codes.ResourceExhausted
	case errors.Is(err, errForgotten):
		code = codes.OutOfRange
	case errors.Is(err, errStopped):
		code = codes.Unavailable
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(code, err.Error())
}

func toLogID(b []byte) (layout.LogID, error) {
	if len(b) != len(layout.LogID{}) {
		return layout.LogID{}, status.Errorf(codes.InvalidArgument, "log id of %d bytes", len(b))
	}
	return layout.LogID(b), nil
}

func toRemote(r rdma.Remote) *pb.Remote { return &pb.Remote{Addr: r.Addr, Key: uint32(r.Key)} }

func (v *service) OpenSession(ctx context.Context, q *pb.OpenSessionRequest) (*pb.UnitSession, error) {
	log, err := toLogID(q.Log)
	if err != nil {
		return nil, err
	}
	s := v.s
	// While an epoch changes nothing is served: that is no reason to wait.
	if !s.ctl.TryRLock() {
		return nil, status.Error(codes.FailedPrecondition, "the unit changes its epoch")
	}
	defer s.ctl.RUnlock()
	if e := s.do(func(u *unit.Unit) { err = u.CheckOpen(log, layout.Epoch(q.Epoch)) }); e != nil || err != nil {
		return nil, toStatus(firstError(e, err))
	}
	who, err := control.Caller(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if err := s.noteClient(layout.ClientID(q.Client)); err != nil {
		return nil, toStatus(err)
	}
	s.replace(ctx, layout.ClientID(q.Client), who.String())
	x, err := s.newSession(layout.ClientID(q.Client), who.String(), control.Standing(ctx))
	if err != nil {
		return nil, toStatus(err)
	}
	s.m.opened.Inc()
	s.cfg.Logger.Debug("session opened", "client", q.Client, "identity", who.String(), "session", x.ids[appendLink])
	return &pb.UnitSession{
		Fabric: s.messages.Addr(), Provider: s.cfg.Device.Info().Provider,
		AppendToken: x.tokens[appendLink][:], ReadToken: x.tokens[readLink][:],
		Index: toRemote(s.mem.indexRegion.Remote(0)), Ring: toRemote(s.mem.ringRegion.Remote(0)),
		StagingRead: toRemote(s.mem.stagingRegion.Remote(0)), StagingWrite: toRemote(x.write.Remote(0)),
		FirstSlot: uint32(x.slice.First), Slots: uint32(x.slice.Slots), FirstUse: uint32(x.first),
		ReadRun: uint32(runPages(s.mem.geo)), PageFlags: uint32(wire.KnownFlags), Progress: true, BellRun: wire.MaxBell,
	}, nil
}

func (v *service) Seal(ctx context.Context, q *pb.SealRequest) (*pb.UnitSealReply, error) {
	log, err := toLogID(q.Log)
	if err != nil {
		return nil, err
	}
	snap, err := v.s.seal(log, layout.Epoch(q.Epoch), layout.RecordRef{Epoch: layout.Epoch(q.Base), ID: layout.RecordID(q.BaseId)})
	if err != nil {
		return nil, toStatus(err)
	}
	store, err := v.s.storeState()
	if err != nil {
		return nil, toStatus(err)
	}
	r := &pb.UnitSealReply{IntactEpoch: uint64(snap.Intact), Watermark: uint64(snap.Watermark),
		End: uint64(snap.End), TrimmedBelow: uint64(snap.TrimmedBelow), Store: pbconv.StoreState(store)}
	if err := v.s.do(func(u *unit.Unit) {
		r.MoreCorrupt = u.MoreCorrupt()
		for _, a := range u.Corrupt(0, unit.MaxCorrupt) {
			r.Corrupt = append(r.Corrupt, uint64(a))
		}
	}); err != nil {
		return nil, toStatus(err)
	}
	return r, nil
}

// replyBytes is about how large one message of a stream of entries gets.
const replyBytes = 512 << 10

func (v *service) Entries(q *pb.EntriesRequest, stream grpc.ServerStreamingServer[pb.EntriesReply]) error {
	var out pb.EntriesReply
	size := 0
	send := func() error {
		if len(out.Entries) == 0 {
			return nil
		}
		err := stream.Send(&out)
		out.Entries, size = nil, 0
		return err
	}
	list := v.s.entries
	if q.TrimsSince != 0 {
		list = func(n layout.Epoch, from, to layout.Address, fn func(unit.Entry) error) error {
			return v.s.trims(n, layout.Epoch(q.TrimsSince), from, to, fn)
		}
	}
	err := list(layout.Epoch(q.Epoch), layout.Address(q.From), layout.Address(q.To), func(e unit.Entry) error {
		p := &pb.Entry{Address: uint64(e.Address), State: uint32(e.State), Attempt: uint64(e.Attempt)}
		if e.State == wire.Durable && len(e.Page) > 0 {
			p.Sum = wire.PageSum(e.Page)
		}
		if q.Pages {
			p.Page = append([]byte(nil), e.Page...)
		}
		out.Entries = append(out.Entries, p)
		if size += 32 + len(p.Page); size < replyBytes {
			return nil
		}
		return send()
	})
	if err == nil {
		err = send()
	}
	return toStatus(err)
}

func (v *service) Reconcile(stream entryStream) error {
	return take(stream, func(l *layout.Layout, h *pb.ReconcileHeader) (taker, error) { return v.s.beginReconcile(l, h) })
}

// Backfill is Reconcile of addresses that are not the unit's yet, while it serves.
func (v *service) Backfill(stream entryStream) error {
	return take(stream, func(l *layout.Layout, h *pb.ReconcileHeader) (taker, error) { return v.s.beginBackfill(l, h) })
}

type entryStream = grpc.ClientStreamingServer[pb.ReconcileRequest, pb.ReconcileReply]

// taker takes a stream of entries.
type taker interface {
	add([]unit.Entry) error
	end() error
	taken() int
}

// take hands what comes to the taker that begin makes of the header.
func take(stream entryStream, begin func(*layout.Layout, *pb.ReconcileHeader) (taker, error)) error {
	q, err := stream.Recv()
	if err != nil {
		return err
	}
	if q.Header == nil || q.Header.Layout == nil {
		return status.Error(codes.InvalidArgument, "the first message has no header with a layout")
	}
	l, err := pbconv.ToLayout(q.Header.Layout)
	if err != nil {
		return toStatus(err)
	}
	r, err := begin(l, q.Header)
	for err == nil {
		if err = r.add(toEntries(q.Entries)); err != nil {
			break
		}
		if q, err = stream.Recv(); err == io.EOF {
			if err = r.end(); err != nil {
				break
			}
			return stream.SendAndClose(&pb.ReconcileReply{Entries: uint64(r.taken())})
		}
	}
	return toStatus(err)
}

func toEntries(in []*pb.Entry) []unit.Entry {
	out := make([]unit.Entry, len(in))
	for i, e := range in {
		state := wire.Empty
		if e.State <= uint32(wire.Trimmed) {
			state = wire.State(e.State)
		}
		out[i] = unit.Entry{Address: layout.Address(e.Address), State: state, Attempt: wire.Attempt(e.Attempt), Page: e.Page}
	}
	return out
}

func (v *service) Activate(ctx context.Context, q *pb.ActivateRequest) (*pb.ActivateReply, error) {
	if err := v.s.activate(layout.Epoch(q.Epoch), layout.RecordID(q.Record), layout.StartID(q.Start)); err != nil {
		return nil, toStatus(err)
	}
	return &pb.ActivateReply{}, nil
}

// Reserve takes the memory that another max_sessions needs before anything else is done for it.
func (v *service) Reserve(_ context.Context, q *pb.ReserveRequest) (*pb.ReserveReply, error) {
	log, err := toLogID(q.Log)
	if err != nil {
		return nil, err
	}
	if q.MaxSessions == 0 {
		return &pb.ReserveReply{}, toStatus(v.s.release())
	}
	g, err := v.s.sessionsOf(log, int(q.MaxSessions))
	if err != nil {
		return nil, err
	}
	n, err := v.s.reserve(g)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.ReserveReply{Bytes: uint64(n)}, nil
}

// sessionsOf is the geometry of the log that the unit holds with another max_sessions.
func (s *Server) sessionsOf(log layout.LogID, sessions int) (g layout.Geometry, err error) {
	var v unit.View
	if err := s.do(func(u *unit.Unit) { v = u.View() }); err != nil {
		return g, toStatus(err)
	}
	if v.Log != log || v.Geometry == g {
		return g, status.Errorf(codes.FailedPrecondition, "unit %d serves log %v, and knows its geometry: not %v", s.cfg.ID, v.Log, log)
	}
	if g, err = v.Geometry.WithSessions(sessions); err != nil {
		return g, status.Error(codes.InvalidArgument, err.Error())
	}
	return g, nil
}

// Durable implements rule R11 for a client that reaches the unit over the control plane alone.
func (v *service) Durable(_ context.Context, q *pb.DurableRequest) (*pb.DurableReply, error) {
	log, err := toLogID(q.Log)
	if err != nil {
		return nil, err
	}
	var watermark layout.Address
	if e := v.s.do(func(u *unit.Unit) {
		if err = u.CheckOpen(log, layout.Epoch(q.Epoch)); err == nil {
			watermark = u.View().Watermark
		}
	}); e != nil || err != nil {
		return nil, toStatus(firstError(e, err))
	}
	return &pb.DurableReply{Watermark: uint64(watermark)}, nil
}

func (v *service) State(ctx context.Context, q *pb.UnitStateRequest) (*pb.UnitStateReply, error) {
	var x unit.View
	var st unit.Stats
	var trims layout.Epoch
	var stuck time.Duration
	if err := v.s.do(func(u *unit.Unit) {
		x, st, trims = u.View(), u.Stats(), u.TrimsSince()
		stuck = v.s.loopState.stall.look(x, time.Now())
	}); err != nil {
		return nil, toStatus(err)
	}
	r := &pb.UnitStateReply{StuckMs: uint64(stuck.Milliseconds()), Id: uint32(v.s.cfg.ID), Promise: uint64(x.Promise), State: x.Phase.String(), Reconciled: x.Reconciled,
		Store: v.s.store.Dir(), End: uint64(x.End), Watermark: uint64(x.Watermark), TrimmedBelow: uint64(x.TrimmedBelow), IntactEpoch: uint64(x.Intact),
		Sessions: uint32(v.s.sessionCount()), Corrupt: uint32(x.Corrupt), Scrub: v.s.scrubStatus(),
		TrimsSince: uint64(trims), Copied: v.s.copiedRanges(),
		Fabric: v.s.messages.Addr(), Provider: v.s.cfg.Device.Info().Provider, FabricClients: v.s.carried(time.Now()),
		SessionsMax: uint32(v.s.capacity.Load()), Resizes: true}
	store, err := v.s.storeState()
	if err != nil {
		return nil, toStatus(err)
	}
	r.StoreState, r.Other = pbconv.StoreState(store), v.s.askers.note(ctx, q.Asker, time.Now())
	if !x.Log.IsZero() {
		r.Log = x.Log[:]
	}
	text, lasts := v.s.shortage.Text(time.Now())
	r.FabricRefused, r.FabricRefusedMs = text, uint64(lasts.Milliseconds())
	if err := v.s.flushError.Load(); err != nil && stuck > 0 {
		r.Stuck = (*err).Error()
	}
	if q.Vitals > 0 {
		r.Vitals = v.s.vitals(st, x, int(q.Vitals))
	}
	if q.Asker != 0 {
		r.Stopping = v.s.notice.Answer(time.Now())
	}
	return r, nil
}
