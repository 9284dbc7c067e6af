// Package certstest makes certificates for tests.
package certstest

import (
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"corfu/internal/certs"
)

// Set is an authority in a directory of the test, and what it signed.
type Set struct {
	t   testing.TB
	Dir string
	now time.Time
}

// New makes an authority for a cluster.
func New(t testing.TB, cluster string) *Set {
	t.Helper()
	s := &Set{t, t.TempDir(), time.Now()}
	p, err := certs.Init(cluster, s.now, certs.AuthorityLife)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(filepath.Join(s.Dir, certs.AuthorityCert), filepath.Join(s.Dir, certs.AuthorityKey), false); err != nil {
		t.Fatal(err)
	}
	return s
}

// Files are those of an identity on 127.0.0.1 and localhost; they are made, or made anew, for an hour.
func (s *Set) Files(role certs.Role, name string) certs.Files {
	return s.FilesFor(role, name, time.Hour)
}

// FilesFor is Files for another life, which begins now.
func (s *Set) FilesFor(role certs.Role, name string, life time.Duration) certs.Files {
	s.t.Helper()
	a, err := certs.OpenAuthority(s.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := a.Issue(role, name, []string{"127.0.0.1", "localhost"}, time.Now(), life)
	if err != nil {
		s.t.Fatal(err)
	}
	f := certs.Files{CA: filepath.Join(s.Dir, certs.AuthorityCert), Cert: filepath.Join(s.Dir, name+".crt"), Key: filepath.Join(s.Dir, name+".key")}
	if err := p.Write(f.Cert, f.Key, true); err != nil {
		s.t.Fatal(err)
	}
	return f
}

// Ended are files of a certificate that was good until a minute ago.
func (s *Set) Ended(role certs.Role, name string) certs.Files {
	s.t.Helper()
	a, err := certs.OpenAuthority(s.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := a.Issue(role, name, []string{"127.0.0.1"}, time.Now().Add(-2*time.Minute), time.Minute)
	if err != nil {
		s.t.Fatal(err)
	}
	f := certs.Files{CA: filepath.Join(s.Dir, certs.AuthorityCert), Cert: filepath.Join(s.Dir, name+".crt"), Key: filepath.Join(s.Dir, name+".key")}
	if err := p.Write(f.Cert, f.Key, true); err != nil {
		s.t.Fatal(err)
	}
	return f
}

// Source is the identity itself.
func (s *Set) Source(role certs.Role, name string) *certs.Source {
	s.t.Helper()
	return s.Load(s.Files(role, name))
}

// Load reads files that must be good.
func (s *Set) Load(f certs.Files) *certs.Source {
	s.t.Helper()
	x, err := certs.Load(f, slog.New(slog.NewTextHandler(s.t.Output(), nil)))
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// Revoke puts certificates on the authority's list, which is made if there is none, and gives its file: for Files.CRL.
func (s *Set) Revoke(certificates ...string) string {
	s.t.Helper()
	return s.RevokeFor(certs.ListLife, certificates...)
}

// RevokeFor is Revoke for a list that ought to be replaced after life.
func (s *Set) RevokeFor(life time.Duration, certificates ...string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, certs.RevocationList)
	a, err := certs.OpenAuthority(s.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	before, err := a.ReadList(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	var serials []*big.Int
	for _, c := range certificates {
		x, err := certs.ReadCert(c)
		if err != nil {
			s.t.Fatal(err)
		}
		serials = append(serials, x.SerialNumber)
	}
	l, err := a.Revoke(before, serials, time.Now(), life)
	if err == nil {
		err = certs.WriteList(path, l)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Trust makes the files of this set's authority name that of another as well.
func (s *Set) Trust(other *Set) {
	s.t.Helper()
	path := filepath.Join(s.Dir, certs.AuthorityCert)
	var all []byte
	for _, p := range []string{path, filepath.Join(other.Dir, certs.AuthorityCert)} {
		b, err := os.ReadFile(p)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, b...)
	}
	if err := os.WriteFile(path, all, 0o644); err != nil {
		s.t.Fatal(err)
	}
}
