package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// TestBenchAtARate: a short run, as text and as JSON.
func TestBenchAtARate(t *testing.T) {
	notInLab(t)
	c := newCLIAlone(t)
	bench := func(args ...string) string {
		t.Helper()
		got := c.run("", append([]string{"bench"}, args...)...)
		if got.code != 0 || !strings.Contains(got.stderr, "100%") {
			t.Fatalf("exit %d, stderr %q", got.code, got.stderr)
		}
		return got.stdout
	}
	out := bench("--provider", "tcp", "--rate", "200", "--duration", "500ms", "-o", "json")
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var names []string
	for _, x := range r.Rates {
		names = append(names, x.Name)
		var n int64
		for _, b := range x.Buckets {
			n += b.Count
		}
		if x.Appends != 100 || n != 100 || x.PerSecond != 200 || x.Percentiles["p50"] <= 0 || x.Percentiles["max"] < x.Percentiles["p50"] {
			t.Errorf("%+v", x)
		}
	}
	if want := []string{"Append, 2 replicas, memory", "Append, 2 replicas, flash"}; !reflect.DeepEqual(names, want) || len(r.Latency)+len(r.Pauses)+len(r.Throughput) != 0 {
		t.Errorf("rows %v, want %v and nothing else: %+v", names, want, r)
	}
	text := bench("--provider", "tcp", "--rate", "200", "--duration", "500ms", "--only", "Append, 2 replicas, memory", "--rounds", "1", "--ops", "10", "--appenders", "1", "--pauses", "0")
	for _, want := range []string{"RECORDS OF 256 BYTES", "RECORDS/ENTRY", "100 at 200 a second for 500ms, each from the moment at which it was to begin", "up to ", "p50 ", "max ", "####"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("colours in a pipe")
	}
}
