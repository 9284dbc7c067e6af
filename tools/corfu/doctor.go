package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/fabric"
	"corfu/tools/corfu/internal/config"
	"corfu/tools/corfu/internal/doctor"
)

// doctorFlags are those of corfu doctor.
type doctorFlags struct {
	peer, token, service, store string
	live                        bool
	trials                      int
}

func (a *app) doctorCommand() *cobra.Command {
	var d doctorFlags
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check this machine, its RDMA device, and the way to another machine", Args: cobra.NoArgs,
		Long: `Check everything between the RDMA device and the log that can be wrong, and say for each what
to do about it: device, port and link, atomics, GIDs by type, MTU, device files, the limit on
locked memory, huge pages, ordering switches, PFC, ECN and DSCP, NUMA, PCIe, IOMMU, clock. Then try on
the device itself what the log needs: FETCH_ADD, WRITE before CAS, latency, and that a
revoked key is refused. With --peer the same is tried with another machine, on which
corfu doctor serve runs.

Nothing is changed. With --config the settings of that daemon are what is checked for,
with --service its running process: its limits are not those of a shell.
Exit status 1 if a check failed; warnings cost speed or margin only.`,
		Example: `  corfu doctor
  corfu doctor --config /etc/corfu/unit-1.yaml --service corfu-unit@1
  corfu doctor --peer 10.0.0.5:7799 --token 6f1e8a90c2d4b357 -o json`,
	}
	f := cmd.Flags()
	f.StringVar(&d.peer, "peer", "", "`host:port` of a corfu doctor serve, to try the way to it")
	f.StringVar(&d.token, "token", "", "the `token` that doctor serve printed")
	f.StringVar(&d.service, "service", "", "look at the process of this systemd `unit`, such as corfu-unit@1")
	f.StringVar(&d.store, "store", "", "`path` of a unit's store, to see how far from the card its flash is (default: that of --config)")
	f.BoolVar(&d.live, "live", true, "try operations on the device; --live=false only reads")
	f.IntVar(&d.trials, "trials", 10_000, "how many lists of WRITE and CAS are tried for their order")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		switch {
		case d.trials < 1:
			return usagef("--trials %d: must be at least 1", d.trials)
		case d.token != "" && d.peer == "":
			return usagef("--token is that of a peer: say --peer, too")
		case d.peer != "" && !d.live:
			return usagef("--peer is for live tests: take --live=false away")
		}
		if err := checkAddr("--peer", d.peer); err != nil {
			return err
		}
		return a.doctor(ctx, d)
	})
	cmd.AddCommand(a.doctorServeCommand())
	return cmd
}

// doctorJSON is what doctor -o json prints.
type doctorJSON struct {
	OK       bool             `json:"ok"`
	Results  []doctor.Result  `json:"results"`
	Loopback *doctor.Measured `json:"loopback,omitempty"`
	Peer     *doctor.Measured `json:"peer,omitempty"`
}

func (a *app) doctor(ctx context.Context, d doctorFlags) error {
	w, err := a.wanted(d.store)
	if err != nil {
		return err
	}
	w.Service = d.service
	host := doctor.ThisHost()
	var out doctorJSON
	say := func(rs []doctor.Result) {
		out.Results = append(out.Results, rs...)
		if !a.json() {
			a.printResults(rs)
		}
	}
	say(host.Checks(w))
	if d.live {
		if err := a.doctorLive(ctx, d, w, host, &out, say); err != nil {
			return err
		}
	}
	failures := count(out.Results, doctor.Failure)
	out.OK = failures == 0
	if a.json() {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "\n%d ok, %d warnings, %d failures\n", count(out.Results, doctor.OK), count(out.Results, doctor.Warning), failures)
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d checks failed", failures, len(out.Results))
	}
	return nil
}

// doctorLive tries the device with itself, and then with the peer.
func (a *app) doctorLive(ctx context.Context, d doctorFlags, w doctor.Wanted, host *doctor.Host, out *doctorJSON, say func([]doctor.Result)) error {
	dev, facts, err := a.doctorDevice(w, host)
	if err != nil {
		say([]doctor.Result{{Name: "live", State: doctor.Failure, Says: oneLine(err), Do: "mend what failed above, and try again"}})
		return nil
	}
	defer dev.Close()
	trials := doctor.Trials{Order: d.trials}
	own, err := a.loopback(ctx, dev, facts, trials, say)
	if err != nil {
		return err
	}
	out.Loopback = &own
	if d.peer == "" {
		return nil
	}
	rs, got, err := doctor.Live(ctx, dev, doctor.Peer{Name: "peer", Addr: d.peer, Token: d.token}, facts, &own, trials)
	say(rs)
	out.Peer = &got
	return err
}

// loopback tries the device with itself: what it measures is what a peer is held against.
func (a *app) loopback(ctx context.Context, dev rdma.Device, facts doctor.Facts, trials doctor.Trials, say func([]doctor.Result)) (doctor.Measured, error) {
	s, err := doctor.NewServer(dev, net.JoinHostPort(dev.Info().Addr, "0"), "", facts, a.logger(true))
	if err != nil {
		say([]doctor.Result{{Name: "loopback", State: doctor.Failure, Says: oneLine(err), Do: "is the address of the device still there? corfu devices"}})
		return doctor.Measured{}, nil
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(serving) }()
	rs, got, err := doctor.Live(ctx, dev, doctor.Peer{Name: "loopback", Addr: s.Addr()}, facts, nil, trials)
	stop()
	if e := <-done; e != nil {
		a.logger(true).Error("loopback", "error", e)
	}
	say(rs)
	return got, err
}

// doctorDevice opens the device that is wanted.
func (a *app) doctorDevice(w doctor.Wanted, host *doctor.Host) (rdma.Device, doctor.Facts, error) {
	dev, reason, err := a.openFabric(fabricConfig{Provider: w.Provider, Device: w.Device, Addr: w.Addr}, "", false)
	if err != nil {
		return nil, doctor.Facts{}, err
	}
	a.logger(true).Debug("fabric", "why", reason)
	i := dev.Info()
	return dev, host.Facts(version, i.Provider, i.Name), nil
}

// wanted is what the settings ask of the machine: those of the file that --config names, of whatever role, else the clients'.
func (a *app) wanted(store string) (w doctor.Wanted, err error) {
	w = doctor.Wanted{Store: store, Memory: registeredMemory(layout.DefaultGeometry())}
	file := a.configFile()
	if file == "" {
		c, _, err := a.loadClient()
		if err != nil {
			return w, err
		}
		w.Provider, w.Device = c.Fabric.Provider, c.Fabric.Device
		return w, nil
	}
	role, err := config.Peek(file, "role")
	if err != nil {
		return w, &usageError{err}
	}
	if role, err = roleOf(file, role); err != nil {
		return w, err
	}
	if _, err = a.loadRole(role, file); err != nil {
		return w, err
	}
	switch c := a.roles[role].c.(type) {
	case *unitConfig:
		take(&w, c.Fabric)
		if w.Store == "" {
			w.Store = c.Store
		}
	case *seqConfig:
		take(&w, c.Fabric)
		w.Memory = 1 << 20 // a word, and clients' messages
	case *clientConfig:
		w.Provider, w.Device, w.Memory = c.Fabric.Provider, c.Fabric.Device, 1<<20
	case *layoutConfig:
		w.Provider, w.Memory = fabric.TCP, 0 // it has no fabric device
	}
	return w, nil
}

func take(w *doctor.Wanted, f fabricConfig) {
	w.Provider, w.Device, w.Addr, w.HugePages = f.Provider, f.Device, f.Addr, f.HugePages
}

// newToken is 64 random bits: enough for what is there for minutes.
func newToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// registeredMemory is about what a unit of that geometry registers: words and pages of the window, all sessions' staging, and
// 256 KiB for the messages of each.
func registeredMemory(g layout.Geometry) int64 {
	window := int64(g.Window) * int64(g.PageSize+rdma.WordSize)
	staging := int64(g.MaxSessions) * int64(g.SessionSlots) * int64(g.PageSize)
	return window + staging + int64(g.MaxSessions)<<18
}

func count(rs []doctor.Result, s doctor.State) (n int) {
	for _, r := range rs {
		if r.State == s {
			n++
		}
	}
	return n
}

func (a *app) printResults(rs []doctor.Result) {
	const margin = "                                     "
	for _, r := range rs {
		fmt.Fprintf(a.stdout, "%-8s %-27s %s\n", r.State, r.Name, r.Says)
		if a.verbose || r.State != doctor.OK || strings.Contains(r.Name, "latency") {
			for _, d := range r.Detail {
				fmt.Fprintf(a.stdout, "%s%s\n", margin, d)
			}
		}
		if r.Do != "" && r.State != doctor.OK {
			fmt.Fprintf(a.stdout, "%s→ %s\n", margin, r.Do)
		}
	}
}

func (a *app) doctorServeCommand() *cobra.Command {
	var listen, token string
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "serve", Short: "Be the other machine of corfu doctor --peer", Args: cobra.NoArgs,
		Long: `Be the other machine of corfu doctor --peer: lend a little memory, which holds nothing else, to
testers that know the token, one after the other. It listens on the fabric alone and ends by
itself after a while.`,
		Example: `  corfu doctor serve
  corfu doctor serve --listen 10.0.0.5:7799 --token 6f1e8a90c2d4b357 --for 1h`,
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "", "`host:port` of the fabric (default: port 7799 of the device's address)")
	f.StringVar(&token, "token", "", "what testers must say, at most 46 characters (default: a new one, which is printed)")
	f.DurationVar(&limit, "for", 15*time.Minute, "how long to serve")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := checkAddr("--listen", listen); err != nil {
			return err
		}
		if limit <= 0 {
			return usagef("--for %v: must be above zero", limit)
		}
		if len(token) > doctor.MaxToken {
			return usagef("--token: a token has at most %d bytes", doctor.MaxToken)
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return a.doctorServe(ctx, listen, token)
	})
	return cmd
}

func (a *app) doctorServe(ctx context.Context, listen, token string) error {
	w, err := a.wanted("")
	if err != nil {
		return err
	}
	dev, facts, err := a.doctorDevice(w, doctor.ThisHost())
	if err != nil {
		return err
	}
	defer dev.Close()
	if listen == "" {
		listen = net.JoinHostPort(dev.Info().Addr, "7799")
	}
	if facts.Provider == fabric.TCP {
		if err := a.checkClear(listen, false); err != nil {
			return err
		}
	}
	if token == "" {
		token = newToken()
	}
	s, err := doctor.NewServer(dev, listen, token, facts, a.logger(false))
	if err != nil {
		return err
	}
	if a.json() {
		err = a.printJSON(map[string]string{"peer": s.Addr(), "token": token, "device": facts.Device, "provider": facts.Provider})
	} else {
		_, err = fmt.Fprintf(a.stdout, "Serving on %s (%s). On the other machine: corfu doctor --peer %s --token %s\n", facts.Device, facts.Provider, s.Addr(), token)
	}
	if err != nil {
		return err
	}
	return s.Serve(ctx)
}
