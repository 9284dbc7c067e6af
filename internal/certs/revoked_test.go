package certs_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
)

// with are files that name a revocation list, too.
func with(f certs.Files, list string) certs.Files {
	f.CRL = list
	return f
}

func dial(s *certs.Source, addr string) (net.Conn, error) {
	return meet(func(ctx context.Context) (net.Conn, error) { return s.Dial(ctx, addr) })
}

// open fails if a connection is not.
func open(t *testing.T, what string, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2500 * time.Millisecond)) // lists are looked for every second
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestRevokedPeersAreTurnedAway(t *testing.T) {
	s := certstest.New(t, "corfu")
	stolen, other := s.Files(certs.Client, "stolen"), s.Files(certs.Client, "other")
	server := s.Load(with(s.Files(certs.Unit, "unit-1"), s.Revoke(stolen.Cert)))
	addr := greet(t, server)
	if c, err := dial(s.Load(stolen), addr); err == nil {
		t.Error("a revoked client is let in")
		_ = c.Close()
	}
	c, err := dial(s.Load(other), addr)
	if err != nil {
		t.Fatalf("another client: %v", err)
	}
	_ = c.Close()
	if r, ok := server.Revocations(); !ok || r.Listed != 1 || r.Refused != 1 || time.Until(r.Until) < certs.ListLife-time.Hour {
		t.Errorf("%+v, %v", r, ok)
	}
	// The same name gets another certificate, and that one is good.
	if c, err = dial(s.Source(certs.Client, "stolen"), addr); err != nil {
		t.Errorf("with a new certificate: %v", err)
	} else {
		_ = c.Close()
	}
}

func TestClientsTurnRevokedServersAway(t *testing.T) {
	s := certstest.New(t, "corfu")
	unit := s.Files(certs.Unit, "unit-1")
	addr := greet(t, s.Load(unit))
	client := s.Load(with(s.Files(certs.Client, "c"), s.Revoke(unit.Cert)))
	if c, err := dial(client, addr); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("a revoked server: %v", err)
		if c != nil {
			_ = c.Close()
		}
	}
}

func TestRevocationEndsWhatIsOpen(t *testing.T) {
	s := certstest.New(t, "corfu")
	stolen, other := s.Files(certs.Client, "stolen"), s.Files(certs.Client, "other")
	server := s.Load(with(s.Files(certs.Unit, "unit-1"), s.Revoke()))
	addr := greet(t, server)
	bad, err := dial(s.Load(stolen), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	good, err := dial(s.Load(other), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	open(t, "before", bad)
	s.Revoke(stolen.Cert)
	_ = bad.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := bad.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection of a revoked client: %v", err)
	}
	open(t, "another's connection", good)
	if c, err := dial(s.Load(stolen), addr); err == nil {
		t.Error("it comes back")
		_ = c.Close()
	}
}

func TestStandingIsToldOnceAndForgets(t *testing.T) {
	s := certstest.New(t, "corfu")
	one := s.Files(certs.Client, "one")
	x, err := certs.ReadCert(one.Cert)
	if err != nil {
		t.Fatal(err)
	}
	peer := tls.ConnectionState{PeerCertificates: []*x509.Certificate{x}}
	server := s.Load(with(s.Files(certs.Unit, "unit-1"), s.Revoke()))
	told := make(chan string, 8)
	note := func(what string) func() { return func() { told <- what } }
	server.Standing(peer).OnRevoked(note("forgotten"))()
	defer server.Standing(peer).OnRevoked(note("revoked"))()
	s.Revoke(one.Cert)
	select {
	case what := <-told:
		if what != "revoked" {
			t.Errorf("%s was told", what)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	defer server.Standing(peer).OnRevoked(note("at once"))()
	if what := <-told; what != "at once" {
		t.Errorf("%s was told", what)
	}
	select {
	case what := <-told:
		t.Errorf("%s was told, too", what)
	case <-time.After(50 * time.Millisecond):
	}
	var clear *certs.Standing
	clear.OnRevoked(note("a peer in clear"))()
	s.Source(certs.Unit, "without-a-list").Standing(peer).OnRevoked(note("without a list"))()
}

// sign makes a list that corfu certs revoke would not.
func sign(t *testing.T, s *certstest.Set, l x509.RevocationList) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, certs.AuthorityCert), filepath.Join(s.Dir, certs.AuthorityKey))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &l, pair.Leaf, pair.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "odd.crl")
	if err := certs.WriteList(path, x); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestListsOfNobodyAreRefused(t *testing.T) {
	s, stranger := certstest.New(t, "corfu"), certstest.New(t, "corfu") // their authorities have the same name
	f := s.Files(certs.Unit, "unit-1")
	good, err := os.ReadFile(s.Revoke())
	if err != nil {
		t.Fatal(err)
	}
	file := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "x.crl")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	now := time.Now()
	delta := []pkix.Extension{{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
	for name, x := range map[string]struct{ list, says string }{
		"another authority's": {stranger.Revoke(), "did not sign it"},
		"no file":             {filepath.Join(s.Dir, "none.crl"), "no such file"},
		"rubbish":             {file([]byte("rubbish")), "no PEM revocation list"},
		"a certificate":       {f.Cert, "no PEM revocation list"},
		"cut off":             {file(good[:len(good)/2]), "no PEM revocation list"},
		"a part of a list":    {sign(t, s, x509.RevocationList{Number: big.NewInt(9), ThisUpdate: now, NextUpdate: now.Add(time.Hour), ExtraExtensions: delta}), "critical"},
	} {
		_, err := certs.Load(with(f, x.list), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := certs.Load(certs.Files{CRL: s.Revoke()}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a list without certificates is taken")
	}
}

// What is in force stays: a bad list lets nobody in again, and keeps no certificate from being renewed.
func TestBadListsDoNotReplaceGoodOnes(t *testing.T) {
	s, stranger := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	stolen, client := s.Files(certs.Client, "stolen"), s.Source(certs.Client, "c")
	empty, err := os.ReadFile(s.Revoke())
	if err != nil {
		t.Fatal(err)
	}
	list := s.Revoke(stolen.Cert)
	server := s.Load(with(s.Files(certs.Unit, "unit-1"), list))
	addr := greet(t, server)
	foreign, err := os.ReadFile(stranger.Revoke())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"an older one": empty, "another authority's": foreign, "rubbish": []byte("rubbish"), "nothing": nil} {
		_, before := server.Reloads()
		if err := os.WriteFile(list, b, 0o644); err != nil {
			t.Fatal(err)
		}
		until(t, name+" is noticed", func() bool { _, failed := server.Reloads(); return failed > before })
		if c, err := dial(s.Load(stolen), addr); err == nil {
			t.Errorf("%s: a revoked client is let in", name)
			_ = c.Close()
		}
	}
	first := serial(t, client, addr)
	s.Files(certs.Unit, "unit-1")
	until(t, "the renewed certificate is shown", func() bool { return serial(t, client, addr) != first })
}

// While one authority replaces another of the same name, the file holds the lists of both, whatever their numbers.
func TestListsOfTwoAuthoritiesStandInOneFile(t *testing.T) {
	before, after := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	old, fresh := before.Files(certs.Client, "old"), after.Files(certs.Client, "fresh")
	before.Revoke()
	before.Revoke()
	before.Trust(after)
	path := filepath.Join(t.TempDir(), "both.crl")
	write := func(lists ...string) {
		var all []byte
		for _, l := range lists {
			b, err := os.ReadFile(l)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		if err := os.WriteFile(path, all, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(before.Revoke(old.Cert), after.Revoke())
	server := before.Load(with(before.Files(certs.Unit, "unit-1"), path))
	write(before.Revoke(), after.Revoke(fresh.Cert))
	until(t, "both are revoked", func() bool { r, _ := server.Revocations(); return r.Listed == 2 })
	addr := greet(t, server)
	fresh.CA = old.CA
	for name, f := range map[string]certs.Files{"of the old one": old, "of the new one": fresh} {
		if c, err := dial(before.Load(f), addr); err == nil {
			t.Errorf("%s: let in", name)
			_ = c.Close()
		}
	}
}

// And the other way round: half a pair of certificates does not keep a list from being taken over.
func TestListsAreTakenOverBesideBadCertificates(t *testing.T) {
	s := certstest.New(t, "corfu")
	stolen, f := s.Files(certs.Client, "stolen"), with(s.Files(certs.Unit, "unit-1"), s.Revoke())
	server := s.Load(f)
	if err := os.WriteFile(f.Cert, []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Revoke(stolen.Cert)
	until(t, "the list is in force", func() bool { r, _ := server.Revocations(); return r.Listed == 1 })
}

// A cluster does not stop because nobody signed a new list in time; metric and alert say so.
func TestStaleListsStayInForce(t *testing.T) {
	s := certstest.New(t, "corfu")
	stolen := s.Files(certs.Client, "stolen")
	list := s.RevokeFor(time.Millisecond, stolen.Cert)
	time.Sleep(1100 * time.Millisecond) // times in a list are whole seconds
	var log strings.Builder
	server, err := certs.Load(with(s.Files(certs.Unit, "unit-1"), list), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "too old") {
		t.Errorf("the log does not say so: %s", log.String())
	}
	if r, _ := server.Revocations(); r.Listed != 1 || !r.Until.Before(time.Now()) {
		t.Errorf("%+v", r)
	}
	addr := greet(t, server)
	if c, err := dial(s.Load(stolen), addr); err == nil {
		t.Error("a revoked client is let in")
		_ = c.Close()
	}
	if c, err := dial(s.Source(certs.Client, "c"), addr); err != nil {
		t.Errorf("another: %v", err)
	} else {
		_ = c.Close()
	}
}

func TestAuthorityRevokesItsOwn(t *testing.T) {
	s, stranger := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	a, err := certs.OpenAuthority(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) *x509.Certificate {
		c, err := certs.ReadCert(path)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	own := read(s.Files(certs.Client, "c").Cert)
	for what, x := range map[string]struct {
		c    *x509.Certificate
		good bool
	}{"its own": {own, true}, "another's": {read(stranger.Files(certs.Client, "c").Cert), false}, "itself": {read(filepath.Join(s.Dir, certs.AuthorityCert)), false}} {
		if err := a.Issued(x.c); (err == nil) != x.good {
			t.Errorf("%s: %v", what, err)
		}
	}
	first, err := a.Revoke(nil, []*big.Int{own.SerialNumber, own.SerialNumber}, time.Now(), time.Hour)
	if err != nil || len(first.RevokedCertificateEntries) != 1 || first.Number.Int64() != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := a.Revoke(first, []*big.Int{own.SerialNumber, big.NewInt(7)}, time.Now(), time.Hour)
	if err != nil || len(second.RevokedCertificateEntries) != 2 || second.Number.Int64() != 2 {
		t.Fatalf("%+v, %v", second, err)
	}
	if _, err := a.Revoke(nil, []*big.Int{new(big.Int)}, time.Now(), time.Hour); err == nil {
		t.Error("serial number 0 is taken")
	}
	if _, err := a.Revoke(nil, nil, time.Now(), 0); err == nil {
		t.Error("no life is taken")
	}
	if _, err := a.ReadList(stranger.Revoke()); err == nil {
		t.Error("another's list is taken")
	}
}
