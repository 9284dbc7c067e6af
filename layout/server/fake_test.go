package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// daemon is a gRPC server that can die and come back at the same address.
type daemon struct {
	t        *testing.T
	addr     string
	register func(*grpc.Server)

	mu     sync.Mutex
	server *grpc.Server
}

func (d *daemon) start() {
	d.t.Helper()
	l := memoryListen(d.t, d.addr)
	d.addr = l.Addr().String()
	s := grpc.NewServer()
	d.register(s)
	d.mu.Lock()
	d.server = s
	d.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

// die breaks all connections, as a killed process does.
func (d *daemon) die() {
	d.mu.Lock()
	s := d.server
	d.mu.Unlock()
	s.Stop()
}

// await waits until try gives no error.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// hook is called with the name of each call before it takes effect; an error is the answer.
type hook func(call string, epoch layout.Epoch) error

// fakeUnit keeps the rules of a storage unit over a map of entries.
type fakeUnit struct {
	pb.UnimplementedUnitServiceServer
	daemon
	id layout.UnitID

	mu         sync.Mutex
	hook       hook
	log        []byte
	state      string
	promise    uint64
	reconciled bool
	intact     uint64
	base       uint64 // that the last seal named
	entries    map[uint64]*pb.Entry
	watermark  uint64
	trimmed    uint64
	received   []uint64 // addresses, in the order in which they were sent
	unaware    bool     // does not know which of its copies are CORRUPT
	names      int      // of its CORRUPT copies so many; 0: all
	largest    int      // message received, in bytes
	wipes      int
	stuck      time.Duration  // that its flash takes no page
	vitals     *pb.UnitVitals // that each State raises; nil: none
	older      bool           // of a release that does not know another max_sessions
	holds      []uint32       // what Reserve was asked for, one after the other
	sessions   uint32         // max_sessions of the layout that it was reconciled to last
	stopping   bool           // it says that it is being stopped on purpose

	store fakeStore      // entries stand above
	begun layout.StartID // rule R24
}

// busy lets the unit count a page of the client each time that it is asked.
func (u *fakeUnit) busy(client uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.vitals = &pb.UnitVitals{Clients: []*pb.ClientVitals{{Client: client}}}
}

func startUnit(t *testing.T, id layout.UnitID) *fakeUnit {
	u := &fakeUnit{id: id, state: stateClosed, store: newStore(), begun: 1}
	u.entries = u.store.entries
	u.daemon = daemon{t: t, register: func(s *grpc.Server) { pb.RegisterUnitServiceServer(s, u) }}
	u.start()
	t.Cleanup(u.die)
	return u
}

// restart is what remains after a crash: entries and promise (rule R19).
func (u *fakeUnit) restart() {
	u.die()
	u.mu.Lock()
	u.state, u.intact, u.reconciled = stateClosed, 0, false
	u.begun++
	u.mu.Unlock()
	u.start()
}

func (u *fakeUnit) setHook(h hook) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hook = h
}

// enter runs the hook without the lock, then takes the lock.
func (u *fakeUnit) enter(call string, e uint64) error {
	u.mu.Lock()
	h := u.hook
	u.mu.Unlock()
	if h != nil {
		if err := h(call, layout.Epoch(e)); err != nil {
			return err
		}
	}
	u.mu.Lock()
	return nil
}

func refuse(format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, format, args...)
}

func (u *fakeUnit) State(_ context.Context, q *pb.UnitStateRequest) (*pb.UnitStateReply, error) {
	if err := u.enter("state", 0); err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	var vitals *pb.UnitVitals
	if u.vitals != nil && q.Vitals > 0 {
		u.vitals.Pages++
		u.vitals.Clients[0].Pages++
		vitals = proto.Clone(u.vitals).(*pb.UnitVitals)
	}
	return &pb.UnitStateReply{StuckMs: uint64(u.stuck.Milliseconds()), Stuck: "input/output error", Vitals: vitals, Log: u.log, Id: uint32(u.id), Promise: u.promise, State: u.state, Reconciled: u.reconciled, IntactEpoch: u.intact,
		Store: fmt.Sprintf("/fake/%d", u.id), End: u.end(), Corrupt: uint32(len(u.corrupt())), Watermark: u.watermark, StoreState: u.past(), Resizes: !u.older, Stopping: u.stopping}, nil
}

func (u *fakeUnit) Reserve(_ context.Context, q *pb.ReserveRequest) (*pb.ReserveReply, error) {
	if err := u.enter("reserve", uint64(q.MaxSessions)); err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	u.holds = append(u.holds, q.MaxSessions)
	return &pb.ReserveReply{}, nil
}

func (u *fakeUnit) end() (end uint64) {
	for a := range u.entries {
		end = max(end, a+1)
	}
	return end
}

func (u *fakeUnit) Seal(_ context.Context, r *pb.SealRequest) (*pb.UnitSealReply, error) {
	if err := u.enter("seal", r.Epoch); err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	if len(u.log) > 0 && string(u.log) != string(r.Log) {
		return nil, refuse("another log")
	}
	if r.Epoch < u.promise || (r.Epoch == u.promise && u.state != stateSealed) {
		return nil, refuse("promised %d", u.promise)
	}
	if u.base = r.Base; r.Epoch > u.promise {
		u.promise, u.state, u.reconciled = r.Epoch, stateSealed, false
		u.sealedOver(r.Base, r.BaseId)
	}
	bad := u.corrupt()
	more := u.names > 0 && len(bad) >= u.names
	if more {
		bad = bad[:u.names]
	}
	return &pb.UnitSealReply{IntactEpoch: u.intact, Watermark: u.watermark, End: u.end(), TrimmedBelow: u.trimmed, Corrupt: bad, MoreCorrupt: more, Store: u.past()}, nil
}

func (u *fakeUnit) Entries(r *pb.EntriesRequest, stream grpc.ServerStreamingServer[pb.EntriesReply]) error {
	if err := u.enter("entries", r.Epoch); err != nil {
		return err
	}
	to := r.To
	if u.state == stateOpen {
		to = min(to, u.watermark)
	}
	if u.state == stateClosed || u.promise != r.Epoch {
		u.mu.Unlock()
		return refuse("not sealed at %d, nor open in it", r.Epoch)
	}
	var list []*pb.Entry
	for _, a := range slices.Sorted(maps.Keys(u.entries)) {
		if e := u.entries[a]; a >= r.From && a < to && (r.TrimsSince == 0 || wire.State(e.State) == wire.Trimmed) {
			c := &pb.Entry{Address: a, State: e.State, Attempt: e.Attempt}
			if r.Pages {
				c.Page = e.Page
			}
			list = append(list, c)
		}
	}
	u.mu.Unlock()
	for c := range slices.Chunk(list, 32) {
		if err := stream.Send(&pb.EntriesReply{Entries: c}); err != nil {
			return err
		}
	}
	return nil
}

func (u *fakeUnit) Reconcile(stream grpc.ClientStreamingServer[pb.ReconcileRequest, pb.ReconcileReply]) error {
	var epoch uint64
	var record layout.RecordRef
	for first := true; ; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first {
			epoch = m.Header.Layout.Epoch
			record = layout.RecordRef{Epoch: layout.Epoch(epoch), ID: layout.RecordID(m.Header.Record)}
			if err := u.enter("reconcile", epoch); err != nil {
				return err
			}
			if err := u.checkStart(m.Header.Start); err != nil {
				u.mu.Unlock()
				return err
			}
			if m.Header.Wipe {
				u.entries, u.watermark, u.wipes = map[uint64]*pb.Entry{}, 0, u.wipes+1
				u.store.reconciled = layout.RecordRef{}
			}
			u.sessions = m.Header.Layout.Geometry.MaxSessions
			u.log, u.trimmed = m.Header.Layout.Log, max(u.trimmed, m.Header.TrimmedBelow)
		} else {
			u.mu.Lock()
		}
		err = u.take(m, epoch)
		u.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if err := u.enter("reconciled", epoch); err != nil {
		return err
	}
	if u.state != stateSealed || u.promise != epoch {
		u.mu.Unlock()
		return refuse("not sealed at %d", epoch)
	}
	u.reconciled, u.store.reconciled = true, record
	u.mu.Unlock()
	return stream.SendAndClose(&pb.ReconcileReply{})
}

func (u *fakeUnit) Backfill(stream grpc.ClientStreamingServer[pb.ReconcileRequest, pb.ReconcileReply]) error {
	var epoch uint64
	for first := true; ; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first {
			epoch = m.Header.Layout.Epoch
		}
		u.mu.Lock()
		open := u.state == stateOpen && u.promise == epoch
		for _, e := range m.Entries {
			if open {
				u.entries[e.Address] = e
			}
		}
		u.mu.Unlock()
		if !open {
			return refuse("not open in %d", epoch)
		}
	}
	if err := u.enter("backfilled", epoch); err != nil {
		return err
	}
	u.mu.Unlock()
	return stream.SendAndClose(&pb.ReconcileReply{})
}

func (u *fakeUnit) take(m *pb.ReconcileRequest, epoch uint64) error {
	if u.state != stateSealed || u.promise != epoch {
		return refuse("not sealed at %d", epoch)
	}
	size := 0
	for _, e := range m.Entries {
		size += len(e.Page)
		u.received = append(u.received, e.Address)
		u.entries[e.Address] = e
	}
	u.largest = max(u.largest, size)
	return nil
}

func (u *fakeUnit) Activate(_ context.Context, r *pb.ActivateRequest) (*pb.ActivateReply, error) {
	if err := u.enter("activate", r.Epoch); err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	if u.state == stateOpen && u.promise == r.Epoch {
		return &pb.ActivateReply{}, nil
	}
	if u.state != stateSealed || u.promise != r.Epoch || !u.reconciled {
		return nil, refuse("%s at %d, reconciled %v", u.state, u.promise, u.reconciled)
	}
	if r.Start != 0 {
		if err := u.checkStart(r.Start); err != nil {
			return nil, err
		}
	}
	u.state, u.intact, u.reconciled = stateOpen, r.Epoch, false
	u.store.active = layout.RecordRef{Epoch: layout.Epoch(r.Epoch), ID: layout.RecordID(r.Record)}
	return &pb.ActivateReply{}, nil
}

// fakeSequencer keeps the rules of a sequencer.
type fakeSequencer struct {
	pb.UnimplementedSequencerServiceServer
	daemon

	id      uint32
	mu      sync.Mutex
	state   string
	promise uint64
	start   uint64
	hook    hook

	stopping bool // as of a unit
}

func startSequencer(t *testing.T, id uint32) *fakeSequencer {
	s := &fakeSequencer{id: id, state: stateClosed}
	s.daemon = daemon{t: t, register: func(g *grpc.Server) { pb.RegisterSequencerServiceServer(g, s) }}
	s.daemon.start()
	t.Cleanup(s.die)
	return s
}

// enter runs the hook without the lock, then takes the lock.
func (s *fakeSequencer) enter(call string, e uint64) error {
	s.mu.Lock()
	h := s.hook
	s.mu.Unlock()
	if h != nil {
		if err := h(call, layout.Epoch(e)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	return nil
}

func (s *fakeSequencer) State(context.Context, *pb.SequencerStateRequest) (*pb.SequencerStateReply, error) {
	if err := s.enter("state", 0); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return &pb.SequencerStateReply{Id: s.id, Promise: s.promise, State: s.state, Next: s.start, Stopping: s.stopping}, nil
}

func (s *fakeSequencer) Seal(_ context.Context, r *pb.SealRequest) (*pb.SequencerSealReply, error) {
	if err := s.enter("seal", r.Epoch); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if r.Epoch <= s.promise {
		return nil, refuse("promised %d", s.promise)
	}
	s.promise, s.state = r.Epoch, stateSealed
	return &pb.SequencerSealReply{}, nil
}

func (s *fakeSequencer) Activate(_ context.Context, r *pb.SequencerActivateRequest) (*pb.ActivateReply, error) {
	if err := s.enter("activate", r.Epoch); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if s.promise != r.Epoch || s.state == stateClosed {
		return nil, refuse("%s at %d", s.state, s.promise)
	}
	s.state, s.start = stateOpen, r.Start
	return &pb.ActivateReply{}, nil
}

// page makes the page of an entry at position p.
func page(log layout.LogID, p layout.Position, a layout.Attempt) []byte {
	b := make([]byte, 4096)
	n := copy(b[wire.HeaderSize:], fmt.Sprintf("entry at %d", p))
	return b[:wire.SealPage(b, wire.Header{Flags: wire.FlagData, Length: n, Log: log, Position: p, Epoch: 1, Attempt: a})]
}
