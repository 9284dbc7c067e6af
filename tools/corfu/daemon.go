package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	sysd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"corfu/internal/statusweb"
	"corfu/internal/wire/pb"
	"corfu/rdma"
	"corfu/rdma/fabric"
	"corfu/tools/corfu/internal/strictyaml"
)

// daemonConfig is what every daemon's configuration file may hold. A flag given on the command line beats the file.
type daemonConfig struct {
	Dir      string       `yaml:"dir"`
	Control  string       `yaml:"control"`
	HTTP     string       `yaml:"http"`
	Insecure bool         `yaml:"insecure"`
	Fabric   fabricConfig `yaml:"fabric"`
}

type fabricConfig struct {
	Provider  string `yaml:"provider"`
	Device    string `yaml:"device"`
	Addr      string `yaml:"addr"`
	Listen    string `yaml:"listen"`
	HugePages bool   `yaml:"huge_pages"`
}

// httpOff as the HTTP address switches metrics and health off.
const httpOff = "off"

// daemonFlags are the flags that go with daemonConfig.
func daemonFlags(f *pflag.FlagSet, c *daemonConfig, config *string, control, http string) {
	f.StringVar(config, "config", "", "read settings from this YAML `file`")
	f.StringVar(&c.Dir, "dir", "", "`directory` of everything durable; made if it is not there")
	f.StringVar(&c.Control, "control", control, "`host:port` of the control service; port 0 takes a free one")
	f.StringVar(&c.HTTP, "http", http, "`host:port` of /metrics and /healthz, or off; a layout server's shows the cluster at /")
}

func fabricFlags(f *pflag.FlagSet, c *fabricConfig) {
	f.StringVar(&c.Addr, "fabric-addr", "", "IP `address` of the fabric (default: the device's, or loopback with tcp)")
	f.StringVar(&c.Listen, "fabric-listen", "", "`host:port` that clients' fabric connections come in at (default: a free port of the fabric address)")
	f.BoolVar(&c.HugePages, "huge-pages", false, "back registered memory by huge pages where there are any")
}

// loadConfig reads the file that --config names into c, under the flags that were given: they are set again after it.
func loadConfig(cmd *cobra.Command, path string, c any) error {
	if path == "" {
		return nil
	}
	given := map[string]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if _, list := f.Value.(pflag.SliceValue); !list {
			given[f.Name] = f.Value.String()
		}
	})
	if err := strictyaml.ReadFile(path, c); err != nil {
		return &usageError{err}
	}
	for name, value := range given {
		if err := cmd.Flags().Set(name, value); err != nil {
			return &usageError{err}
		}
	}
	return nil
}

// openFabric opens the device that the flags of all commands and the configuration ask for.
func (a *app) openFabric(c fabricConfig) (dev rdma.Device, reason string, err error) {
	if a.provider != "" {
		c.Provider = a.provider
	}
	if a.device != "" {
		c.Device = a.device
	}
	switch c.Provider {
	case "":
		c.Provider = "auto"
	case "auto", "verbs", "tcp":
	default:
		return nil, "", usagef("provider %q: must be auto, verbs or tcp", c.Provider)
	}
	dev, reason, err = fabric.Open(fabric.Options{Provider: c.Provider, Device: c.Device, Addr: c.Addr, HugePages: c.HugePages})
	if err != nil {
		return nil, "", fmt.Errorf("no fabric device: %w", err)
	}
	return dev, reason, nil
}

// daemon is a server as the commands run it.
type daemon interface {
	ControlAddr() string
	Health() error
	Close() error
}

// newRegistry holds the process's own metrics; the server adds its own.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// status serves /metrics and /healthz.
type status struct {
	server   *http.Server
	listener net.Listener
}

// serveStatus binds addr at once, so that a port that is taken is an error of the start. health may be called at any time.
//
// A server that knows the whole cluster shows it, too: d.Status (statusweb).
func serveStatus(addr string, r *prometheus.Registry, health func() error, d any) (*status, error) {
	if addr == httpOff {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("http: %w (--http names another address, or off)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if c, ok := d.(interface {
		Status(context.Context) (*pb.ClusterStatus, error)
	}); ok {
		statusweb.Mount(mux, c.Status)
	}
	s := &status{server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, listener: l}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *status) addr() string {
	if s == nil {
		return httpOff
	}
	return s.listener.Addr().String()
}

func (s *status) close() error {
	if s == nil {
		return nil
	}
	return s.server.Close()
}

// ready is what a daemon says once it serves; the other commands and service managers parse it with -o json.
type ready struct {
	Daemon   string `json:"daemon"`
	Version  string `json:"version"`
	Control  string `json:"control"`
	HTTP     string `json:"http"`
	Dir      string `json:"dir"`
	Provider string `json:"provider,omitempty"`
}

// serve runs a daemon until ctx ends: status page up, one line on stdout, graceful end.
func (a *app) serve(ctx context.Context, name string, c daemonConfig, provider string, start func(*prometheus.Registry) (daemon, error)) error {
	r := newRegistry()
	d, err := start(r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	st, err := serveStatus(c.HTTP, r, d.Health, d)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	if err := a.printReady(ready{name, version, d.ControlAddr(), st.addr(), c.Dir, provider}); err != nil {
		return errors.Join(err, st.close(), d.Close())
	}
	notify(sysd.SdNotifyReady)
	<-ctx.Done()
	notify(sysd.SdNotifyStopping)
	return errors.Join(st.close(), d.Close())
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
