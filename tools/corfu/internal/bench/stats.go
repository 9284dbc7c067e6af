package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Contestant is something whose latency is measured, one operation at a time.
type Contestant interface {
	// Name is its row in the table.
	Name() string
	// Round does ops operations, one after another, and returns how long each quantile took.
	Round(ctx context.Context, ops int) (Sample, error)
}

// Sample is what one round measured.
type Sample struct {
	P50, P99, P999 time.Duration
}

// Row gathers the rounds of one contestant: the median of each quantile, and the spread of the p50.
type Row struct {
	Name   string
	Rounds []Sample
}

// P50 is the median of the rounds' medians.
func (r Row) P50() time.Duration {
	return median(r.Rounds, func(s Sample) time.Duration { return s.P50 })
}

// P99 is the median of the rounds' 99th percentiles.
func (r Row) P99() time.Duration {
	return median(r.Rounds, func(s Sample) time.Duration { return s.P99 })
}

// Spread is the lowest and the highest p50 of all rounds.
func (r Row) Spread() (low, high time.Duration) {
	for i, s := range r.Rounds {
		if i == 0 || s.P50 < low {
			low = s.P50
		}
		high = max(high, s.P50)
	}
	return low, high
}

func median(rounds []Sample, of func(Sample) time.Duration) time.Duration {
	v := make([]time.Duration, len(rounds))
	for i, s := range rounds {
		v[i] = of(s)
	}
	slices.Sort(v)
	return Median(v)
}

// Median is that of values in ascending order; 0 if there are none.
func Median[T time.Duration | float64](v []T) T {
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// Ratios are those of the p50s of two contestants in rounds that ran side by side, in ascending order: a neighbour that is busy
// for some of the rounds moves their median least.
func Ratios(a, b Row) []float64 {
	n := min(len(a.Rounds), len(b.Rounds))
	v := make([]float64, 0, n)
	for i := range n {
		if b.Rounds[i].P50 > 0 {
			v = append(v, float64(a.Rounds[i].P50)/float64(b.Rounds[i].P50))
		}
	}
	slices.Sort(v)
	return v
}

// Interleave runs rounds of every contestant in turn, with a short warm-up first. step is called before each round.
func Interleave(ctx context.Context, cs []Contestant, rounds, ops int, step func(name string, round int)) ([]Row, error) {
	rows := make([]Row, len(cs))
	for i, c := range cs {
		rows[i].Name = c.Name()
		step(c.Name(), 0)
		if _, err := c.Round(ctx, max(1, ops/10)); err != nil {
			return nil, fmt.Errorf("%s: warm-up: %w", c.Name(), err)
		}
	}
	for r := range rounds {
		for i, c := range cs {
			step(c.Name(), r+1)
			s, err := c.Round(ctx, ops)
			if err != nil {
				return nil, fmt.Errorf("%s: round %d: %w", c.Name(), r+1, err)
			}
			rows[i].Rounds = append(rows[i].Rounds, s)
		}
	}
	return rows, nil
}

// Latencies is a histogram of 100 ns to 60 s with three digits.
type Latencies struct{ h *hdrhistogram.Histogram }

// NewLatencies makes an empty histogram.
func NewLatencies() Latencies { return Latencies{hdrhistogram.New(1, int64(60*time.Second/scale), 3)} }

const scale = 100 * time.Nanosecond

// Record adds one operation; longer ones than the histogram holds count as its longest.
func (l Latencies) Record(d time.Duration) {
	_ = l.h.RecordValue(min(max(int64(d/scale), 1), l.h.HighestTrackableValue()))
}

// At is the latency that the share q (0 to 100) of all operations stayed below.
func (l Latencies) At(q float64) time.Duration { return time.Duration(l.h.ValueAtQuantile(q)) * scale }

// Sample takes the quantiles that the tables show.
func (l Latencies) Sample() Sample {
	return Sample{P50: l.At(50), P99: l.At(99), P999: l.At(99.9)}
}

// Time measures ops calls of do. It looks at the clock once for each, as perftest does: an operation lasts from the end of
// the one before to its own end, so that what reading the clock costs counts once.
func Time(ctx context.Context, ops int, do func(ctx context.Context) error) (Sample, error) {
	begin := time.Now()
	ends := make([]time.Duration, ops)
	last := time.Since(begin)
	for i := range ends {
		if err := do(ctx); err != nil {
			return Sample{}, err
		}
		ends[i] = time.Since(begin)
	}
	l := NewLatencies()
	for _, end := range ends {
		l.Record(end - last)
		last = end
	}
	return l.Sample(), nil
}
