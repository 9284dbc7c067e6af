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
	"corfu/internal/wire/pb"
)

// grace is how long Close waits for calls.
const grace = 2 * time.Second

// Server is a running layout server.
type Server struct {
	cfg     Config
	log     *slog.Logger
	store   *store
	metrics *metrics
	manager *manager
	control net.Listener
	grpc    *grpc.Server
	others  *others
	calls   *control.Observer
	ctx     context.Context
	cancel  context.CancelFunc
	once    sync.Once
	closing error

	serving, managing sync.WaitGroup
}

// Start opens the store and begins to serve; the manager takes over once Raft has elected this server. ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: cfg.Logger, control: cfg.ControlListener, others: &others{options: cfg.DialOptions}, calls: control.Observe("layout", cfg.Logger)}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("layout server: %w", err), s.Close())
	}
	s.log.Info("layout server started", "id", cfg.ID, "of", len(s.store.servers), "control", s.ControlAddr(), "dir", cfg.Dir)
	return s, nil
}

func (s *Server) open() (err error) {
	if err := s.cfg.Validate(); err != nil {
		return err
	}
	if s.control, err = control.ListenOr(s.control, s.cfg.Control, s.cfg.TLS != nil, s.cfg.Insecure); err != nil {
		return err
	}
	if s.cfg.alone() {
		s.cfg.Control = s.ControlAddr() // which others are told
	}
	if s.store, err = openStore(s.cfg); err != nil {
		return err
	}
	if s.metrics, err = newMetrics(s.cfg.Registerer, s.store, s.calls.Collector()); err != nil {
		return err
	}
	s.manager = newManager(s.cfg, s.store, s.metrics)
	s.manager.others = s.others
	s.grpc = control.Serve(append(s.calls.Options(), control.ServerOptions(s.cfg.TLS)...)...)
	services := control.Registrar(s.grpc, s.control)
	pb.RegisterLayoutServiceServer(services, service{s: s})
	pb.RegisterLayoutServerServiceServer(services, stateService{s: s})
	s.serving.Go(func() { _ = s.grpc.Serve(s.control) })
	s.managing.Go(func() { s.manager.run(s.ctx) })
	s.managing.Go(func() { s.keepVoters(s.ctx) })
	return nil
}

// ControlAddr is the host:port of the gRPC service.
func (s *Server) ControlAddr() string { return s.control.Addr().String() }

// Health is nil while this server, as leader or as follower of one that it hears of, knows an active layout; else it says why not.
func (s *Server) Health() error {
	if err := s.store.ailing(); err != nil {
		return err
	}
	if _, err := s.store.verify(); err != nil && (s.store.leader().ID == 0 || s.store.contact() > healthyContact*s.cfg.Election) {
		return err
	}
	if l, _ := s.store.fsm.active.get(); l == nil {
		return fmt.Errorf("%w: %s", errNoEpoch, s.manager.status().phase)
	}
	if n := s.manager.repairer.lost(0); n > 0 {
		return fmt.Errorf("%d corrupt copies that no unit of their chain can restore: their positions cannot be read (the log names them; corfu trim gives them up)", n)
	}
	return nil
}

// healthyContact is how many election time-outs a healthy follower may go without news of its leader.
const healthyContact = 5

// Close stops the server. A reconfiguration in progress is aborted; all that was decided stays. Another server is asked to lead, where
// there are several. Idempotent.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.managing.Wait() // it still leads, and so can abort what it began
		if s.store != nil {
			s.store.handOver(s.log)
		}
		s.stopServing()
		s.others.close()
		if s.metrics != nil {
			s.metrics.Unregister()
		}
		if s.store != nil {
			s.closing = errors.Join(s.closing, s.store.close())
		}
		if l := s.cfg.RaftListener; l != nil {
			_ = l.Close() // Raft did, unless it never got that far
		}
	})
	return s.closing
}

func (s *Server) stopServing() {
	switch {
	case s.grpc != nil:
		control.Stop(s.grpc, grace)
		s.serving.Wait()
	case s.control != nil:
		s.closing = errors.Join(s.closing, s.control.Close())
	}
}
