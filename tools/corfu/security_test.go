package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
)

// listeners are the TCP addresses at which a process listens, from /proc (proc(5): net/tcp, net/tcp6, fd).
func (d *daemonProcess) listeners() (all []net.TCPAddr) {
	d.t.Helper()
	proc := fmt.Sprintf("/proc/%d", d.cmd.Process.Pid)
	own := map[string]bool{}
	fds, err := filepath.Glob(proc + "/fd/*")
	if err != nil || len(fds) == 0 {
		d.t.Fatalf("%v, %v", fds, err)
	}
	for _, fd := range fds {
		if s, err := os.Readlink(fd); err == nil && strings.HasPrefix(s, "socket:[") {
			own[strings.Trim(s, "socket:[]")] = true
		}
	}
	for _, file := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(proc + "/net/" + file)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			f := strings.Fields(s.Text())
			const listen = "0A"
			if len(f) < 10 || f[3] != listen || !own[f[9]] {
				continue
			}
			host, port, _ := strings.Cut(f[1], ":")
			ip, _ := hex.DecodeString(host)
			for i := 0; i+4 <= len(ip); i += 4 { // words in the machine's order
				ip[i], ip[i+1], ip[i+2], ip[i+3] = ip[i+3], ip[i+2], ip[i+1], ip[i]
			}
			n, _ := strconv.ParseUint(port, 16, 16)
			all = append(all, net.TCPAddr{IP: ip, Port: int(n)})
		}
	}
	return all
}

// daemonArgs start each daemon with addresses of its own on a host.
func daemonArgs(dir, host string, ports func() string) map[string][]string {
	at := func() string { return net.JoinHostPort(host, ports()) }
	server := func(id string) string { return id + "=" + at() + "," + at() }
	return map[string][]string{
		"unit": {"unit", "--id", "1", "--provider", "tcp", "--dir", filepath.Join(dir, "unit"), "--control", at(), "--http", at()},
		"seq":  {"seq", "--provider", "tcp", "--dir", filepath.Join(dir, "seq"), "--control", at(), "--http", at()},
		"layout": {"layout", "--dir", filepath.Join(dir, "layout"), "--http", at(), "--unit", "1=127.0.0.1:1", "--seq", "1=127.0.0.1:2", "--chain", "1",
			"--server", server("1"), "--server", server("2"), "--server", server("3")},
	}
}

func portsOf(t *testing.T) func() string {
	return func() string {
		_, port, _ := net.SplitHostPort(freePorts(t, 1)[0])
		return port
	}
}

// tlsArgs are the flags for an identity.
func tlsArgs(f certs.Files) []string {
	args := []string{"--tls-ca", f.CA, "--tls-cert", f.Cert, "--tls-key", f.Key}
	if f.CRL != "" {
		args = append(args, "--tls-crl", f.CRL)
	}
	return args
}

// TestNothingListensInClearOutsideLoopback lists what each daemon listens at. By default all of it is on loopback. Outside, each
// address is refused in clear; with certificates nobody gets a word out of it without one. The software fabric stays on loopback.
func TestNothingListensInClearOutsideLoopback(t *testing.T) {
	notInLab(t)
	c, set := newCLI(t), certstest.New(t, "corfu")
	want := map[string]int{"unit": 3, "seq": 3, "layout": 3} // control, HTTP, and fabric or Raft
	for name, args := range daemonArgs(t.TempDir(), "127.0.0.1", portsOf(t)) {
		d := c.start(args...)
		all := d.listeners()
		for _, l := range all {
			if !l.IP.IsLoopback() {
				t.Errorf("%s listens at %v", name, &l)
			}
		}
		if len(all) != want[name] {
			t.Errorf("%s listens at %v, want %d places", name, all, want[name])
		}
		d.stop()
	}
	for name, args := range daemonArgs(t.TempDir(), "0.0.0.0", portsOf(t)) {
		refusesToStart(t, c, []string{"--insecure", "--tls-cert"}, args)
		for _, flag := range []string{"--control", "--http", "--fabric-listen"} {
			if name == "layout" && flag != "--http" {
				continue
			}
			one := append(daemonArgs(t.TempDir(), "127.0.0.1", portsOf(t))[name], flag, "0.0.0.0:"+portsOf(t)())
			refusesToStart(t, c, []string{"0.0.0.0", "--insecure"}, one)
		}
		d := c.start(append(args, tlsArgs(set.Files(certs.Role(name), "the-"+name))...)...)
		for _, l := range d.listeners() {
			if !l.IP.IsLoopback() {
				saysNothing(t, name, l.Port)
			}
		}
		d.stop()
		c.start(append(append(args, "--dir", t.TempDir()), "--insecure")...).stop()
	}
	f := set.Files(certs.Client, "a-client")
	c.fails(exitUsage, []string{"role client", "--role unit"}, append(daemonArgs(t.TempDir(), "127.0.0.1", portsOf(t))["unit"], tlsArgs(f)...)...)
	c.fails(exitUsage, []string{"--tls-key"}, append(daemonArgs(t.TempDir(), "127.0.0.1", portsOf(t))["unit"], "--tls-cert", f.Cert)...)
}

// refusesToStart: the last of what it says names the reason; what it logs may stand in front.
func refusesToStart(t *testing.T, c *cli, words, args []string) {
	t.Helper()
	got := c.run("", args...)
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	last := lines[len(lines)-1]
	good := got.code == exitRuntime && got.stdout == "" && strings.HasPrefix(last, "corfu: ")
	for _, w := range words {
		good = good && strings.Contains(last, w)
	}
	if !good {
		t.Errorf("corfu %s: %+v; want exit %d and a line with %q", strings.Join(args, " "), got, exitRuntime, words)
	}
}

// saysNothing: neither in clear nor to a TLS client without a certificate.
func saysNothing(t *testing.T, name string, port int) {
	t.Helper()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	b, err := io.ReadAll(conn)
	_ = conn.Close()
	// A TLS alert is all that may come: record type 21 (RFC 8446, 5.1).
	if errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 && b[0] != 21 {
		t.Errorf("%s, port %d, in clear: %q, %v", name, port, b, err)
	}
	for _, alpn := range []string{"h2", "http/1.1"} {
		x, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
		if err != nil {
			continue
		}
		_ = x.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(x, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		if b, err := io.ReadAll(x); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s, port %d, without a certificate: %q, %v", name, port, b, err)
		}
		_ = x.Close()
	}
}

// TestClusterOfProcessesUnderMutualTLS: appended and read by a client, asked by an operator, scraped by a monitor; each with a certificate of its own,
// and none of them can do what the others may.
func TestClusterOfProcessesUnderMutualTLS(t *testing.T) {
	notInLab(t)
	c, set, dir := newCLI(t), certstest.New(t, "corfu"), t.TempDir()
	unitFiles := set.Files(certs.Unit, "unit-1")
	start := func(f certs.Files, args ...string) *daemonProcess {
		return c.start(append(args, tlsArgs(f)...)...)
	}
	unit := start(unitFiles, "unit", "--id", "1", "--provider", "tcp", "--dir", filepath.Join(dir, "unit"), "--control", "127.0.0.1:0", "--http", "0.0.0.0:0")
	seq := start(set.Files(certs.Seq, "seq-1"), "seq", "--provider", "tcp", "--dir", filepath.Join(dir, "seq"), "--control", "127.0.0.1:0", "--http", "off")
	lay := start(set.Files(certs.Layout, "layout-1"), "layout", "--dir", filepath.Join(dir, "layout"), "--control", "127.0.0.1:0", "--http", "off",
		"--unit", "1="+unit.word("control"), "--seq", "1="+seq.word("control"), "--chain", "1")
	c.env = append(c.env, "CORFU_LAYOUT="+lay.word("control"))
	as := func(f certs.Files) *cli {
		return &cli{t: t, env: append(append([]string{}, c.env...), envTLSCA+"="+f.CA, envTLSCert+"="+f.Cert, envTLSKey+"="+f.Key)}
	}
	client, op, mon := as(set.Files(certs.Client, "reporting")), as(set.Files(certs.Admin, "operator")), as(set.Files(certs.Monitor, "prometheus"))
	client.want("0\n", "--provider", "tcp", "append", "hello")
	client.want("hello\n", "--provider", "tcp", "read", "0")
	client.fails(exitRuntime, []string{"role", "admin", "may not call"}, "layout", "reconfigure")
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"top", "-n", "1"}} { // and not that the cluster is down
		client.fails(exitRuntime, []string{"the layout server refused", "may not call", "admin"}, args...)
	}
	mon.fails(exitRuntime, []string{"may not call"}, "--provider", "tcp", "append", "x")
	c.fails(exitRuntime, []string{"no cluster answers", "do both sides speak TLS"}, "--timeout", "2s", "layout", "show")
	c.fails(exitRuntime, []string{"no cluster answers", "do both sides speak TLS"}, "--timeout", "2s", "--provider", "tcp", "append", "x")
	c.fails(exitRuntime, []string{"no PEM certificate"}, "status", "--tls-ca", os.Args[0], "--tls-cert", os.Args[0], "--tls-key", os.Args[0])
	as(set.Ended(certs.Admin, "former")).fails(exitRuntime, []string{"ended at"}, "layout", "show")
	as(certstest.New(t, "corfu").Files(certs.Admin, "stranger")).fails(exitRuntime, []string{"unknown authority"}, "--timeout", "2s", "layout", "show")
	op.ok("layout", "reconfigure")
	op.ok("scrub", "--wait=false")

	// The file of a machine's users names theirs. A flag beats it.
	reporting, former := set.Files(certs.Client, "reporting"), set.Ended(certs.Admin, "former")
	file := writeFile(t, "client.yaml", fmt.Sprintf("role: client\nlayout_servers: [%q]\nfabric: {provider: tcp}\ntls: {ca: %s, cert: %s, key: %s}\n",
		lay.word("control"), reporting.CA, reporting.Cert, reporting.Key))
	c.want("hello\n", "--config", file, "read", "0")
	c.fails(exitRuntime, []string{former.Cert, "ended at"}, "--config", file, "--tls-cert", former.Cert, "--tls-key", former.Key, "read", "0")

	// The monitor scrapes over HTTPS; nobody does without a certificate. New certificates are shown without a restart.
	_, port, _ := net.SplitHostPort(unit.word("http"))
	scrape := func() (string, string, error) {
		cfg := set.Source(certs.Monitor, "prometheus").Client("127.0.0.1", nil, certs.Unit)
		h := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: cfg}}
		defer h.CloseIdleConnections()
		r, err := h.Get("https://127.0.0.1:" + port + "/metrics")
		if err != nil {
			return "", "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), r.TLS.PeerCertificates[0].SerialNumber.String(), err
	}
	text, serial, err := scrape()
	if err != nil || !strings.Contains(text, "corfu_unit_epoch") || !strings.Contains(text, "corfu_tls_certificate_expiry_timestamp_seconds") {
		t.Errorf("%v: %.200s", err, text)
	}
	n, _ := strconv.Atoi(port)
	saysNothing(t, "unit", n)
	op.ok("certs", "renew", "--dir", set.Dir, unitFiles.Cert)
	eventually(t, func() error {
		_, now, err := scrape()
		if err == nil && now == serial {
			err = errors.New("the old certificate is shown still")
		}
		return err
	})
	op.ok("layout", "reconfigure")
	client.want("1\n", "--provider", "tcp", "append", "again")

	rubbish(t, c, map[string]string{"control of the unit": unit.word("control"), "HTTP": "127.0.0.1:" + port, "control of the layout server": lay.word("control"), "control of the sequencer": seq.word("control")})
	for _, d := range []*daemonProcess{unit, seq, lay} {
		for _, l := range d.listeners() {
			rubbish(t, c, map[string]string{d.name: net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Port))})
		}
	}
	client.want("2\n", "--provider", "tcp", "append", "unharmed")
	client.want("hello\nagain\nunharmed\n", "--provider", "tcp", "read", "0", "1", "2")
}

// TestStolenKeyIsLockedOut: an operator revokes a client's certificate while the daemons run, with one command.
func TestStolenKeyIsLockedOut(t *testing.T) {
	notInLab(t)
	c, set, dir := newCLI(t), certstest.New(t, "corfu"), t.TempDir()
	c.ok("certs", "revoke", "--dir", set.Dir)
	listed := func(role certs.Role, name string) certs.Files {
		f := set.Files(role, name)
		f.CRL = filepath.Join(set.Dir, certs.RevocationList)
		return f
	}
	start := func(f certs.Files, args ...string) *daemonProcess {
		return c.start(append(args, tlsArgs(f)...)...)
	}
	unit := start(listed(certs.Unit, "unit-1"), "unit", "--id", "1", "--provider", "tcp", "--dir", filepath.Join(dir, "unit"), "--control", "127.0.0.1:0", "--http", "127.0.0.1:0")
	seq := start(listed(certs.Seq, "seq-1"), "seq", "--provider", "tcp", "--dir", filepath.Join(dir, "seq"), "--control", "127.0.0.1:0", "--http", "off")
	lay := start(listed(certs.Layout, "layout-1"), "layout", "--dir", filepath.Join(dir, "layout"), "--control", "127.0.0.1:0", "--http", "off",
		"--unit", "1="+unit.word("control"), "--seq", "1="+seq.word("control"), "--chain", "1")
	try := func(f certs.Files) outcome {
		return c.run("", append([]string{"--cluster", lay.word("control"), "--provider", "tcp", "--timeout", "3s", "append", "x"}, tlsArgs(f)...)...)
	}
	stolen := set.Files(certs.Client, "reporting")
	if got := try(stolen); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	c.ok("certs", "revoke", "--dir", set.Dir, stolen.Cert)
	eventually(t, func() error {
		if got := try(stolen); got.code != exitRuntime {
			return fmt.Errorf("a revoked client appends: %+v", got)
		}
		return nil
	})
	fresh := listed(certs.Client, "reporting")
	if got := try(fresh); got.code != exitOK {
		t.Errorf("with a new certificate: %+v", got)
	}
	eventually(t, func() error {
		r, err := http.Get("http://" + unit.word("http") + "/metrics")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if b, err := io.ReadAll(r.Body); err != nil || !bytes.Contains(b, []byte("corfu_tls_crl_entries 1\n")) {
			return fmt.Errorf("the unit does not show the list: %v", err)
		}
		return nil
	})

	// Clients look as well: a unit whose key was stolen is no unit to them any more. A list of somebody else is an error, and says whose it is.
	c.ok("certs", "revoke", "--dir", set.Dir, filepath.Join(set.Dir, "layout-1.crt"))
	if got := try(fresh); got.code != exitRuntime || !strings.Contains(got.stderr, "revoked") {
		t.Errorf("at a revoked layout server: %+v", got)
	}
	fresh.CRL = certstest.New(t, "corfu").Revoke()
	if got := try(fresh); got.code == exitOK || !strings.Contains(got.stderr, "did not sign it") {
		t.Errorf("with another authority's list: %+v", got)
	}
}

// rubbish throws at each port what is oversized or makes no sense. Whoever listens there hangs up.
func rubbish(t *testing.T, c *cli, ports map[string]string) {
	t.Helper()
	for name, addr := range ports {
		for _, b := range [][]byte{
			[]byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"),
			bytes.Repeat([]byte{0xff}, 1<<20),
			append([]byte("CorfuTCP"), bytes.Repeat([]byte{0x7f}, 1<<16)...),
			append([]byte{0x16, 3, 1, 0xff, 0xff}, make([]byte, 1<<17)...),
		} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = conn.Write(b)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection stands after %.10q", name, b)
			}
			_ = conn.Close()
		}
	}
}

func TestCertsAreMadeRenewedAndShown(t *testing.T) {
	notInLab(t)
	c, dir := newCLI(t), t.TempDir()
	ca, out := filepath.Join(dir, "ca"), filepath.Join(dir, "out")
	c.ok("certs", "init", "--dir", ca, "--cluster", "lab")
	c.fails(exitRuntime, []string{"ca.crt", "--force"}, "certs", "init", "--dir", ca)
	c.fails(exitRuntime, []string{"certs init"}, "certs", "issue", "--dir", out, "--role", "client", "--name", "x")
	c.fails(exitUsage, []string{"--role", "--name"}, "certs", "issue", "--dir", ca)
	c.fails(exitUsage, []string{"root", "monitor"}, "certs", "issue", "--dir", ca, "--role", "root", "--name", "x")
	c.fails(exitUsage, []string{"hosts"}, "certs", "issue", "--dir", ca, "--role", "unit", "--name", "x")
	c.ok("certs", "issue", "--dir", ca, "--out", out, "--role", "unit", "--name", "unit-1", "--host", "10.0.0.1", "--host", "u1")
	c.fails(exitRuntime, []string{"unit-1.crt", "--force"}, "certs", "issue", "--dir", ca, "--out", out, "--role", "unit", "--name", "unit-1", "--host", "u1")
	show := func() certJSON {
		t.Helper()
		var all []certJSON
		if err := json.Unmarshal([]byte(c.ok("certs", "show", "-o", "json", filepath.Join(out, "unit-1.crt"))), &all); err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all[0]
	}
	first := show()
	if first.Identity != "spiffe://lab/unit/unit-1" || strings.Join(first.Hosts, " ") != "u1 10.0.0.1" {
		t.Errorf("%+v", first)
	}
	c.want("nothing to renew\n", "certs", "renew", "--dir", ca, filepath.Join(out, "unit-1.crt"), "--within", "24h")
	if now := show(); now.Serial != first.Serial {
		t.Error("renewed long before its end")
	}
	c.ok("certs", "renew", "--dir", ca, filepath.Join(out, "unit-1.crt"), filepath.Join(out, "ca.crt"))
	if now := show(); now.Serial == first.Serial || now.Identity != first.Identity {
		t.Errorf("%+v", now)
	}
	list := func(args ...string) (l listJSON) {
		t.Helper()
		if err := json.Unmarshal([]byte(c.ok(append([]string{"certs", "revoke", "--dir", ca, "-o", "json"}, args...)...)), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := list(); l.Number != "1" || len(l.Revoked) != 0 || time.Until(l.Until) < certs.ListLife-time.Hour {
		t.Errorf("the first list: %+v", l)
	}
	list(filepath.Join(out, "unit-1.crt"), "0a:bc")
	if l := list("--life", "48h", "abc"); l.Number != "3" || len(l.Revoked) != 2 || l.Revoked[0].Serial != show().Serial || l.Revoked[1].Serial != "abc" || time.Until(l.Until) > 48*time.Hour {
		t.Errorf("%+v", l)
	}
	set := certstest.New(t, "corfu")
	c.fails(exitUsage, []string{"serial number", "certs show"}, "certs", "revoke", "--dir", ca, "unit-1.crt")
	c.fails(exitRuntime, []string{"not of this authority"}, "certs", "revoke", "--dir", ca, set.Files(certs.Client, "c").Cert)
	c.fails(exitRuntime, []string{"replaced"}, "certs", "revoke", "--dir", ca, filepath.Join(ca, "ca.crt"))
	if got := c.run("", "certs", "show", set.Ended(certs.Client, "old").Cert); got.code != exitRuntime || !strings.Contains(got.stderr, "ended at") {
		t.Errorf("%+v", got)
	}
}

// What corfu-setup asks before it touches a machine.
func TestCertsCheckSaysInOneLineWhatIsWrong(t *testing.T) {
	notInLab(t)
	c, dir := newCLI(t), t.TempDir()
	ca, cert := filepath.Join(dir, "ca"), filepath.Join(dir, "out", "unit-1.crt")
	c.ok("certs", "init", "--dir", ca)
	c.ok("certs", "issue", "--dir", ca, "--out", filepath.Join(dir, "out"), "--role", "unit", "--name", "unit-1", "--host", "10.0.0.1", "--host", "u1")
	c.ok("certs", "check", "--role", "unit", "--host", "10.0.0.1", cert)
	c.ok("certs", "check", "--role", "unit", "--host", "u1", cert)
	set := certstest.New(t, "corfu")
	over := set.Ended(certs.Unit, "unit-2")
	crl := filepath.Join(dir, "out", "ca.crl")
	c.ok("certs", "revoke", "--dir", ca)
	c.ok("certs", "issue", "--dir", ca, "--out", filepath.Join(dir, "out"), "--role", "unit", "--name", "unit-3", "--host", "10.0.0.3")
	c.ok("certs", "check", "--crl", crl, cert) // the list came with the last one
	lost := filepath.Join(dir, "out", "unit-3.crt")
	c.ok("certs", "revoke", "--dir", ca, lost)
	for _, wrong := range []struct {
		says []string
		args []string
	}{
		{[]string{cert, "of role unit", "--role seq"}, []string{"--role", "seq", cert}},
		{[]string{cert, "10.0.0.1", "dial 10.0.0.2"}, []string{"--host", "10.0.0.2", cert}},
		{[]string{lost, "is revoked"}, []string{"--crl", filepath.Join(ca, "ca.crl"), lost}},
		{[]string{"nolist.crl", "no such file"}, []string{"--crl", filepath.Join(dir, "nolist.crl"), cert}},
		{[]string{over.Cert, "ended at"}, []string{"--ca", over.CA, over.Cert}},
		{[]string{cert, "not of an authority in " + over.CA}, []string{"--ca", over.CA, cert}},
		{[]string{"nobody.crt", "no such file"}, []string{"--ca", over.CA, filepath.Join(dir, "nobody.crt")}},
	} {
		got := c.run("", append([]string{"certs", "check"}, wrong.args...)...)
		if got.code != exitRuntime || got.stdout != "" || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: %+v", wrong.args, got)
		}
		for _, s := range wrong.says {
			if !strings.Contains(got.stderr, s) {
				t.Errorf("%v: %q is not in %q", wrong.args, s, got.stderr)
			}
		}
	}
}
