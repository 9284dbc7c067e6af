package statusweb_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"corfu/internal/clusterstatus/statustest"
)

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

// TestEverythingComesFromHere: each part that the page names is served, under a policy that allows nothing else; nothing is inline.
func TestEverythingComesFromHere(t *testing.T) {
	s := newSite(t)
	s.state.Store(statustest.States()["healthy"])
	_, page := get(t, s.URL)
	named := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	for _, script := range []string{"/ui/page.js", "/ui/parts.js"} {
		_, text := get(t, s.URL+script)
		named = append(named, regexp.MustCompile(`from "([^"]+)"`).FindAllStringSubmatch(text, -1)...)
	}
	if len(named) < 8 {
		t.Fatalf("the page names %v", named)
	}
	for _, m := range named {
		path := m[len(m)-1]
		if path == "/metrics" { // the daemon's own
			continue
		}
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
			t.Errorf("%s comes from elsewhere", path)
			continue
		}
		r, _ := get(t, s.URL+path)
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self';") ||
			r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s %v", path, r.Status, r.Header)
		}
	}
	for _, inline := range []string{"<style", " style=", " onclick=", "<script>"} {
		if strings.Contains(page, inline) {
			t.Errorf("the page has %q in it, which its policy refuses", inline)
		}
	}
}

// TestStatusAsJSON: every field is there, numbers are numbers; without a leader the status is 503 and the body says what is known.
func TestStatusAsJSON(t *testing.T) {
	s := newSite(t)
	for name, code := range map[string]int{"healthy": http.StatusOK, "no-leader": http.StatusServiceUnavailable} {
		m := statustest.States()[name]
		s.state.Store(m)
		r, body := get(t, s.URL+"/api/status")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil || r.StatusCode != code || r.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %s %v %v: %s", name, r.Status, r.Header, err, body)
		}
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if _, ok := got[string(fields.Get(i).Name())]; !ok {
				t.Errorf("%s: no field %s", name, fields.Get(i).Name())
			}
		}
		if got["tail"] != float64(m.Tail) || got["verdict"] != m.Verdict || len(got["layout_servers"].([]any)) != len(m.LayoutServers) {
			t.Errorf("%s: %s", name, body)
		}
	}
	for _, path := range []string{"/api/other", "/ui/none.js", "/other"} {
		if r, _ := get(t, s.URL+path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	r, err := http.Post(s.URL+"/api/status", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %s", r.Status)
	}
}
