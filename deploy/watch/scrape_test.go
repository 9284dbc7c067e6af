package watch

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The two configurations differ in scheme and tls_config of the daemons' jobs alone.
func TestConfigurationsDifferInTLSAlone(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(prometheusDir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, body, ok := strings.Cut(string(b), "\nglobal:")
		if !ok {
			t.Fatalf("%s has no section global", name)
		}
		return body
	}
	secured := regexp.MustCompile(`(?m)^    scheme: https\n    tls_config: \{ca_file: tls/ca\.crt, cert_file: tls/monitor\.crt, key_file: tls/monitor\.key\}\n`)
	with := read("prometheus-tls.yml")
	if n := len(secured.FindAllString(with, -1)); n != 3 {
		t.Errorf("%d jobs go over TLS, want those of the three kinds of daemons", n)
	}
	if secured.ReplaceAllString(with, "") != read("prometheus.yml") {
		t.Error("prometheus-tls.yml and prometheus.yml differ in more than scheme and tls_config")
	}
}

// Prometheus scrapes every daemon with the configurations as they are shipped: a cluster in clear,
// and one with the certificates that corfu certs makes.
func TestShippedConfigurationsScrapeACluster(t *testing.T) {
	if !*live {
		t.Skip("needs -live: make test-watch")
	}
	t.Run("in clear", func(t *testing.T) { scrapes(t, &cluster{t: t, dir: t.TempDir(), binary: *program}, "prometheus.yml") })
	t.Run("with TLS", func(t *testing.T) {
		c := &cluster{t: t, dir: t.TempDir(), binary: *program, http: "0.0.0.0:0"}
		c.trust = func(name string) []string {
			in := func(file string) string { return filepath.Join(c.dir, "certs", file) }
			return []string{"--tls-ca", in("ca.crt"), "--tls-cert", in(name + ".crt"), "--tls-key", in(name + ".key")}
		}
		scrapes(t, c, "prometheus-tls.yml")
	})
}

// scrapes starts a layout server, a sequencer and a unit, and a Prometheus on the shipped
// configuration, and waits until that has an answer of each.
func scrapes(t *testing.T, c *cluster, config string) {
	if c.binary == "" {
		c.build()
	}
	ca, made := filepath.Join(c.dir, "ca"), filepath.Join(c.dir, "certs")
	corfu := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(c.binary, args...).CombinedOutput(); err != nil {
			t.Fatalf("corfu %v: %v\n%s", args, err, out)
		}
	}
	if c.trust != nil {
		corfu("certs", "init", "--dir", ca)
		for _, role := range []string{"layout", "seq", "unit"} {
			corfu("certs", "issue", "--dir", ca, "--out", made, "--role", role, "--name", role+"-1", "--host", "127.0.0.1")
		}
	}
	unit := c.start("unit-1", "unit", "--id", "1", "--store", filepath.Join(c.dir, "unit-1"))
	seq := c.start("seq-1", "seq", "--dir", filepath.Join(c.dir, "seq-1"))
	server := c.start("layout-1", "layout", "--dir", filepath.Join(c.dir, "layout"), "--chain", "1", "--unit", "1="+unit.Control, "--seq", "1="+seq.Control)
	for _, p := range []*process{unit, seq, server} {
		_, port, err := net.SplitHostPort(p.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		p.HTTP = net.JoinHostPort("127.0.0.1", port)
	}
	dir := shipped(t, config, map[string][]*process{"layout": {server}, "seq": {seq}, "unit": {unit}})
	if c.trust != nil {
		corfu("certs", "issue", "--dir", ca, "--out", filepath.Join(dir, "tls"), "--role", "monitor", "--name", "monitor")
	}
	check := exec.Command("promtool", "check", "config", config)
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check config %s: %v\n%s", config, err, out)
	}
	p := runPrometheus(t, dir, config)
	p.ready(3)
	p.until("a layout server leads", `sum(corfu_layout_raft_leader{job="corfu-layout",cluster="`+clusterName+`"})`, func(v float64) bool { return v == 1 })
}
