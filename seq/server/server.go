package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/messages"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/seq"
)

// watchEvery is how often the word is looked at for tampering and exhaustion.
const watchEvery = 100 * time.Millisecond

// grace is how long Close waits for control calls.
const grace = 2 * time.Second

// Server is a running sequencer.
type Server struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	memory   *rdma.Memory // one word
	fabric   rdma.Listener
	control  net.Listener
	messages *messages.Server
	shortage rdma.Shortage
	notice   control.StopNotice
	grpc     *grpc.Server
	calls    *control.Observer
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	once     sync.Once
	closing  error

	// mu is held over whole transitions: that makes the core's owner one goroutine at a time. Nothing on the path of a token takes it.
	mu       sync.Mutex
	core     *seq.Sequencer
	promises promises
	region   rdma.Region // of the word, while it is open
	sessions *sessions
	failed   error  // the word could not be revoked, or was tampered with
	handed   uint64 // tokens of earlier epochs
}

// Start starts a sequencer: closed, until the layout service activates it. ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sequencer: %w", err)
	}
	promise, err := loadPromise(cfg.Dir, cfg.ID)
	if err != nil {
		return nil, fmt.Errorf("sequencer %d: %w", cfg.ID, err)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, core: seq.New(promise), promises: newPromises(cfg.Dir, cfg.ID), sessions: newSessions(cfg), calls: control.Observe("seq", cfg.Logger)}
	// Saved as it is, so that the next one has its place on the disk already.
	if err := s.promises.save(promise); err != nil {
		s.log.Warn("a promise has no place of its own on the disk: once that is full, no epoch can be made with this sequencer", "dir", cfg.Dir, "err", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("sequencer %d: %w", cfg.ID, err), s.Close())
	}
	s.log.Info("sequencer started", "control", s.ControlAddr(), "fabric", s.FabricAddr(), "promise", uint64(promise))
	return s, nil
}

func (s *Server) open() (err error) {
	if s.memory, err = s.cfg.Device.Alloc(wire.WordSize); err != nil {
		return err
	}
	if s.fabric, err = s.cfg.Device.Listen(s.cfg.Fabric); err != nil {
		return err
	}
	if s.metrics, err = newMetrics(s); err != nil {
		return err
	}
	s.control, err = control.ListenOr(s.cfg.Listener, s.cfg.Control, s.cfg.TLS != nil, s.cfg.Insecure)
	if err != nil {
		return err
	}
	handler := messages.Handler{Seal: func(m wire.Seal) (wire.Sealed, *layout.StoreState) { return s.sealed(m), nil }, Failed: s.refused}
	s.messages = messages.NewServer(handler, s.cfg.Device, rdma.Told(s.fabric.Addr(), s.cfg.Advertise, s.cfg.Device.Info()), s.cfg.TokenLife, s.log)
	s.grpc = control.Serve(append(s.calls.Options(), control.ServerOptions(s.cfg.TLS)...)...)
	services := control.Registrar(s.grpc, s.control)
	pb.RegisterSequencerServiceServer(services, service{s: s})
	pb.RegisterMessageServiceServer(services, s.messages)
	s.running.Go(func() { _ = s.grpc.Serve(s.control) })
	s.running.Go(s.accept)
	s.running.Go(s.watch)
	return nil
}

// ControlAddr is the host:port of the control service.
func (s *Server) ControlAddr() string { return s.control.Addr().String() }

// FabricAddr is the host:port that clients are told to dial.
func (s *Server) FabricAddr() string { return s.messages.Addr() }

// Health is nil while tokens can be taken; else it says why not.
func (s *Server) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if s.core.Phase() != seq.Open {
		return fmt.Errorf("sequencer is %v (promise %d): it waits for the layout service", s.core.Phase(), s.core.Promise())
	}
	return nil
}

// AnnounceStop tells the leader of the layout servers that the sequencer is being stopped on purpose: a standby takes over at once, or
// the log waits for this one to come back. It serves until Close. It fails with control.ErrNoLeader if nobody heard it.
func (s *Server) AnnounceStop(ctx context.Context) error { return s.notice.Announce(ctx) }

// Close stops the sequencer: the word is revoked, connections end. The promise stays. Idempotent.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.cancel()
		if s.grpc != nil {
			control.Stop(s.grpc, grace)
		}
		if s.fabric != nil {
			s.closing = errors.Join(s.closing, s.fabric.Close())
		}
		s.messages.Close()
		s.mu.Lock()
		s.core.Close()
		revoked := s.revoke()
		s.mu.Unlock()
		s.running.Wait()
		if s.metrics != nil {
			s.metrics.Unregister()
		}
		// What could not be revoked is leaked: a peer may still reach it.
		if s.memory != nil && revoked == nil {
			revoked = s.memory.Close()
		}
		s.closing = errors.Join(s.closing, revoked)
	})
	return s.closing
}

// seal does what seq.Seal says, in the order of rules R14 and R15.
func (s *Server) seal(log layout.LogID, n layout.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Now()
	fresh, err := s.core.CheckSeal(n)
	if err != nil || !fresh {
		return err
	}
	if err := s.promises.save(n); err != nil {
		return fmt.Errorf("make the promise of epoch %d durable: %w", n, err)
	}
	s.count()
	if err := s.core.Seal(n); err != nil {
		return err
	}
	if err := s.revoke(); err != nil {
		s.core.Close() // promised, but whoever asked must not go on: the old word may still hand out tokens
		return err
	}
	s.metrics.seals.Inc()
	s.metrics.sealSeconds.Observe(time.Since(began).Seconds())
	s.log.Info("sealed", "epoch", uint64(n), "log", log)
	return nil
}

// refused notes that a connection could not be made. Where resources are exhausted the sequencer is of no use to new clients, and says so.
func (s *Server) refused(err error) {
	if s.shortage.Note(err, time.Now()) {
		s.log.Warn("SHORTAGE: a client was turned away for want of RDMA resources", "err", err)
	}
}

// Sealers is how many layout servers may seal this sequencer over the fabric now.
func (s *Server) Sealers() int { return s.messages.Count(messages.Sealer) }

// sealed is seal as a message.
func (s *Server) sealed(m wire.Seal) wire.Sealed {
	var promised *seq.PromiseError
	err := s.seal(m.Log, m.Epoch)
	switch {
	case err == nil:
		return wire.Sealed{}
	case errors.As(err, &promised):
		return wire.Sealed{Status: wire.StatusPromised, Promise: promised.Promise}
	case errors.Is(err, layout.ErrInvalid):
		return wire.Sealed{Status: wire.StatusBadQuery}
	}
	s.log.Error("seal", "epoch", uint64(m.Epoch), "err", err)
	return wire.Sealed{Status: wire.StatusIO}
}

// count adds the open epoch's tokens to those of the earlier ones.
func (s *Server) count() {
	if s.core.Phase() == seq.Open {
		n, _ := s.core.Inspect(s.word())
		s.handed += n
	}
}

func (s *Server) word() wire.SeqWord { return wire.SeqWord(s.memory.Load(0)) }

// revoke makes the word unreachable, then ends the sessions.
func (s *Server) revoke() error {
	if s.region != nil {
		if err := s.region.Close(); err != nil {
			s.failed = fmt.Errorf("revoke the word: %w", err)
			return s.failed
		}
		s.region = nil
	}
	s.sessions.endAll()
	return nil
}

// activate publishes the word of epoch n, which starts at start.
func (s *Server) activate(log layout.LogID, n layout.Epoch, start layout.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	w, fresh, err := s.core.Activate(log, n, start)
	if err != nil || !fresh {
		return err
	}
	s.memory.Store(0, uint64(w)) // not registered now: the CPU may store (rule R1)
	s.region, err = s.cfg.Device.Register(s.memory, 0, wire.WordSize, rdma.RemoteRead|rdma.RemoteAtomic)
	if err != nil {
		s.core.Close()
		return fmt.Errorf("register the word: %w", err)
	}
	s.metrics.activations.Inc()
	s.log.Info("activated", "epoch", uint64(n), "start", uint64(start))
	return nil
}

// watch looks after the word: FETCH_ADDs of a client that is broken or hostile can carry it out of its epoch.
func (s *Server) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.inspect()
			s.sessions.expire(time.Now())
		}
	}
}

func (s *Server) inspect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.Phase() != seq.Open {
		return
	}
	_, err := s.core.Inspect(s.word())
	if err == nil {
		return
	}
	s.log.Error("the word is revoked: a new epoch is needed", "err", err)
	s.metrics.alarms.Inc()
	s.core.Close()
	_ = s.revoke()
}
