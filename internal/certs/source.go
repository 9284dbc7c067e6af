package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// lookEvery is how often the files are looked at, at most: a handshake takes longer than that.
const lookEvery = 100 * time.Millisecond

// Source is who this process is and whom it believes, as its files say now. Safe for many goroutines.
type Source struct {
	files Files
	log   *slog.Logger

	mu       sync.Mutex
	now      material
	stamps   [3]stamp
	looked   time.Time
	reloads  uint64
	failures uint64
	trouble  string // of the last attempt to read; "": none
}

// material is what one reading of the files gave.
type material struct {
	id   Identity
	pair tls.Certificate
	pool *x509.CertPool
}

// stamp tells whether a file changed.
type stamp struct {
	time time.Time
	size int64
	file os.FileInfo
}

// Load reads the files. It fails if they do not fit each other, if the certificate names nobody of a cluster, or if it ended.
func Load(f Files, log *slog.Logger) (*Source, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	s := &Source{files: f, log: log}
	stamps, err := s.look()
	if err != nil {
		return nil, err
	}
	m, err := read(f, time.Now())
	if err != nil {
		return nil, err
	}
	s.now, s.stamps, s.looked = m, stamps, time.Now()
	return s, nil
}

func read(f Files, now time.Time) (m material, err error) {
	authorities, err := readCerts(f.CA)
	if err != nil {
		return m, err
	}
	m.pool = x509.NewCertPool()
	for _, c := range authorities {
		m.pool.AddCert(c)
	}
	if err := private(f.Key); err != nil {
		return m, err
	}
	if m.pair, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return m, fmt.Errorf("%s, %s: %w", f.Cert, f.Key, err)
	}
	if m.id, err = IdentityOf(m.pair.Leaf); err != nil {
		return m, fmt.Errorf("%s: %w", f.Cert, err)
	}
	if now.After(m.pair.Leaf.NotAfter) {
		return m, fmt.Errorf("%s ended at %s: renew it (corfu certs renew)", f.Cert, m.pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	o := x509.VerifyOptions{Roots: m.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, der := range m.pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(c)
		}
	}
	if _, err := m.pair.Leaf.Verify(o); err != nil {
		return m, fmt.Errorf("%s is not of an authority in %s: %w", f.Cert, f.CA, err)
	}
	return m, nil
}

func (s *Source) look() (stamps [3]stamp, err error) {
	for i, path := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		x, err := os.Stat(path)
		if err != nil {
			return stamps, err
		}
		stamps[i] = stamp{x.ModTime(), x.Size(), x}
	}
	return stamps, nil
}

func same(a, b [3]stamp) bool {
	for i := range a {
		if !a[i].time.Equal(b[i].time) || a[i].size != b[i].size || !os.SameFile(a[i].file, b[i].file) {
			return false
		}
	}
	return true
}

// current is what the files say. Where they cannot be read, or do not fit each other, what they said before stays: somebody is at work
// on them, and the next look tries again.
func (s *Source) current() material {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.looked) < lookEvery {
		return s.now
	}
	s.looked = now
	stamps, err := s.look()
	if err == nil && same(stamps, s.stamps) {
		return s.now
	}
	var m material
	if err == nil {
		m, err = read(s.files, now)
	}
	if err == nil && (m.id.Cluster != s.now.id.Cluster || m.id.Role != s.now.id.Role) {
		err = fmt.Errorf("%s is now of %v, it was of %v: restart for that: %w", s.files.Cert, m.id, s.now.id, ErrIdentity)
	}
	if err != nil {
		s.failures++
		if text := err.Error(); text != s.trouble {
			s.trouble = text
			s.log.Error("certificates are not taken over: those read before stay in use", "err", err)
		}
		return s.now
	}
	s.now, s.stamps, s.trouble = m, stamps, ""
	s.reloads++
	s.log.Info("certificates taken over", "identity", m.id.String(), "until", m.pair.Leaf.NotAfter)
	return s.now
}

// Identity is this process's own.
func (s *Source) Identity() Identity { return s.current().id }

// NotAfter is when this process's certificate ends.
func (s *Source) NotAfter() time.Time { return s.current().pair.Leaf.NotAfter }

// Reloads counts how often the files were taken over anew, and how often that failed.
func (s *Source) Reloads() (done, failed uint64) {
	s.current()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads, s.failures
}

// Server is a configuration for listeners: TLS 1.3, a certificate of this cluster is asked of every peer, of one of the roles if any is named.
// protocols are for ALPN.
func (s *Source) Server(protocols []string, roles ...Role) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := s.current()
			return &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: protocols,
				Certificates: []tls.Certificate{m.pair}, ClientCAs: m.pool, ClientAuth: tls.RequireAndVerifyClientCert,
				VerifyConnection:       m.verify(roles),
				SessionTicketsDisabled: true, // a resumed session would carry an identity past a change of the files
			}, nil
		},
	}
}

// Client is a configuration for one dial to a host, which must have one of the roles if any is named.
func (s *Source) Client(host string, protocols []string, roles ...Role) *tls.Config {
	m := s.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, ServerName: host,
		Certificates: []tls.Certificate{m.pair}, RootCAs: m.pool, VerifyConnection: m.verify(roles),
	}
}

// verify looks at what TLS itself does not know: cluster and role.
func (m material) verify(roles []Role) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		id, err := Peer(cs)
		switch {
		case err != nil:
			return err
		case id.Cluster != m.id.Cluster:
			return fmt.Errorf("peer %v: this is cluster %s: %w", id, m.id.Cluster, ErrIdentity)
		case len(roles) > 0 && !slices.Contains(roles, id.Role):
			return fmt.Errorf("peer %v: only %v may be there: %w", id, roles, ErrIdentity)
		}
		return nil
	}
}

// Peer is who is at the other end of a connection. It fails with ErrIdentity.
func Peer(cs tls.ConnectionState) (Identity, error) {
	if len(cs.PeerCertificates) == 0 {
		return Identity{}, errors.Join(errors.New("the peer has no certificate"), ErrIdentity)
	}
	return IdentityOf(cs.PeerCertificates[0])
}
