package flashbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"corfu/tools/corfu/internal/bench"
)

// Options of Run.
type Options struct {
	Dir      string
	Rounds   int
	Duration time.Duration // of one figure
	MB       int           // of what is read
	Restart  []int         // pages of the logs that are opened
	Step     func(string)  // tells what is measured next
}

// Row is one figure: medians of the rounds.
type Row struct {
	Kind  string  `json:"kind"` // "write" or "read"
	Depth int     `json:"depth"`
	Name  string  `json:"name"`
	Rate  float64 `json:"per_s"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`

	rates, p50s, p99s []float64
}

// Restart is one start of a store of Pages pages.
type Restart struct {
	Pages  int     `json:"pages"`
	Millis float64 `json:"ms"`
	Read   int64   `json:"read_bytes"`
	Heap   uint64  `json:"heap_bytes"` // in use afterwards
}

// Ratio compares the engine with the best of fio: the median over the rounds of the quotients of figures measured side by side.
type Ratio struct {
	Name  string  `json:"name"`
	Ratio float64 `json:"ratio"`
	Bar   float64 `json:"bar"`
	Met   bool    `json:"met"`
}

// Report is what Run found.
type Report struct {
	Rows     []*Row    `json:"rows"`
	Ratios   []Ratio   `json:"ratios"`
	Restarts []Restart `json:"restarts"`
}

// runner measures one row.
type runner struct {
	row *Row
	run func() (float64, bench.Sample, error)
}

// Run measures writes, reads and starts; the rounds of all rows are interleaved.
func Run(ctx context.Context, o Options) (*Report, error) {
	rep := &Report{}
	if err := rep.beside(ctx, o); err != nil {
		return nil, err
	}
	for _, n := range o.Restart {
		o.Step(fmt.Sprintf("a start with %d pages", n))
		r, err := restart(filepath.Join(o.Dir, "restart"), n)
		if err != nil {
			return nil, err
		}
		rep.Restarts = append(rep.Restarts, r)
	}
	return rep, nil
}

func (rep *Report) beside(ctx context.Context, o Options) (err error) {
	pages := o.MB << 20 / pageSize
	o.Step("filling what is read")
	reads := filepath.Join(o.Dir, "read")
	if err := Fill(reads, pages); err != nil {
		return err
	}
	reader, err := OpenEngine(reads)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	writer, err := OpenEngine(filepath.Join(o.Dir, "write"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	var rs []runner
	add := func(kind, name string, depth int, run func() (float64, bench.Sample, error)) {
		r := &Row{Kind: kind, Name: name, Depth: depth}
		rep.Rows = append(rep.Rows, r)
		rs = append(rs, runner{r, run})
	}
	for _, depth := range []int{1, 16} {
		add("write", "corfu", depth, func() (float64, bench.Sample, error) { return writer.Writes(ctx, depth, o.Duration) })
		for _, e := range []string{"psync", "io_uring"} {
			f := Fio{Engine: e, Write: true, Depth: depth, Dir: o.Dir, MB: o.MB}
			add("write", f.Name(), depth, func() (float64, bench.Sample, error) { return f.Run(ctx, o.Duration) })
		}
	}
	for _, depth := range []int{1, 16} {
		add("read", "corfu", depth, func() (float64, bench.Sample, error) { return reader.Reads(ctx, pages, depth, o.Duration) })
		for _, e := range []string{"psync", "io_uring"} {
			f := Fio{Engine: e, Depth: depth, Dir: o.Dir, MB: o.MB}
			add("read", f.Name(), depth, func() (float64, bench.Sample, error) { return f.Run(ctx, o.Duration) })
		}
	}
	for round := range o.Rounds {
		for _, r := range rs {
			o.Step(fmt.Sprintf("round %d of %d: %s, depth %d, %s", round+1, o.Rounds, r.row.Kind, r.row.Depth, r.row.Name))
			rate, s, err := r.run()
			if err != nil {
				return fmt.Errorf("%s, depth %d: %w", r.row.Name, r.row.Depth, err)
			}
			r.row.rates = append(r.row.rates, rate)
			r.row.p50s = append(r.row.p50s, micros(s.P50))
			r.row.p99s = append(r.row.p99s, micros(s.P99))
		}
	}
	for _, r := range rep.Rows {
		r.Rate, r.P50, r.P99 = median(r.rates), median(r.p50s), median(r.p99s)
	}
	rep.judge()
	return nil
}

func (rep *Report) judge() {
	add := func(name, kind string, depth int, bar float64, atMost bool, of func(*Row) []float64) {
		var mine []float64
		var best *Row // of fio's ways, the better one: nothing is won by a bad neighbour
		for _, r := range rep.Rows {
			switch {
			case r.Kind != kind || r.Depth != depth:
			case r.Name == "corfu":
				mine = of(r)
			case best == nil || (median(of(r)) < median(of(best))) == atMost:
				best = r
			}
		}
		var q []float64
		for i, x := range of(best) {
			if x > 0 {
				q = append(q, mine[i]/x)
			}
		}
		v := median(q)
		rep.Ratios = append(rep.Ratios, Ratio{name + " / " + best.Name, v, bar, (v <= bar) == atMost})
	}
	rate := func(r *Row) []float64 { return r.rates }
	add("p50 of a durable write, depth 1", "write", 1, 1.15, true, func(r *Row) []float64 { return r.p50s })
	add("durable writes a second, depth 16", "write", 16, 0.9, false, rate)
	add("cold random reads a second, depth 16", "read", 16, 0.85, false, rate)
}

func restart(dir string, n int) (r Restart, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := Fill(dir, n); err != nil {
		return r, err
	}
	runtime.GC()
	began := time.Now()
	e, err := OpenEngine(dir)
	if err != nil {
		return r, err
	}
	r = Restart{Pages: n, Millis: float64(time.Since(began).Microseconds()) / 1000, Read: e.store.Stats().Scanned}
	if got := int(e.u.View().End); got != n {
		err = fmt.Errorf("a store of %d pages ends at %d", n, got)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Heap = m.HeapInuse
	return r, errors.Join(err, e.Close())
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
