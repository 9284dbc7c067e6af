package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"corfu/tools/corfu/internal/flashbench"
	"corfu/tools/corfu/internal/scratch"
)

func (a *app) benchFlashCommand() *cobra.Command {
	o := flashbench.Options{}
	var check bool
	cmd := &cobra.Command{
		Use: "bench-flash", Short: "Measure the flash engine against the disk below it", Args: cobra.NoArgs,
		Long: `Measure, side by side on one directory: durable page writes of the flash engine (core,
group commit, store, as a unit has them, without a network) and fio's with O_DSYNC; cold
random reads and fio's; then how long a start takes, for logs of several sizes. Rounds
are interleaved, the table shows medians. Needs fio, a quiet machine, and disk space:
about 5 GB as it is, less with fewer rounds or a lower --most.`,
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "`directory` on the disk to be measured (default: a temporary one)")
	f.IntVar(&o.Rounds, "rounds", 7, "rounds of each row")
	f.DurationVar(&o.Duration, "duration", 400*time.Millisecond, "how long one figure is measured")
	f.IntVar(&o.MB, "size", 512, "`MB` that are read from, and fio writes to")
	f.IntVar(&o.Most, "most", 150_000, "durable `writes` a second for which written space is made ready; for each second of each round")
	f.IntSliceVar(&o.Restart, "restart", []int{1000, 10_000, 100_000}, "`pages` of the logs that are opened")
	f.BoolVar(&check, "check", false, "exit with status 1 if a bar is not met")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) (err error) {
		switch {
		case o.Rounds < 1 || o.Duration < 10*time.Millisecond:
			return usagef("--rounds must be at least 1, --duration at least 10ms")
		case o.Most < 1:
			return usagef("--most %d: must be at least 1", o.Most)
		case o.MB < 16:
			return usagef("--size %d: must be at least 16", o.MB)
		}
		if _, err := exec.LookPath("fio"); err != nil {
			return errors.New("fio is not installed: apt-get install fio")
		}
		remove := func() error { return nil }
		if o.Dir, remove, err = scratch.In(o.Dir, "corfu-bench-flash-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		useProcessors()
		o.Step = func(what string) { a.say("%s\n", what) }
		rep, err := flashbench.Run(ctx, o)
		if err != nil {
			return err
		}
		if err := a.printFlash(rep); err != nil || !check {
			return err
		}
		for _, r := range rep.Ratios {
			if !r.Met {
				err = errors.Join(err, fmt.Errorf("%s is %.2f, and the bar %.2f", r.Name, r.Ratio, r.Bar))
			}
		}
		return err
	})
	return cmd
}

func (a *app) printFlash(rep *flashbench.Report) error {
	if a.json() {
		return a.printJSON(rep)
	}
	rows := [][]string{{"4 KIB", "DEPTH", "", "A SECOND", "MB/S", "P50", "P99"}}
	for _, r := range rep.Rows {
		rows = append(rows, []string{r.Kind, fmt.Sprint(r.Depth), r.Name, fmt.Sprintf("%.0f", r.Rate), fmt.Sprintf("%.1f", r.Rate*4096/1e6),
			fmt.Sprintf("%.0f µs", r.P50), fmt.Sprintf("%.0f µs", r.P99)})
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	a.say("\n%d CPUs, GOMAXPROCS %d\n\n", rep.CPUs, rep.Processors)
	rows = [][]string{{"RATIO", "", "ROUNDS", "BAR", ""}}
	for _, r := range rep.Ratios {
		bar, met := "", ""
		switch {
		case r.Bar == 0:
		case r.Met:
			bar, met = fmt.Sprintf("%.2f", r.Bar), "met"
		default:
			bar, met = fmt.Sprintf("%.2f", r.Bar), "NOT MET"
		}
		rows = append(rows, []string{r.Name, fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.2f to %.2f", r.Min, r.Max), bar, met})
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	a.say("\n")
	rows = [][]string{{"START WITH PAGES", "TIME", "READ", "HEAP"}}
	for _, r := range rep.Restarts {
		rows = append(rows, []string{fmt.Sprint(r.Pages), fmt.Sprintf("%.0f ms", r.Millis), fmt.Sprintf("%.1f MB", float64(r.Read)/1e6), fmt.Sprintf("%.1f MB", float64(r.Heap)/1e6)})
	}
	return a.printTable(rows)
}
