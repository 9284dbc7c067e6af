package certs

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// refusalBurst is how many refused handshakes the log tells of at once; after that there is one
	// line for each refusalEvery.
	refusalBurst = 10
	refusalEvery = 6 * time.Second
	// refusalPeers is how many peers are remembered, so that each is named once in sayEvery.
	refusalPeers = 1024
)

// refusals bounds what the log says of refused handshakes: a peer that is turned away comes again,
// several times a second. The zero value is ready for use.
type refusals struct {
	mu     sync.Mutex
	said   map[string]time.Time // by host and reason
	budget float64              // lines that may be said now, up to refusalBurst
	filled time.Time            // when budget was reckoned
	silent uint64               // refused since the last line, without a line of their own
	total  uint64
}

// take counts a refusal, and reports whether it has a line of its own, and how many had none since
// the last line.
func (r *refusals) take(host, why string, now time.Time) (say bool, silent uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	if r.filled.IsZero() {
		r.budget = refusalBurst
	} else {
		r.budget = min(refusalBurst, r.budget+float64(now.Sub(r.filled))/float64(refusalEvery))
	}
	r.filled = now
	key := host + " " + why
	if last, ok := r.said[key]; ok && now.Sub(last) < sayEvery || r.budget < 1 {
		r.silent++
		return false, 0
	}
	if len(r.said) >= refusalPeers {
		r.said = nil
	}
	if r.said == nil {
		r.said = map[string]time.Time{}
	}
	r.said[key] = now
	r.budget--
	silent, r.silent = r.silent, 0
	return true, silent
}

// HandshakeRefused tells the log of a peer whose handshake at this server failed with err, at a
// bounded rate. A peer that went away, and one that is revoked, which has a line of its own, are
// none.
func (s *Source) HandshakeRefused(c net.Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, ErrRevoked) {
		return
	}
	peer := c.RemoteAddr().String()
	host, _, bad := net.SplitHostPort(peer)
	if bad != nil {
		host = peer
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("the peer did not say who it is in time")
	}
	if say, silent := s.refusals.take(host, err.Error(), time.Now()); say {
		s.log.Warn("a TLS handshake is refused", "peer", peer, "at", c.LocalAddr().String(), "err", err, "others_since", silent)
	}
}

// HandshakesRefused returns how many handshakes of peers this server has refused, revoked ones not
// counted.
func (s *Source) HandshakesRefused() uint64 {
	s.refusals.mu.Lock()
	defer s.refusals.mu.Unlock()
	return s.refusals.total
}
