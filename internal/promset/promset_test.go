package promset

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// shown is what a scrape would give.
func shown(t *testing.T, reg *prometheus.Registry) (all []string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := f.Metric[0]
		all = append(all, fmt.Sprintf("%s %s %v %v %d", f.GetName(), f.GetHelp(), m.GetCounter().GetValue(), m.GetGauge().GetValue(), m.GetHistogram().GetSampleCount()))
	}
	return all
}

func sample() *Set {
	s := New("corfu_x_")
	s.Counter("things_total", "Things.").Add(3)
	s.Gauge("level", "Level.").Set(4)
	s.GaugeFunc("asked", "Asked.", func() float64 { return 5 })
	s.Histogram("wait_seconds", "Wait.", []float64{1, 2}).Observe(1)
	s.Add(prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_x_zeal_total", Help: "Zeal."}))
	return s
}

func TestASetIsShownUntilItIsUnregistered(t *testing.T) {
	reg := prometheus.NewRegistry()
	want := []string{"corfu_x_asked Asked. 0 5 0", "corfu_x_level Level. 0 4 0", "corfu_x_things_total Things. 3 0 0",
		"corfu_x_wait_seconds Wait. 0 0 1", "corfu_x_zeal_total Zeal. 0 0 0"}
	for range 2 { // the names are free again
		s := sample()
		if err := s.Register(reg); err != nil {
			t.Fatal(err)
		}
		if got := shown(t, reg); !slices.Equal(got, want) {
			t.Errorf("shown %q, want %q", got, want)
		}
		s.Unregister()
		s.Unregister()
		if got := shown(t, reg); got != nil {
			t.Errorf("still shown: %q", got)
		}
	}
}

// A set of which one is refused leaves nothing behind, and takes away nothing that is another's.
func TestASetIsRegisteredWholeOrNotAtAll(t *testing.T) {
	reg := prometheus.NewRegistry()
	other := New("corfu_x_")
	other.Gauge("asked", "Asked.").Set(9)
	if err := other.Register(reg); err != nil {
		t.Fatal(err)
	}
	s := sample()
	if err := s.Register(reg); err == nil {
		t.Error("a name that is taken was registered again")
	}
	s.Unregister()
	if got, want := shown(t, reg), []string{"corfu_x_asked Asked. 0 9 0"}; !slices.Equal(got, want) {
		t.Errorf("shown %q, want %q", got, want)
	}
}
