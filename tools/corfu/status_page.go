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

// status serves /metrics and /healthz.
type status struct {
	server   *http.Server
	listener net.Listener
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

// serveStatus serves metrics, health and, to whom profiles says, profiles. It binds addr at once, so that a port that is taken is an
// error of the start. health may be called at any time.
//
// A server that knows the whole cluster shows it, too: d.Status (statusweb).
func serveStatus(addr, profiles string, tls *certs.Source, trusted bool, r *prometheus.Registry, health func() error, d any) (*status, error) {
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
	if profiles != profilesOff {
		addProfiles(mux, profiles == profilesAny)
	}
	s := &status{listener: l, server: &http.Server{Handler: mux, MaxHeaderBytes: maxStatusHeader,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute}}
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
