package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestProfilesAreForThisMachineAlone(t *testing.T) {
	for _, c := range []struct {
		from, host string
		anybody    bool
		want       int
	}{
		{"127.0.0.1:4000", "127.0.0.1:7880", false, http.StatusOK},
		{"[::1]:4000", "localhost:7880", false, http.StatusOK},
		{"10.0.0.9:4000", "10.0.0.1:7880", false, http.StatusForbidden},
		{"10.0.0.9:4000", "localhost", false, http.StatusForbidden},
		{"127.0.0.1:4000", "evil.example:7880", false, http.StatusForbidden},
		{"10.0.0.9:4000", "10.0.0.1:7880", true, http.StatusOK},
	} {
		mux := http.NewServeMux()
		addProfiles(mux, c.anybody)
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/goroutine?debug=1"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = c.from, c.host
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%s from %s as %s, anybody %v: %d, want %d", path, c.from, c.host, c.anybody, w.Code, c.want)
			}
		}
	}
}
