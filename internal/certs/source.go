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
	stamps   []stamp
	looked   time.Time
	reloads  uint64
	failures uint64
	trouble  string // of the last attempt to read; "": none

	watched map[*watch]struct{} // what ends when its peer is revoked
	looking bool                // somebody looks for new lists
	refused uint64              // handshakes and connections of peers that are revoked
	said    map[certName]time.Time

	refusals refusals // handshakes of others that failed
}

// material is what one reading of the files gave.
type material struct {
	id          Identity
	pair        tls.Certificate
	authorities []*x509.Certificate
	pool        *x509.CertPool
	revoked     revocations
}

// stamp tells whether a file changed.
type stamp struct {
	time time.Time
	size int64
	file os.FileInfo
}

// Load reads the files. It fails if they do not fit each other, if the certificate names nobody of a cluster, or if it ended. A revocation list that ought
// to have been replaced is taken all the same: whom it names stays out, and the log says so.
func Load(f Files, log *slog.Logger) (*Source, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	s := &Source{files: f, log: log, watched: map[*watch]struct{}{}, said: map[certName]time.Time{}}
	stamps, err := s.look()
	if err != nil {
		return nil, err
	}
	m, err := read(f, time.Now())
	if err != nil {
		return nil, err
	}
	if f.CRL != "" {
		if m.revoked, err = readRevocations(f.CRL, m.authorities, revocations{}); err != nil {
			return nil, err
		}
	}
	s.now, s.stamps, s.looked = m, stamps, time.Now()
	s.sayIfStale()
	return s, nil
}

func read(f Files, now time.Time) (m material, err error) {
	if m.authorities, err = readCerts(f.CA); err != nil {
		return m, err
	}
	m.pool = x509.NewCertPool()
	for _, c := range m.authorities {
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
	if err := checkUsage(m.pair.Leaf, m.id.Role); err != nil {
		return m, fmt.Errorf("%s: %w", f.Cert, err)
	}
	o := x509.VerifyOptions{Roots: m.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: m.id.Role.usages()}
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

func (s *Source) look() (stamps []stamp, err error) {
	paths := []string{s.files.CA, s.files.Cert, s.files.Key}
	if s.files.CRL != "" {
		paths = append(paths, s.files.CRL)
	}
	for _, path := range paths {
		x, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		stamps = append(stamps, stamp{x.ModTime(), x.Size(), x})
	}
	return stamps, nil
}

func same(a, b []stamp) bool {
	for i := range a {
		if !a[i].time.Equal(b[i].time) || a[i].size != b[i].size || !os.SameFile(a[i].file, b[i].file) {
			return false
		}
	}
	return true
}

// current is what the files say. Where they cannot be read, or do not fit each other, what they said before stays: somebody is at work
// on them, and the next look tries again. Certificates and revocation lists do not wait for each other: neither may keep the other from being taken over.
func (s *Source) current() material {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew()
	return s.now
}

// renew takes over what changed in the files. mu is held.
func (s *Source) renew() {
	now := time.Now()
	if now.Sub(s.looked) < lookEvery {
		return
	}
	s.looked = now
	stamps, err := s.look()
	if err == nil && same(stamps, s.stamps) {
		return
	}
	if e := errors.Join(s.takeCerts(now), s.takeLists()); e != nil {
		err = e // says more than that a file is missing
	}
	if err != nil {
		s.failures++
		if text := err.Error(); text != s.trouble {
			s.trouble = text
			s.log.Error("not taken over from the files of TLS: what was read before stays in use", "err", err)
		}
		return
	}
	s.stamps, s.trouble = stamps, ""
	s.reloads++
	s.log.Info("certificates taken over", "identity", s.now.id.String(), "until", s.now.pair.Leaf.NotAfter, "revoked", len(s.now.revoked.names))
	s.sayIfStale()
}

func (s *Source) takeCerts(now time.Time) error {
	m, err := read(s.files, now)
	if err != nil {
		return err
	}
	if m.id.Cluster != s.now.id.Cluster || m.id.Role != s.now.id.Role {
		return fmt.Errorf("%s is now of %v, it was of %v: restart for that: %w", s.files.Cert, m.id, s.now.id, ErrIdentity)
	}
	m.revoked = s.now.revoked
	s.now = m
	return nil
}

func (s *Source) takeLists() error {
	if s.files.CRL == "" {
		return nil
	}
	r, err := readRevocations(s.files.CRL, s.now.authorities, s.now.revoked)
	if err != nil {
		return err
	}
	s.now.revoked = r
	for w := range s.watched {
		s.endIfRevoked(w)
	}
	return nil
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
				Certificates: []tls.Certificate{m.pair}, ClientCAs: m.pool, ClientAuth: tls.RequireAnyClientCert, // verified by chains
				VerifyConnection: func(cs tls.ConnectionState) error {
					if err := m.chains(cs); err != nil {
						return err
					}
					return s.verify(m, roles)(cs)
				},
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
		Certificates: []tls.Certificate{m.pair}, RootCAs: m.pool, VerifyConnection: s.verify(m, roles),
	}
}

// verify looks at what TLS itself does not know: cluster, role, and who is revoked.
func (s *Source) verify(m material, roles []Role) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		id, err := Peer(cs)
		switch {
		case err != nil:
			return err
		case id.Cluster != m.id.Cluster:
			return fmt.Errorf("peer %v: this is cluster %s: %w", id, m.id.Cluster, ErrIdentity)
		case m.revoked.has(cs.PeerCertificates):
			s.refuse(cs.PeerCertificates[0])
			return fmt.Errorf("peer %v: %w", id, ErrRevoked)
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
