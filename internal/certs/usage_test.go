package certs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
)

// signedFor returns the files of an identity whose certificate has these extended key usages, as
// another authority might sign it.
func signedFor(t *testing.T, s *certstest.Set, role certs.Role, name string, usages ...x509.ExtKeyUsage) certs.Files {
	t.Helper()
	f := s.Files(role, name)
	c, err := certs.ReadCert(f.Cert)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, certs.AuthorityCert), filepath.Join(s.Dir, certs.AuthorityKey))
	if err != nil {
		t.Fatal(err)
	}
	c.ExtKeyUsage = usages
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Leaf, c.PublicKey, ca.PrivateKey)
	if err == nil {
		err = os.WriteFile(f.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	serverAuth  = x509.ExtKeyUsageServerAuth
	clientAuth  = x509.ExtKeyUsageClientAuth
	codeSigning = x509.ExtKeyUsageCodeSigning
)

func TestUsageIsJudgedAtTheStart(t *testing.T) {
	s := certstest.New(t, "corfu")
	for i, x := range []struct {
		role   certs.Role
		usages []x509.ExtKeyUsage
		lacks  string // "" means that the certificate is good
	}{
		{certs.Unit, []x509.ExtKeyUsage{serverAuth, clientAuth}, ""},
		{certs.Unit, []x509.ExtKeyUsage{serverAuth}, ""},
		{certs.Unit, nil, ""},
		{certs.Unit, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, ""},
		{certs.Unit, []x509.ExtKeyUsage{clientAuth}, "its extended key usage is clientAuth, and a certificate of role unit needs serverAuth"},
		{certs.Seq, []x509.ExtKeyUsage{clientAuth}, "role seq needs serverAuth"},
		{certs.Layout, []x509.ExtKeyUsage{clientAuth, codeSigning}, "clientAuth, codeSigning, and a certificate of role layout needs serverAuth"},
		{certs.Client, []x509.ExtKeyUsage{clientAuth}, ""},
		{certs.Client, []x509.ExtKeyUsage{serverAuth}, ""},
		{certs.Admin, []x509.ExtKeyUsage{codeSigning}, "its extended key usage is codeSigning, and a certificate of role admin needs clientAuth or serverAuth"},
		{certs.Monitor, []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, "role monitor needs clientAuth or serverAuth"},
	} {
		f := signedFor(t, s, x.role, string(x.role)+"-"+string(rune('a'+i)), x.usages...)
		_, err := certs.Load(f, slog.New(slog.DiscardHandler))
		switch {
		case x.lacks == "" && err != nil:
			t.Errorf("%s with %v: %v", x.role, x.usages, err)
		case x.lacks != "" && (!errors.Is(err, certs.ErrUsage) || !strings.HasPrefix(err.Error(), f.Cert+": ") || !strings.Contains(err.Error(), x.lacks)):
			t.Errorf("%s with %v: %v, want %s: … %s", x.role, x.usages, err, f.Cert, x.lacks)
		}
	}
}

// A caller's certificate may be for either side of TLS, and for no other use.
func TestCallersAreLetInByEitherUsage(t *testing.T) {
	s := certstest.New(t, "corfu")
	addr := greet(t, s.Source(certs.Layout, "layout-1"))
	for name, x := range map[string]struct {
		usages []x509.ExtKeyUsage
		good   bool
	}{
		"server": {[]x509.ExtKeyUsage{serverAuth}, true}, "client": {[]x509.ExtKeyUsage{clientAuth}, true}, "any": {nil, true}, "signer": {[]x509.ExtKeyUsage{codeSigning}, false},
	} {
		f := signedFor(t, s, certs.Admin, name, x.usages...)
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := meet(func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}).DialContext(ctx, "tcp", addr)
		})
		if (err == nil) != x.good {
			t.Errorf("%s: %v", name, err)
		}
		if c != nil {
			_ = c.Close()
		}
	}
}

// lines is a log that a test reads while others write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

// A peer that is turned away has a line in the log of the server, with its address and the reason,
// however often it comes again.
func TestRefusedHandshakesAreLogged(t *testing.T) {
	s, stranger := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	var log lines
	server, err := certs.Load(s.Files(certs.Layout, "layout-1"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	addr := greet(t, server, certs.Layout)
	refused := uint64(0)
	turned := func(dial func(ctx context.Context) (net.Conn, error)) string {
		t.Helper()
		var from string
		_, err := meet(func(ctx context.Context) (net.Conn, error) {
			c, err := dial(ctx)
			if c != nil {
				from = c.LocalAddr().String()
			}
			return c, err
		})
		if err == nil {
			t.Fatal("let in")
		}
		refused++
		until(t, "the refusal is counted", func() bool { return server.HandshakesRefused() == refused })
		return from
	}
	by := func(x *certs.Source) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) {
			c := x.Client("127.0.0.1", nil)
			c.InsecureSkipVerify = true // it wants in whatever the server shows
			return (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", addr)
		}
	}
	clear := func(context.Context) (net.Conn, error) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_, err = c.Write([]byte("GET /metrics HTTP/1.1\r\n\r\n"))
		}
		return c, err
	}
	foreign := by(stranger.Source(certs.Layout, "layout-2"))
	var want [][]string
	want = append(want, []string{turned(foreign), "spiffe://corfu/layout/layout-2", "unknown authority"})
	want = append(want, []string{turned(by(s.Source(certs.Unit, "unit-1"))), "spiffe://corfu/unit/unit-1", "only [layout] may be there"})
	want = append(want, []string{turned(clear), "does not look like a TLS handshake"})
	want = append(want, []string{turned(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", addr)
	}), "a certificate"})
	for range 20 { // each of them again and again
		turned(foreign)
		turned(clear)
	}
	got := log.all()
	if len(got) != len(want) {
		t.Fatalf("%d lines, want one for each of %d reasons:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, words := range want {
		for _, word := range append(words, "a TLS handshake is refused", "at="+addr) {
			if !strings.Contains(got[i], word) {
				t.Errorf("%q is not in: %s", word, got[i])
			}
		}
	}
}
