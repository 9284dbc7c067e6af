package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/layout"
	"corfu/rdma"
)

// tokenSize is the size of a session's token in bytes. It is a secret: who has it may connect, once.
const tokenSize = 16

type token [tokenSize]byte

// errFull: too many sessions. Come back later, or raise MaxSessions.
var errFull = errors.New("no free session")

// sessions are the tokens handed out and the connections made with them. A seal ends all of both.
type sessions struct {
	life  time.Duration
	limit int

	mu     sync.Mutex
	era    uint64 // of seals: a token or a handshake of an older one is void
	tokens map[token]ticket
	conns  map[rdma.Conn]struct{}
	closed sync.WaitGroup
}

type ticket struct {
	client  layout.ClientID
	expires time.Time
}

func newSessions(c Config) *sessions {
	return &sessions{life: c.TokenLife, limit: c.MaxSessions, tokens: map[token]ticket{}, conns: map[rdma.Conn]struct{}{}}
}

// issue makes a token. It fails with errFull.
func (s *sessions) issue(c layout.ClientID, now time.Time) (token, error) {
	var t token
	if _, err := rand.Read(t[:]); err != nil {
		return t, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens)+len(s.conns) >= s.limit {
		return t, fmt.Errorf("%d in use: %w", s.limit, errFull)
	}
	s.tokens[t] = ticket{c, now.Add(s.life)}
	return t, nil
}

// redeem takes the token of a connection request: it is good once.
func (s *sessions) redeem(private []byte, now time.Time) (c layout.ClientID, era uint64, ok bool) {
	if len(private) != tokenSize {
		return 0, 0, false
	}
	t := token(private)
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.tokens[t]
	delete(s.tokens, t)
	return k.client, s.era, ok && now.Before(k.expires)
}

// add keeps a connection until it breaks, unless a seal came in between.
func (s *sessions) add(c rdma.Conn, era uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.era != era {
		return false
	}
	s.conns[c] = struct{}{}
	s.closed.Go(func() {
		<-c.Broken()
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
	return true
}

// expire forgets tokens that nobody used.
func (s *sessions) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, k := range s.tokens {
		if now.After(k.expires) {
			delete(s.tokens, t)
		}
	}
}

// endAll voids all tokens and closes all connections.
func (s *sessions) endAll() {
	s.mu.Lock()
	s.era++
	clear(s.tokens)
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
	client, era, ok := s.sessions.redeem(r.Private(), time.Now())
	if !ok {
		s.metrics.rejected.Inc()
		_ = r.Reject("token unknown, used or too old: open a new session")
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	c, err := r.Accept(ctx, wordConn)
	if err != nil {
		s.log.Debug("connection failed", "peer", r.RemoteAddr(), "err", err)
		return
	}
	if !s.sessions.add(c, era) {
		_ = c.Close()
		return
	}
	s.metrics.connections.Inc()
	s.log.Debug("connected", "peer", r.RemoteAddr(), "client", uint32(client))
}
