package watch

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"corfu/client"
	"corfu/layout"
)

// process is a daemon that is up.
type process struct {
	cmd           *exec.Cmd
	Control, HTTP string
	log           string
}

// cluster is one of `corfu` processes on loopback: a layout server, a sequencer and a standby, two chains of two units, a spare.
type cluster struct {
	t      *testing.T
	binary string
	dir    string
	http   string                     // where its daemons serve metrics; "" means a port of loopback
	trust  func(name string) []string // further arguments of the daemon of that name; nil means none
	layout *process
	seqs   []*process
	units  []*process
}

const spare = 5 // the number of the unit that belongs to no chain at first

func startCluster(t *testing.T) *cluster {
	c := &cluster{t: t, dir: t.TempDir()}
	c.binary = *program
	if c.binary == "" {
		c.build()
	}
	args := []string{"layout", "--dir", filepath.Join(c.dir, "layout"), "--window", "256", "--chain", "1,2", "--chain", "3,4"}
	if *provider == "verbs" { // an emulated machine with busy neighbours may let everybody wait for seconds
		args = append(args, "--fail-after", "10s")
	}
	for i := 1; i <= spare; i++ {
		u := c.start(fmt.Sprintf("unit-%d", i), "unit", "--id", fmt.Sprint(i), "--store", filepath.Join(c.dir, fmt.Sprintf("unit-%d", i)), "--scrub-rate", "1MiB")
		c.units = append(c.units, u)
		flag := "--unit"
		if i == spare {
			flag = "--spare"
		}
		args = append(args, flag, fmt.Sprintf("%d=%s", i, u.Control))
	}
	for i, flag := range []string{"--seq", "--standby"} {
		s := c.start(fmt.Sprintf("seq-%d", i+1), "seq", "--id", fmt.Sprint(i+1), "--dir", filepath.Join(c.dir, fmt.Sprintf("seq-%d", i+1)))
		c.seqs = append(c.seqs, s)
		args = append(args, flag, fmt.Sprintf("%d=%s", i+1, s.Control))
	}
	c.layout = c.start("layout", args...)
	return c
}

func (c *cluster) build() {
	c.binary = filepath.Join(c.dir, "corfu")
	if out, err := exec.Command("go", "build", "-o", c.binary, "../../tools/corfu").CombinedOutput(); err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
}

// start starts a daemon and waits until it says that it is up.
func (c *cluster) start(name string, args ...string) *process {
	c.t.Helper()
	args = append(args, "--control", "127.0.0.1:0", "--http", cmp.Or(c.http, "127.0.0.1:0"), "-o", "json")
	if c.trust != nil {
		args = append(args, c.trust(name)...)
	}
	if args[0] != "layout" {
		args = append(args, "--provider", *provider)
	}
	p := &process{cmd: exec.Command(c.binary, args...), log: filepath.Join(c.dir, name+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		c.t.Fatal(err)
	}
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { p.kill(); _ = log.Close() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, p)
	}
	if err != nil {
		text, _ := os.ReadFile(p.log)
		c.t.Fatalf("%s: %v\n%s", name, err, text)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// load appends, reads, fills and trims until it is stopped, and serves its metrics.
type load struct {
	log      *client.Log
	http     string
	stop     context.CancelFunc
	done     sync.WaitGroup
	mu       sync.Mutex
	appended []layout.Position
	errs     []error
}

func startLoad(t *testing.T, c *cluster) *load {
	reg := prometheus.NewRegistry()
	ctx, stop := context.WithCancel(context.Background())
	opening, cancel := context.WithTimeout(ctx, patience())
	defer cancel()
	log, err := client.Open(opening, client.Options{LayoutServers: []string{c.layout.Control}, Provider: *provider, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		stop()
		t.Fatal(err)
	}
	reg.MustRegister(log.Collector())
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: promhttp.HandlerFor(reg, promhttp.HandlerOpts{})}
	go func() { _ = server.Serve(lis) }()
	l := &load{log: log, http: lis.Addr().String(), stop: stop}
	for i := range 4 {
		l.done.Go(func() { l.append(ctx, i) })
	}
	l.done.Go(func() { l.read(ctx) })
	t.Cleanup(func() { l.end(t); _ = server.Close() })
	return l
}

// append puts about 100 entries a second into the log: enough to be seen, and little enough to be rebuilt at once.
func (l *load) append(ctx context.Context, i int) {
	payload := make([]byte, 1000+500*i)
	for ctx.Err() == nil {
		p, err := l.log.Append(ctx, payload)
		l.mu.Lock()
		if err == nil {
			l.appended = append(l.appended, p)
		} else if ctx.Err() == nil && !errors.Is(err, client.ErrUnknown) {
			l.errs = append(l.errs, err)
		}
		l.mu.Unlock()
		pause(ctx, 40*time.Millisecond)
	}
}

// read does all else that a client can: old entries, new ones, tails, fills and trims.
func (l *load) read(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		l.mu.Lock()
		var old, last layout.Position
		if k := len(l.appended); k > 0 {
			old, last = l.appended[k/4], l.appended[k-1]
		}
		l.mu.Unlock()
		_, _ = l.log.Read(ctx, old)
		_, _ = l.log.Read(ctx, last)
		_, _ = l.log.Tail(ctx)
		switch n % 10 {
		case 3:
			_ = l.log.Fill(ctx, last)
		case 6:
			_ = l.log.Trim(ctx, 0)
		case 9:
			_, _ = l.log.SlowTail(ctx)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// end stops the load. No append may have failed: a member that is lost makes them wait.
func (l *load) end(t *testing.T) {
	l.stop()
	l.done.Wait()
	_ = l.log.Close()
	for _, err := range l.errs {
		t.Errorf("append: %v", err)
	}
	l.errs = nil
}

// startPrometheus runs Debian's Prometheus on the files of deploy/prometheus, with targets of this cluster, and with shorter intervals.
func startPrometheus(t *testing.T, c *cluster, l *load) *prom {
	dir := shipped(t, "prometheus.yml", map[string][]*process{"layout": {c.layout}, "seq": c.seqs, "unit": c.units, "client": {{HTTP: l.http}}})
	return runPrometheus(t, dir, "prometheus.yml")
}

// shipped returns a copy of deploy/prometheus whose configuration has shorter intervals, and whose targets are those of each role.
func shipped(t *testing.T, config string, roles map[string][]*process) (dir string) {
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(prometheusDir)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, config))
	if err != nil {
		t.Fatal(err)
	}
	quick := strings.ReplaceAll(string(b), "_interval: 15s", "_interval: "+scrapeEvery().String())
	if strings.Count(quick, scrapeEvery().String()) != 2 {
		t.Fatal("the intervals are not where they were")
	}
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(config, quick)
	for role, list := range roles {
		var addrs []string
		for _, p := range list {
			addrs = append(addrs, p.HTTP)
		}
		b, _ := json.Marshal([]map[string]any{{"targets": addrs, "labels": map[string]string{"cluster": clusterName}}})
		write(filepath.Join("targets", role+".yml"), string(b))
	}
	return dir
}

// runPrometheus runs Prometheus on a configuration in dir until the test ends.
func runPrometheus(t *testing.T, dir, config string) *prom {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	_ = lis.Close()
	var log strings.Builder
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, config), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=warn")
	cmd.Stderr, cmd.SysProcAttr = &log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus: %s", log.String())
		}
	})
	return &prom{t: t, base: "http://" + addr}
}
