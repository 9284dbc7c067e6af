package server

import (
	"context"
	"errors"
	"time"

	"corfu/rdma"
)

// pending is a connection that may be made with a token.
type pending struct {
	session *session
	role    role
}

const (
	acceptTimeout = 10 * time.Second
	maxAccepting  = 64 // handshakes at a time
)

// accept takes connections until the listener is closed.
func (s *Server) accept() {
	defer close(s.acceptDone)
	slots := make(chan struct{}, maxAccepting)
	for {
		req, err := s.listener.Accept(s.ctx)
		switch {
		case errors.Is(err, rdma.ErrClosed) || s.ctx.Err() != nil:
			return
		case err != nil:
			s.cfg.Logger.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond) // whatever it is, it must not spin
			continue
		}
		take, err := s.welcome(req)
		if err != nil {
			s.m.rejected.Inc()
			s.cfg.Logger.Debug("connection refused", "peer", req.RemoteAddr(), "token", err)
			_ = req.Reject("unknown, used or old token")
			continue
		}
		slots <- struct{}{}
		s.handshakes.Add(1)
		go func() {
			defer func() { <-slots; s.handshakes.Done() }()
			take()
		}()
	}
}

// welcome gives what makes the connection that the request's token is for.
func (s *Server) welcome(req rdma.Request) (func(), error) {
	if k, ok := s.messages.Redeem(req.Private()); ok {
		return func() { s.messages.Accept(req, k) }, nil
	}
	p, err := s.tokens.Redeem(req.Private(), time.Now())
	if err != nil {
		return nil, err
	}
	return func() { s.connect(req, p) }, nil
}

func (s *Server) connect(req rdma.Request, p pending) {
	ctx, cancel := context.WithTimeout(s.ctx, acceptTimeout)
	defer cancel()
	// A client rings for each of its slots, and for what it fills.
	depth := min(max(256, 2*s.mem.geo.SessionSlots), 4096)
	conn, err := req.Accept(ctx, rdma.ConnOptions{RecvDepth: depth})
	if err != nil {
		s.refused(err)
		p.session.fail(err)
		return
	}
	p.session.attach(p.role, conn)
}

// refused notes that a connection or a session could not be made. Where resources are exhausted the unit is of no use to new clients, and says so.
func (s *Server) refused(err error) {
	if s.shortage.Note(err, time.Now()) {
		s.cfg.Logger.Warn("SHORTAGE: a client was turned away for want of RDMA resources", "error", err)
	}
}
