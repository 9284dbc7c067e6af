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
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
	closing error
}

// Start opens the store and begins to serve; the manager takes over once Raft has elected this server. ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("layout server: %w", err)
	}
	l, err := control.ListenOr(cfg.Listener, cfg.Control, len(cfg.ServerOptions) > 0, cfg.Insecure)
	if err != nil {
		return nil, fmt.Errorf("layout server: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, control: l}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("layout server: %w", err), s.Close())
	}
	s.log.Info("layout server started", "control", s.ControlAddr(), "dir", cfg.Dir)
	return s, nil
}

func (s *Server) open() (err error) {
	if s.store, err = openStore(s.cfg); err != nil {
		return err
	}
	if s.metrics, err = newMetrics(s.cfg.Registerer, s.store); err != nil {
		return err
	}
	s.manager = newManager(s.cfg, s.store, s.metrics)
	s.grpc = control.Serve(s.cfg.ServerOptions...)
	pb.RegisterLayoutServiceServer(control.Registrar(s.grpc, s.control), service{s: s})
	s.running.Go(func() { _ = s.grpc.Serve(s.control) })
	s.running.Go(func() { s.manager.run(s.ctx) })
	return nil
}

// ControlAddr is the host:port of the gRPC service.
func (s *Server) ControlAddr() string { return s.control.Addr().String() }

// Health is nil while this server answers for an active layout; else it says why not.
func (s *Server) Health() error {
	if err := s.store.verify(); err != nil {
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

// Close stops the server. A reconfiguration in progress is aborted; all that was decided stays. Idempotent.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.cancel()
		if s.grpc != nil {
			control.Stop(s.grpc, grace)
		} else {
			s.closing = errors.Join(s.closing, s.control.Close())
		}
		s.running.Wait()
		if s.metrics != nil {
			s.metrics.Unregister()
		}
		if s.store != nil {
			s.closing = errors.Join(s.closing, s.store.close())
		}
	})
	return s.closing
}
