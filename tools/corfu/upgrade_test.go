package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"corfu/client"
)

// rolling is a cluster of processes that are replaced one after another: 3 layout servers, 2 sequencers, a chain of 2 units, a spare.
type rolling struct {
	*cli
	args    map[string][]string // by the member's name
	running map[string]*daemonProcess
	servers []string // control addresses of the layout servers
}

// use makes what is started from now on be a release: a binary if the environment names one, as make test-upgrade does, and
// otherwise this build under another version.
func (r *rolling) use(release string) {
	r.binary = os.Getenv("CORFU_UPGRADE_" + strings.ToUpper(release))
	r.env = append(slices.DeleteFunc(r.env, func(e string) bool { return strings.HasPrefix(e, "CORFU_TEST_VERSION=") }), "CORFU_TEST_VERSION="+release)
}

func startRolling(t *testing.T) *rolling {
	t.Helper()
	r := &rolling{cli: newCLIAlone(t), args: map[string][]string{}, running: map[string]*daemonProcess{}}
	r.use("old")
	dir := testDir(t)
	add := func(name string, args ...string) string {
		r.args[name] = append(args, "--dir", filepath.Join(dir, name), "--http", "off")
		if r.args[name][0] != "layout" {
			r.args[name] = append(r.args[name], "--control", freePorts(t, 1)[0], "--provider", testProvider())
		}
		r.restart(name)
		return r.running[name].word("control")
	}
	// Slower than a restart: nobody is to be dropped for it, however busy the machine is.
	first := []string{"layout", "--fail-after", "30s", "--election-timeout", "500ms", "--chain", "1,2"}
	for id, flag := range []string{"--unit", "--unit", "--spare"} {
		n := fmt.Sprint(id + 1)
		first = append(first, flag, n+"="+add("unit-"+n, "unit", "--id", n))
	}
	for id, flag := range []string{"--seq", "--standby"} {
		n := fmt.Sprint(id + 1)
		first = append(first, flag, n+"="+add("seq-"+n, "seq", "--id", n))
	}
	ports := freePorts(t, 6)
	for i := range 3 {
		first = append(first, "--server", fmt.Sprintf("%d=%s,%s", i+1, ports[i], ports[3+i]))
	}
	r.servers = ports[:3]
	for i := range 3 {
		n := fmt.Sprint(i + 1)
		add("layout-"+n, append(slices.Clone(first), "--id", n)...)
	}
	r.env = append(r.env, "CORFU_LAYOUT="+strings.Join(r.servers, ","))
	r.whole()
	return r
}

// restart stops a member in peace, as a service manager does, and starts the release in use in its place.
func (r *rolling) restart(name string) {
	r.t.Helper()
	if d := r.running[name]; d != nil {
		d.stop()
	}
	r.running[name] = r.start(r.args[name]...)
}

// whole waits until all members answer, those in the layout are open, and nothing is in progress; it tells the leader.
func (r *rolling) whole() (leader string) {
	r.t.Helper()
	eventually(r.t, func() error {
		got := r.run("", "layout", "status", "-o", "json")
		var s statusJSON
		if err := json.Unmarshal([]byte(got.stdout), &s); err != nil {
			return fmt.Errorf("%+v", got)
		}
		wrong := s.Epoch == 0 || s.EpochInProgress != 0 || s.Deficit != 0 || len(s.Members) != 5 || len(s.LayoutServers) != 3
		for _, m := range s.Members {
			wrong = wrong || m.Error != "" || m.Role == "" && (m.State != "open" || m.Epoch != s.Epoch)
		}
		leader = ""
		for _, x := range s.LayoutServers {
			wrong = wrong || x.Error != ""
			if x.Role == "leader" {
				leader = fmt.Sprint("layout-", x.ID)
			}
		}
		if wrong || leader == "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return leader
}

// appenders append until they are stopped; each error of theirs is a failure of the test.
type appenders struct {
	w       *witness
	log     *client.Log
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	errs    []error
	longest time.Duration
}

func (r *rolling) startAppenders(w *witness) *appenders {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log, err := client.Open(ctx, client.Options{LayoutServers: r.servers, Provider: testProvider(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	a := &appenders{w: w, log: log, stop: cancel}
	r.t.Cleanup(func() { // of a test that failed before: what was begun would wait for members that are gone
		cancel()
		_ = log.Close()
		a.running.Wait()
	})
	for i := range 4 {
		a.running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				payload := []byte(fmt.Sprintf("appender %d entry %d", i, n))
				began := time.Now()
				p, err := log.Append(context.WithoutCancel(ctx), payload) // what is begun is brought to its end
				a.note(time.Since(began), err)
				if err == nil {
					w.ack(p, payload)
				}
				time.Sleep(time.Millisecond) // leaves the processor to the members
			}
		})
	}
	return a
}

func (a *appenders) note(took time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.longest = max(a.longest, took)
	if err != nil {
		a.errs = append(a.errs, err)
	}
}

// TestRollingUpgradeUnderLoad replaces every member by one of another release, one after another, in the order of docs/upgrade.md: no
// append fails, nothing that was acknowledged is lost.
func TestRollingUpgradeUnderLoad(t *testing.T) {
	notInLab(t)
	r := startRolling(t)
	w := newWitness()
	load := r.startAppenders(w)
	awaitAcks(t, w)
	r.use("new")
	step := func(name string) {
		t.Helper()
		began := time.Now()
		r.restart(name)
		r.whole()
		awaitAcks(t, w)
		t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
	}
	// Layout servers, the leader last.
	leader := r.whole()
	for _, name := range []string{"layout-1", "layout-2", "layout-3"} {
		if name != leader {
			step(name)
		}
	}
	step(leader)
	// The sequencer that stands by, which then takes over, and the other one.
	step("seq-2")
	r.ok("seq", "failover", "--timeout", patience.String())
	awaitAcks(t, w)
	step("seq-1")
	for _, name := range []string{"unit-3", "unit-2", "unit-1"} {
		step(name)
	}
	load.stop()
	load.running.Wait()
	if err := load.log.Close(); err != nil {
		t.Error(err)
	}
	if len(load.errs) > 0 {
		t.Errorf("%d appends failed: %v", len(load.errs), errors.Join(load.errs[:min(5, len(load.errs))]...))
	}
	t.Logf("%d appends, the longest took %v", len(w.acked), load.longest.Round(time.Millisecond))
	for name, d := range r.running {
		if got := d.word("version"); got != "new" {
			t.Errorf("%s is of version %q", name, got)
		}
	}
	checkAll(t, r.servers[0], w)
}
