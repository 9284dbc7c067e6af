package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
)

// fetch returns the status and the body of an HTTP answer.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// wantProbes asks all probes at an address.
func wantProbes(t *testing.T, who, addr string) {
	t.Helper()
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		if code, body := fetch(t, "http://"+addr+path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %s answers %d %q, want 200", who, path, code, body)
		}
	}
}

// A member that waits for its cluster is alive and ready: an orchestrator that restarts it, or
// starts no other before it is ready, would never bring a cluster up. The second address answers in
// clear beside certificates, and shows measures and probes alone.
func TestWaitingMembersAreAliveAndReady(t *testing.T) {
	notInLab(t)
	c, set, dir, ports := newCLI(t), certstest.New(t, "corfu"), t.TempDir(), freePorts(t, 6)
	start := func(role certs.Role, name string, args ...string) *daemonProcess {
		args = append(args, "--provider", "tcp", "--dir", filepath.Join(dir, name), "--http", "127.0.0.1:0", "--http-clear", "127.0.0.1:0")
		return c.start(append(args, tlsArgs(set.Files(role, name))...)...)
	}
	unit := start(certs.Unit, "unit-1", "unit", "--id", "1", "--control", "127.0.0.1:0")
	seq := start(certs.Seq, "seq-1", "seq", "--control", "127.0.0.1:0")
	args := []string{"layout", "--id", "1", "--unit", "1=" + unit.word("control"), "--seq", "1=" + seq.word("control"), "--chain", "1"}
	for i := range 3 {
		args = append(args, "--server", fmt.Sprintf("%d=%s,%s", i+1, ports[2*i], ports[2*i+1]))
	}
	layout := start(certs.Layout, "layout-1", args...)
	for _, d := range []*daemonProcess{unit, seq, layout} {
		wantProbes(t, d.name, d.word("http"))
		wantProbes(t, d.name+", in clear", d.word("http_clear"))
		if code, body := fetch(t, "http://"+d.word("http_clear")+"/metrics"); code != http.StatusOK || !strings.Contains(body, "corfu_") {
			t.Errorf("%s: /metrics in clear answers %d %.100q", d.name, code, body)
		}
		for _, path := range []string{"/", "/api/status", "/debug/pprof/"} {
			if code, _ := fetch(t, "http://"+d.word("http_clear")+path); code != http.StatusNotFound {
				t.Errorf("%s: %s in clear answers %d, want 404", d.name, path, code)
			}
		}
	}
}

// docs/security.md: --insecure opens nothing that certificates guard.
func TestInsecureBesideCertificatesStaysSecure(t *testing.T) {
	notInLab(t)
	c, set := newCLI(t), certstest.New(t, "corfu")
	args := []string{"unit", "--insecure", "--id", "1", "--provider", "tcp", "--dir", t.TempDir(), "--control", "0.0.0.0:0", "--http", "0.0.0.0:0"}
	unit := c.start(append(args, tlsArgs(set.Files(certs.Unit, "unit-1"))...)...)
	for _, key := range []string{"control", "http"} {
		_, port, err := net.SplitHostPort(unit.word(key))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		saysNothing(t, key, n)
	}
}
