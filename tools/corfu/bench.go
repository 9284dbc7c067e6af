package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"corfu/layout"
	"corfu/rdma"
	"corfu/tools/corfu/internal/bench"
	"corfu/tools/corfu/internal/scratch"
)

// benchPayload is what an append of the benchmark carries, in bytes.
const benchPayload = 4000

// What the log has to keep to, as ratios of p50s.
const (
	barAppend   = 1.3 // Append under memory durability to the bare path
	barPerftest = 1.3 // our FETCH_ADD to perftest's
)

type benchFlags struct {
	rounds, ops int
	duration    time.Duration
	spin        time.Duration
	dir         string
	appenders   []int
	check       bool
	only        string
	match       *regexp.Regexp // of only
}

func (a *app) benchCommand() *cobra.Command {
	var b benchFlags
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure the log against the network that carries it", Args: cobra.NoArgs,
		Long: `Measure, side by side: single operations of the fabric; the bare path (the operations
of an append to 2 replicas in one loop, with nothing around them); Append with 2
replicas, durability memory and flash; and perftest, where it is installed and the
fabric is verbs. Rounds of all of them are interleaved; the table shows medians of the
rounds. Then appends a second with several appenders at once.`,
	}
	f := cmd.Flags()
	f.IntVar(&b.rounds, "rounds", 5, "rounds of each row")
	f.IntVar(&b.ops, "ops", 1000, "operations of a round")
	f.DurationVar(&b.duration, "duration", 3*time.Second, "how long each throughput figure is measured; 0: no throughput")
	f.DurationVar(&b.spin, "spin", 0, "how long an operation polls before it sleeps (default: the fabric's 20µs)")
	f.StringVar(&b.dir, "dir", "", "`directory` for the clusters (default: a temporary one)")
	f.IntSliceVar(&b.appenders, "appenders", []int{1, 16, 64}, "appenders at once, one throughput figure for each")
	f.StringVar(&b.only, "only", "", "measure only the rows whose name matches this regular `expression`")
	f.BoolVar(&b.check, "check", false, "exit with status 1 if a bar is not met")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := b.validate(); err != nil {
			return err
		}
		return a.bench(ctx, b)
	})
	return cmd
}

func (b *benchFlags) validate() (err error) {
	if b.match, err = regexp.Compile(b.only); err != nil {
		return usagef("--only %q: %w", b.only, err)
	}
	switch {
	case b.rounds < 1:
		return usagef("--rounds %d: must be at least 1", b.rounds)
	case b.ops < 10:
		return usagef("--ops %d: must be at least 10", b.ops)
	case b.duration < 0:
		return usagef("--duration %v: must not be negative", b.duration)
	}
	for _, n := range b.appenders {
		if n < 1 {
			return usagef("--appenders %d: must be at least 1", n)
		}
	}
	return nil
}

func (a *app) bench(ctx context.Context, b benchFlags) (err error) {
	dev, reason, err := a.openFabric(fabricConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	if b.dir == "" {
		remove := func() error { return nil }
		if b.dir, remove, err = scratch.Dir("corfu-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	info := dev.Info()
	a.say("Fabric: %s, device %s (%s). Clusters in %s.\n", info.Provider, info.Name, reason, b.dir)
	rig, err := openRig(ctx, dev, b, a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.close()) }()
	rep := report{Provider: info.Provider, Device: info.Name, Reason: reason, Payload: benchPayload, Spin: b.spin.String(), rig: rig}
	if err := a.measureLatency(ctx, rig, b, &rep); err != nil {
		return err
	}
	if err := a.measureThroughput(ctx, rig, b, &rep); err != nil {
		return err
	}
	rep.judge()
	if err := a.printReport(&rep); err != nil {
		return err
	}
	if b.check {
		return rep.verdict()
	}
	return nil
}

// rig is all that is measured, open at the same time: rounds are interleaved.
type rig struct {
	verbs       *bench.Verbs
	bare        *bench.BarePath
	appends     []*appendRig
	contestants []bench.Contestant // those of the above that are asked for, and perftest
	missing     []string           // perftest tools that are not installed
}

func openRig(ctx context.Context, dev rdma.Device, b benchFlags, a *app) (r *rig, err error) {
	r = &rig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.verbs, err = bench.OpenVerbs(ctx, dev, b.spin); err != nil {
		return r, fmt.Errorf("single operations: %w", err)
	}
	if r.bare, err = bench.OpenBarePath(ctx, dev, benchPayload, b.spin); err != nil {
		return r, fmt.Errorf("bare path: %w", err)
	}
	cs := append(r.verbs.Contestants(), r.bare)
	for _, d := range []layout.Durability{layout.Memory, layout.Flash} {
		x := &appendRig{durability: d}
		if !b.match.MatchString(x.Name()) {
			continue // a cluster that nobody measures still takes its share of the processor
		}
		if err := x.open(ctx, dev, b, a); err != nil {
			return r, fmt.Errorf("%s: %w", x.Name(), err)
		}
		r.appends = append(r.appends, x)
		cs = append(cs, x)
	}
	if info := dev.Info(); info.Provider == "verbs" {
		found, missing := bench.PerftestTools(info.Name, info.Addr)
		cs, r.missing = append(cs, found...), missing
	}
	for _, c := range cs {
		if b.match.MatchString(c.Name()) {
			r.contestants = append(r.contestants, c)
		}
	}
	if len(r.contestants) == 0 {
		return r, usagef("--only %q: no row matches", b.only)
	}
	return r, nil
}

func (r *rig) close() error {
	var errs []error
	for _, x := range r.appends {
		errs = append(errs, x.close())
	}
	if r.bare != nil {
		errs = append(errs, r.bare.Close())
	}
	if r.verbs != nil {
		errs = append(errs, r.verbs.Close())
	}
	return errors.Join(errs...)
}

func (a *app) measureLatency(ctx context.Context, r *rig, b benchFlags, rep *report) error {
	cs := r.contestants
	bar := a.newBar(int64(len(cs)*(b.rounds+1)), "latency")
	rows, err := bench.Interleave(ctx, cs, b.rounds, b.ops, func(name string, round int) {
		what := fmt.Sprintf("latency, round %d of %d: %s", round, b.rounds, name)
		if round == 0 {
			what = "warming up: " + name
		}
		bar.Describe(what)
		_ = bar.Add(1)
	})
	rep.rows = rows
	return err
}
