package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	sysd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/pflag"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/rdma"
	"corfu/rdma/fabric"
)

// daemonConfig is what every daemon's configuration file may hold. What its flags say, it need not say again.
type daemonConfig struct {
	Role     string    `yaml:"role" env:"-" doc:"the daemon that the file is for: layout, seq or unit. If it is there, no other takes the file"`
	Dir      string    `yaml:"dir" flag:"dir"`
	Control  string    `yaml:"control" flag:"control"`
	HTTP     string    `yaml:"http" flag:"http"`
	Clear    string    `yaml:"http_clear" flag:"http-clear"`
	Pprof    string    `yaml:"pprof" flag:"pprof"`
	Insecure bool      `yaml:"insecure" flag:"insecure"`
	TLS      tlsConfig `yaml:"tls"`
}

// fabricConfig is the section of the daemons that have a fabric device: seq and unit.
type fabricConfig struct {
	Provider  string `yaml:"provider" flag:"provider" doc:"what carries the data: auto (verbs if an RDMA device is usable, else tcp), verbs or tcp"`
	Device    string `yaml:"device" flag:"device"`
	Addr      string `yaml:"addr" flag:"fabric-addr"`
	Listen    string `yaml:"listen" flag:"fabric-listen"`
	Advertise string `yaml:"advertise" flag:"fabric-advertise"`
	HugePages bool   `yaml:"huge_pages" flag:"huge-pages"`
}

// httpOff as the HTTP address switches metrics and health off.
const httpOff = "off"

// daemonFlags are the flags that go with daemonConfig.
func daemonFlags(f *pflag.FlagSet, c *daemonConfig, control, http string) {
	f.StringVar(&c.Dir, "dir", "", "`directory` of everything durable; made if it is not there")
	f.StringVar(&c.Control, "control", control, "`host:port` of the control service; port 0 takes a free one")
	f.StringVar(&c.HTTP, "http", http, "`host:port` of /metrics, /livez and /readyz, or off; a layout server's shows the cluster at /. Outside loopback it asks for certificates")
	f.StringVar(&c.Clear, "http-clear", "", "`host:port` of /metrics, /livez and /readyz alone, in clear and for everybody, whatever certificates there are: for orchestrators and Prometheus without a certificate (default: none)")
	f.StringVar(&c.Pprof, "pprof", profilesLocal, "to `whom` the http port gives /debug/pprof/: local, any or off")
}

func perIdentityFlag(f *pflag.FlagSet, n *int) {
	f.IntVar(n, "max-sessions-per-identity", 0, "`sessions` at a time with one certificate's identity (default: half of all)")
}

// Who gets profiles.
const (
	profilesLocal = "local"
	profilesAny   = "any"
	profilesOff   = "off"
)

func fabricFlags(f *pflag.FlagSet, c *fabricConfig) {
	c.Provider = fabric.Auto
	f.StringVar(&c.Addr, "fabric-addr", "", "IP `address` of the fabric (default: the device's, the control service's if it is one of them; with tcp loopback, or with --insecure the control service's)")
	f.StringVar(&c.Listen, "fabric-listen", "", "`host:port` that clients' fabric connections come in at (default: a free port of the fabric address)")
	f.StringVar(&c.Advertise, "fabric-advertise", "", "`host` or host:port that clients are told to dial, an address of this machine's fabric (default: where it listens)")
	f.BoolVar(&c.HugePages, "huge-pages", false, "back registered memory by huge pages where there are any")
}

// check finds what no daemon could start with.
func (c *daemonConfig) check() error {
	bad := errors.Join(checkAddr("control", c.Control), checkAddr("http_clear", c.Clear), checkProfiles(c.Pprof))
	if c.HTTP == httpOff {
		return bad
	}
	return errors.Join(bad, checkAddr("http", c.HTTP))
}

func checkProfiles(whom string) error {
	switch whom {
	case profilesLocal, profilesAny, profilesOff:
		return nil
	}
	return usagef("pprof %q: must be local, any or off", whom)
}

// checkSessions of a daemon: 0 stands for the default.
func checkSessions(key string, n int) error {
	if n < 0 {
		return usagef("%s %d: must not be negative", key, n)
	}
	return nil
}

func (c *fabricConfig) check() error {
	var bad error
	if c.Addr != "" && net.ParseIP(c.Addr) == nil {
		bad = usagef("fabric.addr %q: must be an IP address", c.Addr)
	} else if ip := net.ParseIP(c.Addr); c.Addr != "" && (ip.IsUnspecified() || ip.IsMulticast()) {
		bad = usagef("fabric.addr %s: must be an address of this machine; fabric.listen may be %s:PORT", c.Addr, c.Addr)
	}
	return errors.Join(checkProvider(c.Provider), bad, checkAddr("fabric.listen", c.Listen))
}

func checkAddr(key, addr string) error {
	if _, _, err := net.SplitHostPort(addr); addr != "" && err != nil {
		return usagef("%s %q: must be host:port", key, addr)
	}
	return nil
}

func checkProvider(p string) error {
	switch p {
	case "", fabric.Auto, fabric.Verbs, fabric.TCP:
		return nil
	}
	return usagef("provider %q: must be auto, verbs or tcp", p)
}

// hostOf returns the host of "host:port"; of one without a host, which listens on all addresses, that.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err == nil && host == "" {
		return "0.0.0.0"
	}
	return host
}

// openFabric opens the device that the configuration asks for, of a daemon whose control service listens at control ("": of none).
func (a *app) openFabric(c fabricConfig, control string, insecure bool) (dev rdma.Device, reason string, err error) {
	dev, reason, err = fabric.Open(fabric.Options{Provider: c.Provider, Device: c.Device, Addr: c.Addr, Near: hostOf(control), HugePages: c.HugePages, Insecure: insecure || a.insecure})
	if err != nil {
		return nil, "", fmt.Errorf("no fabric device: %w", err)
	}
	return dev, reason, nil
}

// daemon is a server as the commands run it.
type daemon interface {
	ControlAddr() string
	prober
	Close() error
}

// newRegistry holds the process's own metrics; the server adds its own.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// ready is what a daemon says once it serves; the other commands and service managers parse it with -o json.
type ready struct {
	Daemon   string `json:"daemon"`
	Version  string `json:"version"`
	Control  string `json:"control"`
	HTTP     string `json:"http"`
	Clear    string `json:"http_clear,omitempty"`
	Dir      string `json:"dir"`
	Provider string `json:"provider,omitempty"`
}

// serve runs a daemon until ctx ends: status page up, one line on stdout, graceful end.
func (a *app) serve(ctx context.Context, name string, c daemonConfig, tls *certs.Source, provider string, watch *fabricWatch, start func(*prometheus.Registry) (daemon, error)) error {
	r := newRegistry()
	registerTLS(r, tls)
	d, err := start(r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	st, err := serveStatus(c.HTTP, cmp.Or(c.Pprof, profilesLocal), tls, c.Insecure || a.insecure, r, d)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	inClear, err := serveClear(c.Clear, r, d)
	if err != nil {
		return errors.Join(err, st.close(), d.Close())
	}
	if err := a.printReady(ready{name, version, d.ControlAddr(), st.addr(), inClear.clearAddr(), c.Dir, provider}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return errors.Join(err, inClear.close(), st.close(), d.Close())
	}
	notify(sysd.SdNotifyReady)
	cause := untilOver(ctx, watch.of(d))
	notify(sysd.SdNotifyStopping)
	if cause == nil {
		announceStop(d)
	}
	err = closeSoon(cause, func() error { return errors.Join(inClear.close(), st.close(), d.Close()) })
	if cause != nil {
		return fmt.Errorf("%s: %w", name, cause)
	}
	return err
}

// announceStop lets the leader of the layout servers know that somebody stops this member, and that it did not crash. A layout server
// hands leadership over in its Close.
func announceStop(d daemon) {
	if x, ok := d.(interface{ AnnounceStop(context.Context) error }); ok {
		ctx, cancel := context.WithTimeout(context.Background(), control.StopNoticeTime)
		defer cancel()
		_ = x.AnnounceStop(ctx) // nobody heard it: the member counts as failed, as if it had crashed
	}
}

// notify tells systemd what it waits for (sd_notify(3)), where a service with Type=notify asks for it. Whether it hears is not the daemon's business.
func notify(state string) { _, _ = sysd.SdNotify(false, state) }

func (a *app) printReady(r ready) error {
	if a.json() {
		return a.printJSON(r)
	}
	over := ""
	if r.Provider != "" {
		over = ", fabric " + r.Provider
	}
	_, err := fmt.Fprintf(a.stdout, "%s: control %s, http %s, data in %s%s\n", r.Daemon, r.Control, r.HTTP, r.Dir, over)
	return err
}
