package bench

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"corfu/rdma/tcp"
)

const us = time.Microsecond

func TestRowReportsTheMedianOfItsRounds(t *testing.T) {
	r := Row{Name: "x", Rounds: []Sample{{P50: 9 * us, P99: 20 * us}, {P50: 1 * us, P99: 90 * us}, {P50: 2 * us, P99: 30 * us}}}
	low, high := r.Spread()
	got := []time.Duration{r.P50(), r.P99(), low, high}
	if want := []time.Duration{2 * us, 30 * us, 1 * us, 9 * us}; !reflect.DeepEqual(got, want) {
		t.Errorf("p50, p99, low, high: got %v, want %v", got, want)
	}
	if got := (Row{}).P50(); got != 0 {
		t.Errorf("no rounds: %v", got)
	}
}

func TestRatioComparesRoundsThatRanSideBySide(t *testing.T) {
	a := Row{Rounds: []Sample{{P50: 12 * us}, {P50: 120 * us}, {P50: 13 * us}}}
	b := Row{Rounds: []Sample{{P50: 10 * us}, {P50: 100 * us}, {P50: 10 * us}}}
	if got := Ratios(a, b); !reflect.DeepEqual(got, []float64{1.2, 1.2, 1.3}) {
		t.Errorf("ratios %v", got)
	}
	if got := Ratios(a, Row{}); len(got) != 0 {
		t.Errorf("ratios to nothing: %v", got)
	}
	if got := []float64{Median([]float64(nil)), Median([]float64{1, 3}), Median([]float64{1, 3, 9})}; !reflect.DeepEqual(got, []float64{0, 2, 3}) {
		t.Errorf("medians %v", got)
	}
}

const perftestAtomic = `---------------------------------------------------------------------------------------
                    Atomic FETCH_AND_ADD Latency Test
 Dual-port       : OFF		Device         : rxe0
---------------------------------------------------------------------------------------
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] 
 8       1000          18.11          350.37       19.53     	       20.89       	4.80		55.25   		240.37  
---------------------------------------------------------------------------------------
`

func TestParsePerftest(t *testing.T) {
	got, err := parsePerftest([]byte(perftestAtomic))
	want := Sample{P50: 19530 * time.Nanosecond, P99: 55250 * time.Nanosecond, P999: 240370 * time.Nanosecond}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := parsePerftest([]byte("Couldn't connect\n")); err == nil {
		t.Error("a failed run was taken for a result")
	}
	if _, err := parsePerftest([]byte(strings.Replace(perftestAtomic, "19.53", " -inf", 1))); !errors.Is(err, errNoFigure) {
		t.Errorf("a clock rate of 0: %v", err)
	}
}

// A small run of everything that needs no cluster: the CAS words are checked by each contestant.
func TestContestantsRun(t *testing.T) {
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v, err := OpenVerbs(ctx, dev, 0)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := OpenBarePath(ctx, dev, 4000, 0)
	if err != nil {
		t.Fatal(err)
	}
	// More operations than the ring has pages: generations step.
	cs := append(v.Contestants(), bare)
	rows, err := Interleave(ctx, cs, 2, barePages/2+100, func(string, int) {})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if r.Name != cs[i].Name() || len(r.Rounds) != 2 || r.P50() <= 0 {
			t.Errorf("row %d: %+v", i, r)
		}
	}
	if err := errors.Join(v.Close(), bare.Close(), dev.Close()); err != nil {
		t.Error(err)
	}
}

// What measuring costs by itself: it is part of every figure. Run: go test -bench Measuring ./tools/corfu/internal/bench
func BenchmarkMeasuring(b *testing.B) {
	l := NewLatencies()
	for b.Loop() {
		t := time.Now()
		l.Record(time.Since(t))
	}
}
