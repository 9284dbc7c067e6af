package certs

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// watchEvery is how often new revocation lists are looked for while somebody is connected: a handshake, which looks as well, may be long in coming.
const watchEvery = time.Second

// Standing is a peer whose certificates were good at its handshake, and may be revoked since. A nil Standing, that of a peer in clear, never is.
type Standing struct {
	source *Source
	chain  []*x509.Certificate
}

// Standing of the peer at the other end of a connection.
func (s *Source) Standing(cs tls.ConnectionState) *Standing { return &Standing{s, cs.PeerCertificates} }

// watch is what ends with a peer's standing.
type watch struct {
	chain []*x509.Certificate
	end   func()
}

// OnRevoked calls end once if the peer is revoked, now or later, unless forget was called before. end may be called from any goroutine.
func (p *Standing) OnRevoked(end func()) (forget func()) {
	if p == nil || p.source.files.CRL == "" {
		return func() {}
	}
	s, w := p.source, &watch{p.chain, end}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched[w] = struct{}{}
	s.endIfRevoked(w) // that one alone: after a seal thousands come at once
	if !s.looking {
		s.looking = true
		go s.lookForLists()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watched, w)
	}
}

// lookForLists looks at the files for as long as there is something that a new list could end.
func (s *Source) lookForLists() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for range tick.C {
		if !s.lookOnce() {
			return
		}
	}
}

// lookOnce looks at the files, unless nothing is watched any more.
func (s *Source) lookOnce() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = len(s.watched) > 0
	if s.looking {
		s.renew()
	}
	return s.looking
}

// endIfRevoked ends what w watches if its peer is revoked. mu is held.
func (s *Source) endIfRevoked(w *watch) {
	if s.now.revoked.has(w.chain) {
		delete(s.watched, w)
		s.refused++
		s.say(w.chain[0])
		go w.end() // it may call forget, or wait for a network
	}
}

// refuse notes a handshake of a peer that is revoked.
func (s *Source) refuse(c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	s.say(c)
}

// sayEvery is how often the log tells of one certificate: who is turned away tries again several times a second.
const sayEvery = time.Minute

// say tells the log of a revoked peer. mu is held.
func (s *Source) say(c *x509.Certificate) {
	n, now := nameOf(c), time.Now()
	if now.Sub(s.said[n]) < sayEvery {
		return
	}
	s.said[n] = now
	id, _ := IdentityOf(c)
	s.log.Warn("a revoked certificate is turned away, and what was open of it ends", "peer", id.String(), "serial", n.serial)
}

// Revoked tells whether this process's own certificate is on a list: everybody turns it away.
func (s *Source) Revoked() bool {
	m := s.current()
	return m.revoked.has([]*x509.Certificate{m.pair.Leaf})
}

// Revocations are what the lists say, and what came of them. ok: there are lists.
type Revocations struct {
	Listed  int       // certificates that are revoked
	Until   time.Time // when the first of the lists ought to be replaced
	Refused uint64    // handshakes of such certificates that failed, and connections and sessions that were ended
}

// Revocations of this process; ok is false without lists.
func (s *Source) Revocations() (r Revocations, ok bool) {
	m := s.current()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Revocations{len(m.revoked.names), m.revoked.until, s.refused}, s.files.CRL != ""
}

// sayIfStale warns of a list that ought to have been replaced. It is in force all the same: a cluster does not stop because nobody signed a new one.
func (s *Source) sayIfStale() {
	if until := s.now.revoked.until; !until.IsZero() && time.Now().After(until) {
		s.log.Warn("the revocation list is too old: who was revoked since is let in (corfu certs revoke makes a new one)", "file", s.files.CRL, "until", until)
	}
}
