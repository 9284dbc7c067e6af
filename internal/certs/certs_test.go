package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
)

func TestIdentityIsOneURI(t *testing.T) {
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for s, want := range map[string]certs.Identity{
		"spiffe://corfu/unit/unit-1":           {Cluster: "corfu", Role: certs.Unit, Name: "unit-1"},
		"spiffe://lab.example/client/A_b.9":    {Cluster: "lab.example", Role: certs.Client, Name: "A_b.9"},
		"https://corfu/unit/unit-1":            {},
		"spiffe://corfu/unit":                  {},
		"spiffe://corfu/unit/":                 {},
		"spiffe://corfu/unit/a/b":              {},
		"spiffe://corfu/unit/..":               {},
		"spiffe://corfu/root/x":                {},
		"spiffe:///unit/unit-1":                {},
		"spiffe://Corfu/unit/unit-1":           {},
		"spiffe://me@corfu/unit/unit-1":        {},
		"spiffe://corfu:1/unit/unit-1":         {},
		"spiffe://corfu/unit/unit-1?role=seq":  {},
		"spiffe://corfu/unit/unit-1#fragment":  {},
		"spiffe://corfu/un%69t/unit-1":         {},
		"spiffe://corfu//unit/unit-1":          {},
		"spiffe://corfu/unit/unit 1":           {},
		"spiffe://corfu/unit/unit-1/../client": {},
	} {
		got, err := certs.IdentityOf(&x509.Certificate{URIs: []*url.URL{parse(s)}})
		if got != want || (want == certs.Identity{}) != errors.Is(err, certs.ErrIdentity) {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	two := []*url.URL{parse("spiffe://corfu/unit/a"), parse("spiffe://corfu/unit/a")}
	for _, uris := range [][]*url.URL{nil, two} {
		if got, err := certs.IdentityOf(&x509.Certificate{URIs: uris}); !errors.Is(err, certs.ErrIdentity) {
			t.Errorf("%v: %v, %v", uris, got, err)
		}
	}
}

func TestFilesAreKeptAndPrivate(t *testing.T) {
	s := certstest.New(t, "corfu")
	f := s.Files(certs.Unit, "unit-1")
	for path, mode := range map[string]fs.FileMode{f.Key: 0o600, filepath.Join(s.Dir, certs.AuthorityKey): 0o600, f.Cert: 0o644} {
		if x, err := os.Stat(path); err != nil || x.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, x.Mode(), err)
		}
	}
	before, _ := os.ReadFile(f.Key)
	p := certs.Pair{Cert: []byte("x"), Key: []byte("y")}
	if err := p.Write(f.Cert, f.Key, false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("overwritten: %v", err)
	}
	if err := p.Write(filepath.Join(s.Dir, "new.crt"), f.Key, false); err == nil {
		t.Error("a key was overwritten")
	}
	if after, _ := os.ReadFile(f.Key); string(after) != string(before) {
		t.Error("the key changed")
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for mode, good := range map[fs.FileMode]bool{0o600: true, 0o640: true, 0o400: true, 0o644: false, 0o660: false, 0o604: false} {
		if err := os.Chmod(f.Key, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := certs.Load(f, slog.New(slog.DiscardHandler)); (err == nil) != good {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

func TestLoadRefusesWhatDoesNotFit(t *testing.T) {
	s, other := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	good, stranger := s.Files(certs.Unit, "unit-1"), other.Files(certs.Unit, "unit-1")
	for name, f := range map[string]certs.Files{
		"no key named":         {CA: good.CA, Cert: good.Cert},
		"another's key":        {CA: good.CA, Cert: good.Cert, Key: stranger.Key},
		"of another authority": {CA: good.CA, Cert: stranger.Cert, Key: stranger.Key},
		"ended":                s.Ended(certs.Unit, "old"),
		"no identity":          {CA: good.CA, Cert: good.CA, Key: filepath.Join(s.Dir, certs.AuthorityKey)},
		"no file":              {CA: good.CA, Cert: good.Cert + "x", Key: good.Key},
		"no certificate":       {CA: good.Key, Cert: good.Cert, Key: good.Key},
	} {
		if _, err := certs.Load(f, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, err := certs.OpenAuthority(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, call := range map[string]func() error{
		"no role":       func() error { _, err := a.Issue("root", "x", nil, now, time.Hour); return err },
		"no name":       func() error { _, err := a.Issue(certs.Client, "", nil, now, time.Hour); return err },
		"no host":       func() error { _, err := a.Issue(certs.Unit, "x", nil, now, time.Hour); return err },
		"no life":       func() error { _, err := a.Issue(certs.Client, "x", nil, now, 0); return err },
		"no authority":  func() error { _, err := certs.OpenAuthority(t.TempDir()); return err },
		"bad cluster":   func() error { _, err := certs.Init("a/b", now, time.Hour); return err },
		"over its time": func() error { _, err := a.Issue(certs.Client, "x", nil, now.Add(2*certs.AuthorityLife), 1); return err },
	} {
		if call() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestRenewedIsForTheSame(t *testing.T) {
	s := certstest.New(t, "corfu")
	f := s.Files(certs.Seq, "seq-1")
	old, err := certs.ReadCert(f.Cert)
	if err != nil {
		t.Fatal(err)
	}
	a, err := certs.OpenAuthority(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Renew(old, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(f.Cert, f.Key, true); err != nil {
		t.Fatal(err)
	}
	fresh, err := certs.ReadCert(f.Cert)
	if err != nil {
		t.Fatal(err)
	}
	was, _ := certs.IdentityOf(old)
	is, err := certs.IdentityOf(fresh)
	if is != was || err != nil || strings.Join(certs.Hosts(fresh), " ") != "localhost 127.0.0.1" {
		t.Errorf("%v, %v, %v", is, certs.Hosts(fresh), err)
	}
	if d := fresh.NotAfter.Sub(old.NotAfter); d < 50*time.Second || d > 70*time.Second || fresh.SerialNumber.Cmp(old.SerialNumber) == 0 {
		t.Errorf("it ends %v later, serials %x and %x", d, old.SerialNumber, fresh.SerialNumber)
	}
	if string(fresh.RawSubjectPublicKeyInfo) == string(old.RawSubjectPublicKeyInfo) {
		t.Error("the key is the old one")
	}
}

// greet serves TLS that says one byte to whoever is let in, and gives its address.
func greet(t *testing.T, s *certs.Source, roles ...certs.Role) string {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := s.Listen(raw, roles...)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x"))
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return raw.Addr().String()
}

// meet dials and waits for the greeting: with TLS 1.3 a server's refusal comes behind the client's handshake.
func meet(dial func(ctx context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func TestHandshakeTakesTheRightOnesOnly(t *testing.T) {
	s, stranger, sister := certstest.New(t, "corfu"), certstest.New(t, "corfu"), certstest.New(t, "sister")
	s.Trust(sister)
	sister.Trust(s)
	addr := greet(t, s.Source(certs.Layout, "layout-1"), certs.Layout)
	with := func(x *certs.Source, host string, roles ...certs.Role) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return x.Dial(ctx, net.JoinHostPort(host, port), roles...)
		}
	}
	raw := func(c *tls.Config) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", addr)
		}
	}
	friend := s.Source(certs.Layout, "layout-2")
	old := friend.Client("127.0.0.1", nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	files := s.Ended(certs.Layout, "ended")
	ended, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		dial func(context.Context) (net.Conn, error)
		good bool
	}{
		"a layout server":                    {with(friend, "127.0.0.1", certs.Layout), true},
		"by its name":                        {with(friend, "localhost", certs.Layout), true},
		"a unit":                             {with(s.Source(certs.Unit, "unit-1"), "127.0.0.1"), false},
		"an operator":                        {with(s.Source(certs.Admin, "op"), "127.0.0.1"), false},
		"of another authority":               {with(stranger.Source(certs.Layout, "layout-3"), "127.0.0.1"), false},
		"of another cluster":                 {with(sister.Source(certs.Layout, "layout-4"), "127.0.0.1"), false},
		"one who wants a unit there":         {with(friend, "127.0.0.1", certs.Unit), false},
		"no certificate":                     {raw(&tls.Config{InsecureSkipVerify: true}), false},
		"a certificate that ended":           {raw(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{ended}}), false},
		"TLS 1.2":                            {raw(old), false},
		"a layout server under another name": {raw(friend.Client("elsewhere", nil)), false},
	} {
		c, err := meet(x.dial)
		if (err == nil) != x.good {
			t.Errorf("%s: %v", name, err)
		}
		if c != nil {
			_ = c.Close()
		}
	}
	if c, err := meet(func(context.Context) (net.Conn, error) { return net.Dial("tcp", addr) }); err == nil {
		t.Error("in clear: let in")
		_ = c.Close()
	}
}

// serial dials and tells which certificate the server showed.
func serial(t *testing.T, s *certs.Source, addr string) string {
	t.Helper()
	host, _, _ := net.SplitHostPort(addr)
	c, err := meet(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: s.Client(host, nil)}).DialContext(ctx, "tcp", addr)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

func TestNewCertificatesAreTakenOverWithoutARestart(t *testing.T) {
	s := certstest.New(t, "corfu")
	f := s.Files(certs.Unit, "unit-1")
	server, client := s.Load(f), s.Source(certs.Client, "c")
	addr := greet(t, server)
	first := serial(t, client, addr)
	open, err := meet(func(ctx context.Context) (net.Conn, error) { return client.Dial(ctx, addr) })
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	s.Files(certs.Unit, "unit-1")
	until(t, "the new certificate is shown", func() bool { return serial(t, client, addr) != first })
	second := serial(t, client, addr)
	if done, failed := server.Reloads(); done == 0 {
		t.Errorf("%d reloads, %d failed", done, failed)
	}
	_ = open.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection that was open: %v", err)
	}

	// Half of a pair, rubbish, another role: what was read before stays.
	for name, spoil := range map[string]func(){
		"half a pair": func() {
			x := s.Files(certs.Unit, "unit-2")
			b, _ := os.ReadFile(x.Key)
			_ = os.WriteFile(f.Key, b, 0o600)
		},
		"rubbish":      func() { _ = os.WriteFile(f.Cert, []byte("rubbish"), 0o600) },
		"another role": func() { x := s.Files(certs.Seq, "unit-1"); _ = x },
		"no file":      func() { _ = os.Remove(f.Cert) },
	} {
		_, before := server.Reloads()
		spoil()
		until(t, name+" is noticed", func() bool { _, failed := server.Reloads(); return failed > before })
		if now := serial(t, client, addr); now != second {
			t.Errorf("%s: certificate %s is shown, not %s", name, now, second)
		}
	}
	s.Files(certs.Unit, "unit-1")
	until(t, "a good one is taken again", func() bool { return serial(t, client, addr) != second })
}

func TestAuthorityIsReplacedInSteps(t *testing.T) {
	before, after := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	server := before.Source(certs.Unit, "unit-1")
	addr := greet(t, server)
	client := after.Files(certs.Client, "c")
	client.CA = filepath.Join(before.Dir, certs.AuthorityCert)
	if _, err := certs.Load(client, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a certificate of an authority that is not trusted yet")
	}
	before.Trust(after)
	fresh := before.Load(client)
	until(t, "the server believes both", func() bool {
		c, err := meet(func(ctx context.Context) (net.Conn, error) { return fresh.Dial(ctx, addr, certs.Unit) })
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func TestConnectionEndsWithTheCertificate(t *testing.T) {
	s := certstest.New(t, "corfu")
	addr := greet(t, s.Source(certs.Unit, "unit-1"))
	var c net.Conn
	began := time.Now()
	for life := 3 * time.Second; c == nil; life *= 2 { // a busy machine needs longer to connect than the first one is valid
		short := s.Load(s.FilesFor(certs.Client, "c", life))
		var err error
		if c, err = meet(func(ctx context.Context) (net.Conn, error) { return short.Dial(ctx, addr) }); err != nil && life > time.Minute {
			t.Fatal(err)
		}
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestSilentPeersAreDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the time-out of a handshake")
	}
	s := certstest.New(t, "corfu")
	addr := greet(t, s.Source(certs.Unit, "unit-1"))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if other, err := meet(func(ctx context.Context) (net.Conn, error) { return s.Source(certs.Client, "c").Dial(ctx, addr) }); err != nil {
		t.Errorf("beside a silent peer: %v", err)
	} else {
		_ = other.Close()
	}
	_ = c.SetReadDeadline(time.Now().Add(certs.HandshakeTimeout + 30*time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent peer: %v", err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
