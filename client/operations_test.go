package client

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/layout"
)

// counted gives operation/result → calls as a registry shows them that took the log's Collector, and the calls timed.
func counted(t *testing.T, reg *prometheus.Registry) (calls, timed map[string]float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	calls, timed = map[string]float64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			switch f.GetName() {
			case "corfu_client_operations_total":
				if v := m.GetCounter().GetValue(); v != 0 {
					calls[m.Label[0].GetValue()+"/"+m.Label[1].GetValue()] = v
				}
			case "corfu_client_operation_seconds":
				if n := m.GetHistogram().GetSampleCount(); n != 0 {
					timed[m.Label[0].GetValue()] = float64(n)
				}
			}
		}
	}
	return calls, timed
}

// Every call of a Log counts once, under its operation and its result, and its time unless it failed.
func TestEveryCallIsCountedByItsResult(t *testing.T) {
	NotInLab(t, "the client's own code")
	r := newRig(t, layout.Flash)
	l := r.open()
	reg := prometheus.NewRegistry()
	reg.MustRegister(l.Collector())
	ctx := context.Background()
	must := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
	for range 3 {
		_, err := l.Append(ctx, []byte("x"))
		must(err, nil)
	}
	_, err := l.Append(ctx, make([]byte, 3*l.PagePayload())) // positions 3 to 6
	must(err, nil)
	_, err = l.Append(ctx, make([]byte, l.MaxPayload()+1))
	must(err, ErrTooLarge)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = l.Append(ended, []byte("x"))
	must(err, context.Canceled)
	_, err = l.Read(ctx, 0)
	must(err, nil)
	_, err = l.Read(ctx, 4)
	must(err, ErrFragment)
	_, err = l.Read(ctx, 1000)
	must(err, ErrUnwritten)
	must(l.Trim(ctx, 0), nil)
	_, err = l.Read(ctx, 0)
	must(err, ErrTrimmed)
	_, err = l.Read(ended, 1)
	must(err, context.Canceled)
	must(l.Fill(ctx, 1), nil)
	must(l.Fill(ctx, 1000), ErrUnwritten)
	must(l.TrimPrefix(ctx, 2), nil)
	_, err = l.Tail(ctx)
	must(err, nil)
	_, err = l.SlowTail(ctx)
	must(err, nil)
	first, err := l.FirstPosition(ctx)
	if must(err, nil); first != 2 {
		t.Errorf("FirstPosition is %d, want 2", first)
	}

	calls, timed := counted(t, reg)
	wantCalls := map[string]float64{"append/ok": 4, "append/error": 2, "read/ok": 1, "read/empty": 3, "read/error": 1, "fill/ok": 1, "fill/empty": 1,
		"trim/ok": 1, "trim_prefix/ok": 1, "tail/ok": 1, "slow_tail/ok": 1, "first_position/ok": 1}
	wantTimed := map[string]float64{"append": 4, "read": 4, "fill": 2, "trim": 1, "trim_prefix": 1, "tail": 1, "slow_tail": 1, "first_position": 1}
	if !maps.Equal(calls, wantCalls) {
		t.Errorf("counted %v, want %v", calls, wantCalls)
	}
	if !maps.Equal(timed, wantTimed) {
		t.Errorf("timed %v, want %v", timed, wantTimed)
	}
}
