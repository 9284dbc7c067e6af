package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/internal/certs"
	"corfu/internal/tickets"
	"corfu/layout"
	"corfu/rdma"
)

// errFull: too many sessions. Come back later, or raise MaxSessions.
var errFull = errors.New("no free session: as many clients as max_sessions of the sequencer has")

// errTooMany: this identity has as many sessions as it may.
var errTooMany = errors.New("this identity has as many sessions as max_sessions_per_identity of the sequencer lets it have")

// sessions are the tokens handed out and the connections made with them. A seal ends all of both.
type sessions struct {
	life       time.Duration
	limit      int
	ofIdentity int // limit of those of one identity

	mu     sync.Mutex
	era    uint64 // of seals: a token or a handshake of an older one is void
	tokens tickets.Office[holder]
	conns  map[rdma.Conn]struct{}
	ofWhom map[string]int // tokens and connections of each identity
	closed sync.WaitGroup
}

// holder is whom a token or connection was given to.
type holder struct {
	client   layout.ClientID
	whose    string          // identity, as TLS had it; "": in clear
	standing *certs.Standing // of that one: its connections end when it is revoked
}

func newSessions(c Config) *sessions {
	return &sessions{life: c.TokenLife, limit: c.MaxSessions, ofIdentity: c.MaxOfIdentity, conns: map[rdma.Conn]struct{}{}, ofWhom: map[string]int{}}
}

// issue makes a token. It fails with errFull or errTooMany.
func (s *sessions) issue(h holder, now time.Time) (tickets.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens.Len()+len(s.conns) >= s.limit {
		return tickets.Token{}, fmt.Errorf("%d in use: %w", s.limit, errFull)
	}
	if h.whose != "" && s.ofWhom[h.whose] >= s.ofIdentity {
		return tickets.Token{}, fmt.Errorf("%s, %d: %w", h.whose, s.ofIdentity, errTooMany)
	}
	s.charge(h, 1)
	return s.tokens.Issue(h, now.Add(s.life)), nil
}

// charge notes n more tokens and connections of an identity. mu is held.
func (s *sessions) charge(h holder, n int) {
	if h.whose == "" {
		return
	}
	if s.ofWhom[h.whose] += n; s.ofWhom[h.whose] <= 0 {
		delete(s.ofWhom, h.whose)
	}
}

// redeem takes the token of a connection request: it is good once. The connection counts as the holder's until add, or drop, was called.
func (s *sessions) redeem(private []byte, now time.Time) (h holder, era uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.Expire(now, func(h holder) { s.charge(h, -1) })
	h, err = s.tokens.Redeem(private, now)
	return h, s.era, err
}

// drop says that nothing became of a token that was redeemed in an era.
func (s *sessions) drop(h holder, era uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.era == era {
		s.charge(h, -1)
	}
}

// add keeps a connection until it breaks, unless a seal came in between.
func (s *sessions) add(c rdma.Conn, h holder, era uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.era != era {
		return false
	}
	s.conns[c] = struct{}{}
	s.closed.Go(func() {
		forget := h.standing.OnRevoked(func() { _ = c.Close() })
		<-c.Broken()
		forget()
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		if s.era == era {
			s.charge(h, -1)
		}
		s.mu.Unlock()
	})
	return true
}

// expire forgets tokens that nobody used.
func (s *sessions) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.Expire(now, func(h holder) { s.charge(h, -1) })
}

// endAll voids all tokens and closes all connections.
func (s *sessions) endAll() {
	s.mu.Lock()
	s.era++
	s.tokens.DropAll()
	clear(s.ofWhom)
	open := make([]rdma.Conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	s.closed.Wait()
}

func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// wordConn are the options of a client's connection: it carries FETCH_ADDs and READs of one word, and no messages.
var wordConn = rdma.ConnOptions{SendDepth: 1, RecvDepth: 1, MaxMessage: 64}

// accept lets clients in that bring a token.
func (s *Server) accept() {
	for {
		r, err := s.fabric.Accept(s.ctx)
		if err != nil {
			if s.ctx.Err() == nil {
				s.log.Error("accept", "err", err)
			}
			return
		}
		s.running.Go(func() { s.welcome(r) })
	}
}

func (s *Server) welcome(r rdma.Request) {
	if k, ok := s.messages.Redeem(r.Private()); ok {
		s.messages.Accept(r, k)
		return
	}
	h, era, err := s.sessions.redeem(r.Private(), time.Now())
	if err != nil {
		s.metrics.rejected.Inc()
		s.log.Debug("connection refused", "peer", r.RemoteAddr(), "token", err)
		_ = r.Reject("token unknown, used or too old: open a new session")
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	c, err := r.Accept(ctx, wordConn)
	if err != nil {
		s.sessions.drop(h, era)
		s.refused(err)
		s.log.Debug("connection failed", "peer", r.RemoteAddr(), "err", err)
		return
	}
	if !s.sessions.add(c, h, era) {
		_ = c.Close()
		return
	}
	s.metrics.connections.Inc()
	s.log.Debug("connected", "peer", r.RemoteAddr(), "client", uint32(h.client), "identity", h.whose)
}
