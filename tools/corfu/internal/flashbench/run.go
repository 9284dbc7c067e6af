package flashbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"corfu/tools/corfu/internal/bench"
)

// Options of Run.
type Options struct {
	Dir      string
	Rounds   int
	Duration time.Duration // of one figure
	MB       int           // of what is read
	Most     int           // writes a second for which room is made before; more find space without zeros
	Restart  []int         // pages of the logs that are opened
	Step     func(string)  // tells what is measured next
}

// Kinds of rows.
const (
	kindWrite      = "write"
	kindRead       = "read"
	kindMixedWrite = "write, 16 readers" // at the same time as
	kindMixedRead  = "read, 16 writes"
)

// engineName and fioMixed are rows that each kind of depth 16 has.
const (
	engineName = "corfu"
	fioMixed   = "fio psync"
)

// Row is one figure: medians of the rounds.
type Row struct {
	Kind  string  `json:"kind"`
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

// Report is what Run found.
type Report struct {
	Processors int       `json:"gomaxprocs"` // of this process, as a unit has them
	CPUs       int       `json:"cpus"`
	Rows       []*Row    `json:"rows"`
	Ratios     []Ratio   `json:"ratios"`
	Restarts   []Restart `json:"restarts"`
}

// measured is what one run of a row gives.
type measured struct {
	rate float64
	s    bench.Sample
	err  error
}

func as(rate float64, s bench.Sample, err error) measured { return measured{rate, s, err} }

// contest measures one row, or two at the same time.
type contest struct {
	rows []*Row
	run  func() []measured
}

// Run measures writes, reads and starts; the rounds of all rows are interleaved.
func Run(ctx context.Context, o Options) (*Report, error) {
	rep := &Report{Processors: runtime.GOMAXPROCS(0), CPUs: runtime.NumCPU()}
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

// room is how many pages the writes of all rounds may take.
func (o Options) room() int {
	each := (o.Duration + warmUp).Seconds() * float64(o.Most)
	return int(float64(o.Rounds) * (each/8 + each + each)) // depth 1, depth 16, depth 16 beside readers
}

func (rep *Report) beside(ctx context.Context, o Options) (err error) {
	pages := o.MB << 20 / pageSize
	o.Step("filling what is read, and making room for what is written")
	dir := filepath.Join(o.Dir, "unit")
	if err := Fill(dir, pages, o.room()); err != nil {
		return err
	}
	e, err := OpenEngine(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	cs := rep.contests(ctx, o, e, pages)
	for round := range o.Rounds {
		for i := range cs {
			c := cs[(i+round)%len(cs)] // nothing always follows the same
			r := c.rows[0]
			o.Step(fmt.Sprintf("round %d of %d: %s, depth %d, %s", round+1, o.Rounds, r.Kind, r.Depth, r.Name))
			for k, m := range c.run() {
				if m.err != nil {
					return fmt.Errorf("%s, %s, depth %d: %w", c.rows[k].Name, c.rows[k].Kind, c.rows[k].Depth, m.err)
				}
				c.rows[k].add(m)
			}
		}
	}
	for _, r := range rep.Rows {
		r.Rate, r.P50, r.P99 = median(r.rates), median(r.p50s), median(r.p99s)
	}
	rep.judge()
	return nil
}

func (r *Row) add(m measured) {
	r.rates = append(r.rates, m.rate)
	r.p50s = append(r.p50s, micros(m.s.P50))
	r.p99s = append(r.p99s, micros(m.s.P99))
}

// contests makes the rows.
func (rep *Report) contests(ctx context.Context, o Options, e *Engine, pages int) (cs []contest) {
	row := func(kind string, depth int, name string) *Row {
		r := &Row{Kind: kind, Depth: depth, Name: name}
		rep.Rows = append(rep.Rows, r)
		return r
	}
	one := func(kind string, depth int, name string, run func() measured) {
		cs = append(cs, contest{[]*Row{row(kind, depth, name)}, func() []measured { return []measured{run()} }})
	}
	two := func(name string, write, read func() measured) {
		cs = append(cs, contest{[]*Row{row(kindMixedWrite, 16, name), row(kindMixedRead, 16, name)}, func() []measured { return together(write, read) }})
	}
	writes := func(depth int) func() measured {
		return func() measured { return as(e.Writes(ctx, depth, o.Duration)) }
	}
	reads := func(depth int) func() measured {
		return func() measured { return as(e.Reads(ctx, pages, depth, o.Duration)) }
	}
	fio := func(f Fio) func() measured {
		f.Dir, f.MB = o.Dir, o.MB
		return func() measured { return as(f.Run(ctx, o.Duration)) }
	}
	engines := []string{"psync", "io_uring"}
	for _, depth := range []int{1, 16} {
		one(kindWrite, depth, engineName, writes(depth))
		for _, x := range engines {
			one(kindWrite, depth, "fio "+x, fio(Fio{Engine: x, Write: true, Depth: depth}))
		}
	}
	for _, depth := range []int{1, 16} {
		one(kindRead, depth, engineName, reads(depth))
		for _, x := range engines {
			one(kindRead, depth, "fio "+x, fio(Fio{Engine: x, Depth: depth}))
		}
	}
	two(engineName, writes(16), reads(16))
	two(fioMixed, fio(Fio{Engine: "psync", Write: true, Depth: 16}), fio(Fio{Engine: "psync", Depth: 16}))
	return cs
}

// together runs all at the same time.
func together(run ...func() measured) []measured {
	type at struct {
		i int
		m measured
	}
	c := make(chan at)
	for i, f := range run {
		go func() { c <- at{i, f()} }()
	}
	got := make([]measured, len(run))
	for range run {
		x := <-c
		got[x.i] = x.m
	}
	return got
}

func restart(dir string, n int) (r Restart, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := Fill(dir, n, 0); err != nil {
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
