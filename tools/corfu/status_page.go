package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/internal/statusweb"
	"corfu/internal/wire/pb"
)

// status serves metrics and probes on one address.
type status struct {
	server   *http.Server
	listener net.Listener
}

// prober answers the probes of an orchestrator or a load balancer. Its methods may be called at any time.
type prober interface {
	Live() error  // nil unless only a new start helps
	Ready() error // nil if it does what its cluster asks of it now, waiting included
}

const (
	maxStatusConns  = 256
	maxStatusHeader = 16 << 10
)

// listenStatus opens the HTTP address: on loopback in clear, elsewhere with TLS for those who have a certificate of the cluster, whatever
// its role. Without certificates it refuses anything but loopback, unless the network is trusted.
func listenStatus(addr string, tls *certs.Source, trusted bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("http address %q: %w", addr, err)
	}
	clear := control.Loopback(host)
	if !clear && tls == nil && !trusted {
		return nil, fmt.Errorf("http address %q: %w", addr, control.ErrClear)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("http: %w (--http names another address, or off)", err)
	}
	l = netutil.LimitListener(l, maxStatusConns)
	if !clear && tls != nil {
		l = tls.Listen(l)
	}
	return l, nil
}

// serveStatus serves metrics, probes and, to whom profiles says, profiles. It binds addr at once, so that a port that is taken is an
// error of the start.
//
// A server that knows the whole cluster shows it, too: d.Status (statusweb).
func serveStatus(addr, profiles string, tls *certs.Source, trusted bool, r *prometheus.Registry, d prober) (*status, error) {
	if err := checkProfiles(profiles); err != nil {
		return nil, err
	}
	if addr == httpOff {
		return nil, nil
	}
	l, err := listenStatus(addr, tls, trusted)
	if err != nil {
		return nil, err
	}
	mux := measuresAndProbes(r, d)
	if c, ok := d.(interface {
		Status(context.Context) (*pb.ClusterStatus, error)
	}); ok {
		statusweb.Mount(mux, c.Status)
	}
	if profiles != profilesOff {
		addProfiles(mux, profiles == profilesAny)
	}
	return startStatus(l, mux), nil
}

// serveClear serves metrics and probes alone, to everybody who reaches addr. The empty string means that nothing is served so.
func serveClear(addr string, r *prometheus.Registry, d prober) (*status, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("http in clear: %w (--http-clear names another address)", err)
	}
	return startStatus(netutil.LimitListener(l, maxStatusConns), measuresAndProbes(r, d)), nil
}

// measuresAndProbes answers /metrics, /livez and /readyz. /healthz is the name that /readyz had first.
func measuresAndProbes(r *prometheus.Registry, d prober) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", probeHandler(d.Live))
	mux.HandleFunc("GET /readyz", probeHandler(d.Ready))
	mux.HandleFunc("GET /healthz", probeHandler(d.Ready))
	return mux
}

// probeHandler responds with 200, or with 503 and the reason.
func probeHandler(probe func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := probe(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

func startStatus(l net.Listener, h http.Handler) *status {
	s := &status{listener: l, server: &http.Server{Handler: h, MaxHeaderBytes: maxStatusHeader,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute}}
	go func() { _ = s.server.Serve(l) }()
	return s
}

func (s *status) addr() string {
	if s == nil {
		return httpOff
	}
	return s.listener.Addr().String()
}

// clearAddr is addr, and empty where nothing is served.
func (s *status) clearAddr() string {
	if s == nil {
		return ""
	}
	return s.addr()
}

func (s *status) close() error {
	if s == nil {
		return nil
	}
	return s.server.Close()
}
