package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/messages"
	"corfu/internal/mutant"
	"corfu/internal/tickets"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit"
	"corfu/unit/flash"
)

// Server is a running storage unit.
type Server struct {
	cfg      Config
	ctx      context.Context // ends with the server
	cancel   context.CancelFunc
	store    *flash.Store
	core     *unit.Unit // the loop's, once it runs
	m        *metrics
	grpc     *grpc.Server
	calls    *control.Observer
	control  net.Listener
	listener rdma.Listener
	messages *messages.Server
	known    atomic.Pointer[knownLayout] // what message connections are told
	shortage rdma.Shortage

	events     chan event
	batches    chan *unit.Batch
	flushed    chan flushed
	coldJobs   chan coldJob
	stopLoop   chan struct{}
	loopDone   chan struct{}
	helm       *flash.Helm
	hands      sync.WaitGroup // two: the helmsman and its relief
	flushers   sync.WaitGroup
	acceptDone chan struct{}
	coldDone   sync.WaitGroup
	handshakes sync.WaitGroup
	loopState  loopState

	// What the core showed last: addresses below base are decided and durable.
	followed      atomic.Bool // clients wait for entries here, or did a moment ago
	base, trimmed atomic.Uint64
	bytes         atomic.Int64          // registered
	coldReads     atomic.Uint64         // since the start
	noting        atomic.Bool           // the watermark is on its way to the meta file
	flushError    atomic.Pointer[error] // of the last flush; nil: it succeeded

	repairMu  sync.Mutex    // held while a page is written anew, or judged
	repairing atomic.Uint64 // 1 + the address that is being written anew; 0: none
	writing   atomic.Int64  // batches that are being written
	scrub     scrubber
	scrubEnd  context.CancelFunc

	ctl     *ctlLock       // held by seal, reconcile and activate; sessions are opened under the read lock
	startID layout.StartID // rule R24
	askers  askers
	notice  control.StopNotice
	client  atomic.Uint32 // Meta.Client is at least this
	trims0  uint64        // Meta.Trims as the unit started

	held     held         // memory for an epoch to come
	capacity atomic.Int64 // sessions that there is room for

	mem *memory // nil until a geometry is known; changes only while no session lives, under ctl

	mu       sync.Mutex
	sessions map[*session]struct{}
	tokens   tickets.Office[pending]
	ofWhom   map[string]int // sessions of each identity
	slots    *allotment     // of staging
	seats    []int          // that no session has
	lastID   unit.Session

	closing sync.Once
	closed  error
}

// Start starts the unit of cfg.Dir: closed, with what it had on flash and its promise (rule R19). It fails with
// the errors of flash.Open, or if the data do not fit each other. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("unit: %w", err)
	}
	s := &Server{
		cfg: cfg, calls: control.Observe("unit", cfg.Logger),
		events: make(chan event, queueDepth), batches: make(chan *unit.Batch, unit.MaxInFlight), flushed: make(chan flushed, unit.MaxInFlight),
		coldJobs: make(chan coldJob, coldDepth),
		stopLoop: make(chan struct{}), loopDone: make(chan struct{}), helm: flash.NewHelm(),
		acceptDone: make(chan struct{}),
		ctl:        newCtlLock(),
		held:       held{mu: newCtlLock()},
		startID:    newStart(),
		sessions:   map[*session]struct{}{}, ofWhom: map[string]int{},
		scrub: scrubber{kick: make(chan struct{}, 1), done: make(chan struct{})},
	}
	s.loopState.live = map[unit.Session]*link{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

func (s *Server) start() (err error) {
	began := time.Now()
	opts := s.cfg.Flash
	if opts.Reads == 0 {
		opts.Reads = s.cfg.ColdReaders
	}
	if s.store, err = flash.Open(s.cfg.Dir, s.cfg.ID, opts, s.cfg.Logger); err != nil {
		return err
	}
	meta := s.store.Meta()
	s.trims0 = meta.Trims
	s.core = unit.New(s.cfg.ID, layout.LogID(meta.Log), meta.Promise)
	if meta.Stopped != 0 {
		s.core.StoppedIn(meta.Stopped)
	} else if mutant.R19 {
		s.core.StoppedIn(meta.Promise)
	}
	if meta.Layout != nil {
		if err := s.adopt(meta.Layout); err != nil {
			return err
		}
		if err := s.load(s.core, meta); err != nil {
			return err
		}
		s.remember(meta)
	}
	recovered, scanned := time.Since(began), s.store.Stats().Scanned
	s.publish(s.core.View())
	if s.m, err = newMetrics(s); err != nil {
		return err
	}
	s.m.recoverySeconds.Set(recovered.Seconds())
	s.m.recoveryBytes.Set(float64(scanned))
	if s.control, err = control.ListenOr(s.cfg.Listener, s.cfg.Control, s.cfg.TLS != nil, s.cfg.Insecure); err != nil {
		return err
	}
	if s.listener, err = s.cfg.Device.Listen(s.cfg.Fabric); err != nil {
		return err
	}
	s.messages = s.newMessages()
	s.loopState.timer = time.NewTimer(s.cfg.ScanIdle)
	s.hands.Add(2)
	go s.hand(true)
	go s.hand(false)
	for range unit.MaxInFlight {
		s.flushers.Add(1)
		go s.flusher()
	}
	go s.accept()
	for i := range s.cfg.ColdReaders {
		s.coldDone.Add(1)
		go s.coldReader(i)
	}
	s.grpc = control.Serve(append(s.calls.Options(), control.ServerOptions(s.cfg.TLS)...)...)
	services := control.Registrar(s.grpc, s.control)
	pb.RegisterUnitServiceServer(services, &service{s: s})
	pb.RegisterMessageServiceServer(services, s.messages)
	go func() { _ = s.grpc.Serve(s.control) }()
	ctx, end := context.WithCancel(context.Background())
	s.scrubEnd = end
	go s.scrubLoop(ctx)
	go s.watchDisk()
	return s.do(func(u *unit.Unit) {
		v := u.View()
		s.cfg.Logger.Info("unit started", "dir", s.cfg.Dir, "control", s.ControlAddr(), "fabric", s.messages.Addr(),
			"log", v.Log, "promise", v.Promise, "watermark", v.Watermark, "end", v.End, "torn", u.Stats().Torn, "corrupt", u.Stats().Corrupt,
			"recovery", recovered, "bytes_read", scanned, "took", time.Since(began))
	})
}

// abandon undoes a start that failed.
func (s *Server) abandon() error {
	s.cancel()
	var errs []error
	if s.listener != nil {
		errs = append(errs, s.listener.Close())
	}
	if s.control != nil {
		errs = append(errs, s.control.Close())
	}
	if s.m != nil {
		s.m.Unregister()
	}
	errs = append(errs, s.mem.close())
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// adopt gives the core a layout, and memory of the layout's geometry. No session
// lives and nothing is registered; ctl is held, or the server starts.
func (s *Server) adopt(l *layout.Layout) error {
	switch {
	case s.mem == nil || !l.Geometry.Follows(s.mem.geo):
		old := s.mem
		mem, err := newMemory(s.cfg.Device, l.Geometry, s.cfg.ColdReaders)
		if err != nil {
			return err
		}
		if err := mem.notHuge(); err != nil {
			s.cfg.Logger.Warn("not all registered memory gets huge pages: ordinary pages are used there", "error", err)
		}
		s.mem = mem
		s.seat()
		defer func() { _ = old.close() }()
	case s.mem.geo != l.Geometry:
		if err := s.restage(l.Geometry); err != nil {
			return err
		}
		s.seat()
	}
	s.core.SetMemory(l, s.mem)
	return nil
}

// seat makes the places of sessions that the memory has.
func (s *Server) seat() {
	n := capacity(s.mem.geo)
	s.bytes.Store(int64(s.mem.bytes()))
	s.capacity.Store(int64(n))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots, s.seats = newAllotment(s.mem.geo), make([]int, n)
	for i := range s.seats {
		s.seats[i] = i
	}
}

// FabricAddr is the host:port that clients are told to dial.
func (s *Server) FabricAddr() string { return s.messages.Addr() }

// ControlAddr is the host:port of the gRPC service.
func (s *Server) ControlAddr() string { return s.control.Addr().String() }

// Health is nil while the unit serves an epoch and its flash takes pages.
func (s *Server) Health() error {
	if err := s.flushError.Load(); err != nil {
		return *err
	}
	var v unit.View
	if err := s.do(func(u *unit.Unit) { v = u.View() }); err != nil {
		return err
	}
	if v.Phase != unit.Open {
		return fmt.Errorf("unit %d is %v at epoch %d", s.cfg.ID, v.Phase, v.Epoch)
	}
	return nil
}

// AnnounceStop tells the leader of the layout servers that the unit is being stopped on purpose, so that it waits for the unit to come
// back before it leaves it out. The unit serves until Close. It fails with control.ErrNoLeader if nobody heard it: then the unit counts
// as crashed, which is safe.
func (s *Server) AnnounceStop(ctx context.Context) error { return s.notice.Announce(ctx) }

// Close ends the sessions, brings what they published to flash, and stops. Idempotent.
func (s *Server) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

// closeGrace is how long control calls may take to end.
const closeGrace = 2 * time.Second

func (s *Server) close() error {
	control.Stop(s.grpc, closeGrace)
	s.messages.Close()
	s.scrubEnd()
	<-s.scrub.done
	s.ctl.Lock()
	defer s.ctl.Unlock()
	s.cancel()
	errs := []error{s.listener.Close()}
	<-s.acceptDone
	s.handshakes.Wait()
	errs = append(errs, s.mem.revoke(), s.endSessions())
	if err := s.waitFlushed(); err != nil {
		errs = append(errs, fmt.Errorf("unit: not everything published is on flash: %w", err))
	}
	errs = append(errs, s.saveSettled())
	if errors.Join(errs...) == nil {
		errs = append(errs, s.markStopped())
	}
	close(s.stopLoop)
	<-s.loopDone
	s.hands.Wait()
	close(s.batches)
	s.flushers.Wait()
	close(s.coldJobs)
	s.coldDone.Wait()
	s.m.Unregister()
	errs = append(errs, s.release())
	if errors.Join(errs[:2]...) == nil && s.idle() {
		errs = append(errs, s.mem.close())
	}
	return errors.Join(append(errs, s.store.Close())...)
}

// markStopped notes that the unit stops cleanly: its index is out of reach, its sessions have ended, and what they published is on flash.
func (s *Server) markStopped() error {
	var v unit.View
	if err := s.do(func(u *unit.Unit) { v = u.View() }); err != nil {
		return err
	}
	if v.Intact == 0 || v.Outdated || s.store.Meta().Stopped == v.Intact {
		return nil
	}
	return s.store.UpdateMeta(func(m *flash.Meta) { m.Stopped = v.Intact })
}

// idle tells whether no session is left: else its memory must be leaked.
func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions) == 0
}

// takeSlice gives a free slice of staging, and a seat.
func (s *Server) takeSlice() (x unit.Slice, seat int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.seats)
	if n == 0 {
		return x, 0, false
	}
	if x.First, x.Slots = s.slots.take(); x.Slots == 0 {
		return x, 0, false
	}
	seat = s.seats[n-1]
	s.seats = s.seats[:n-1]
	return x, seat, true
}

func (s *Server) freeSlice(x unit.Slice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range x.Slots {
		s.slots.give(x.First + i)
	}
}

func (s *Server) freeSeat(seat int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seats = append(s.seats, seat)
}

// sessionsTimeout is how long a seal waits for the fabric to take the connections down.
const sessionsTimeout = 10 * time.Second

// endSessions ends all sessions and waits until they are taken down. ctl is held.
func (s *Server) endSessions() error {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for x := range s.sessions {
		all = append(all, x)
	}
	s.mu.Unlock()
	for _, x := range all {
		x.fail(errEnd)
	}
	timer := time.NewTimer(sessionsTimeout)
	defer timer.Stop()
	for _, x := range all {
		select {
		case <-x.done:
		case <-timer.C:
			return fmt.Errorf("unit: sessions do not end within %v: the fabric hangs", sessionsTimeout)
		}
	}
	return nil
}

// position gives the position of address a, by the layout that the unit was reconciled to, and the log.
func (s *Server) position(a layout.Address) (p layout.Position, log layout.LogID, mapped bool) {
	meta := s.store.Meta()
	if meta.Layout == nil {
		return 0, log, false
	}
	p, mapped = meta.Layout.PositionAt(s.cfg.ID, a)
	return p, layout.LogID(meta.Log), mapped
}

// saveTrim makes it durable that all addresses below a are given up, and then gives them up.
func (s *Server) saveTrim(a layout.Address) error {
	if err := s.store.UpdateMeta(func(m *flash.Meta) { m.TrimmedBelow = max(m.TrimmedBelow, a) }); err != nil {
		return err
	}
	if err := s.do(func(u *unit.Unit) { u.TrimPrefix(a) }); err != nil {
		return err
	}
	if err := s.store.DropBelow(a); err != nil {
		s.cfg.Logger.Warn("space of trimmed pages not given back", "error", err)
	}
	return nil
}
