package main

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/spf13/cobra"

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
	records     int // outstanding, of a Producer; 0: no records
	rate        int // appends a second; 0: no measurement at a fixed rate
	pauses      int // deaths of each kind; 0: no pauses
	check       bool
	only        string
	alone       bool           // --rate is all that was asked for
	match       *regexp.Regexp // of only
}

func (a *app) benchCommand() *cobra.Command {
	var b benchFlags
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure the log against the network that carries it", Args: cobra.NoArgs,
		Long: `Measure, side by side: single operations of the fabric; the bare path (the operations
of an append to 2 replicas in one loop, with nothing around them); Append with 2
replicas, durability memory and flash; and perftest, where it is installed and the
fabric is verbs. What is compared is open at the same time and nothing else is, and its
rounds are interleaved; the table shows medians of the rounds. Then, for each durability,
appends a second with several appenders at once, and small records a second that go
together as batches; and for how long appends stand still
while the cluster is reconfigured, or a member dies, and what a rebuild does to them.

With --rate, appends begin at that rate, whether those before them ended or not, and
each counts from the moment at which it was to begin: a server that stands still shows
in the percentiles with all who waited. A histogram is drawn. --rate alone measures
nothing else; --only adds to it.`,
		Example: `  corfu bench --rate 2000 --duration 30s
  corfu bench --only pause`,
	}
	f := cmd.Flags()
	f.IntVar(&b.rounds, "rounds", 5, "rounds of each row")
	f.IntVar(&b.ops, "ops", 1000, "operations of a round")
	f.DurationVar(&b.duration, "duration", 3*time.Second, "how long each throughput figure is measured; 0: no throughput")
	f.DurationVar(&b.spin, "spin", 0, "how long an operation polls before it sleeps (default: the fabric's 20µs)")
	f.StringVar(&b.dir, "dir", "", "`directory` in which the clusters are made, and removed (default: a temporary one)")
	f.IntSliceVar(&b.appenders, "appenders", []int{1, 16, 64}, "appenders at once, one throughput figure for each")
	f.IntVar(&b.records, "records", 512, "records of 256 bytes outstanding, packed into batches, for --duration; 0: none")
	f.StringVar(&b.only, "only", "", "measure only the rows whose name matches this regular `expression`")
	f.IntVar(&b.rate, "rate", 0, "`appends` a second, for --duration, begun on time and not one after the other (0: none)")
	f.IntVar(&b.pauses, "pauses", 2, "how often each member dies to measure the pause, and a fifth of the reconfigurations; 0: no pauses")
	f.BoolVar(&b.check, "check", false, "exit with status 1 if a bar is not met")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if b.rate > 0 && !cmd.Flags().Changed("only") {
			b.only = "^Append"
			b.alone = true
		}
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
	case b.records < 0 || b.records > 1_000_000:
		return usagef("--records %d: must be 0 to 1000000", b.records)
	case b.rate < 0 || b.rate > 10_000_000:
		return usagef("--rate %d: must be 0 to 10000000 appends a second", b.rate)
	case b.rate > 0 && b.duration == 0:
		return usagef("--rate needs a --duration above 0")
	case b.pauses < 0:
		return usagef("--pauses %d: must not be negative", b.pauses)
	}
	for _, n := range b.appenders {
		if n < 1 {
			return usagef("--appenders %d: must be at least 1", n)
		}
	}
	return nil
}

func (a *app) bench(ctx context.Context, b benchFlags) (err error) {
	dev, reason, err := a.openFabric(fabricConfig{}, "", false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	remove := func() error { return nil }
	if b.dir, remove, err = scratch.In(b.dir, "corfu-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	info := dev.Info()
	a.say("Fabric: %s, device %s (%s). Clusters in %s.\n", info.Provider, info.Name, reason, b.dir)
	rep := report{Provider: info.Provider, Device: info.Name, Reason: reason, Payload: benchPayload, Spin: b.spin.String()}
	if err := a.runStages(ctx, dev, b, &rep); err != nil {
		return err
	}
	if err := a.measurePauses(ctx, dev, b, &rep); err != nil {
		return err
	}
	if rep.empty() {
		return usagef("--only %q: no row matches", b.only)
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
