package main

import (
	"net"
	"net/http"
	"net/http/pprof"
)

// addProfiles serves the profiles of net/http/pprof under /debug/pprof/. They show memory and slow the process down, so that only those on
// the same machine get them, whatever address the port listens at, unless anybody may.
func addProfiles(mux *http.ServeMux, anybody bool) {
	for path, h := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		mux.HandleFunc("GET /debug/pprof/"+path, func(w http.ResponseWriter, r *http.Request) {
			if !anybody && !(fromLoopback(r.RemoteAddr) && asLoopback(r.Host)) {
				http.Error(w, "profiles are for this machine alone (pprof: any in the configuration, or --pprof any, gives them to everybody)", http.StatusForbidden)
				return
			}
			h(w, r)
		})
	}
}

func fromLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// asLoopback: it was asked for under a name of this machine. A browser here may be made to ask by a page of somebody else's.
func asLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
