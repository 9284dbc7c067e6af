package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"corfu/rdma"
	"corfu/tools/corfu/internal/bench"
	"corfu/tools/corfu/internal/pausebench"
)

// pauseJSON is for how long appends stood still, as scripts read it. Times are milliseconds.
type pauseJSON struct {
	Name   string             `json:"name"`
	Count  int                `json:"count"`
	Median float64            `json:"p50_ms"`
	Worst  float64            `json:"worst_ms"`
	Bar    float64            `json:"bar_ms"` // for the median
	Met    bool               `json:"met"`
	Phases map[string]float64 `json:"phases_ms"` // of the reconfigurations, on average
}

// rebuildCostJSON is what appends took beside a rebuild and without.
type rebuildCostJSON struct {
	Pages   int      `json:"pages"`
	Seconds float64  `json:"seconds"`
	Rate    int      `json:"bytes_per_s"` // that it was allowed
	Before  rateJSON `json:"before"`
	During  rateJSON `json:"during"`
	After   rateJSON `json:"after"`
	Ratio   float64  `json:"p99_ratio"` // during, to the mean of before and after
}

// reconfigurationsPerDeath: a planned one is quick.
const reconfigurationsPerDeath = 5

const (
	rebuildPages = 16384 // 64 MiB: a second at the default rate
	rebuildRate  = 64 << 20
	rebuildFor   = 2 * time.Second
	rebuildLoad  = 500 // appends a second, far from what the machine can do
)

// pauseKinds are the rows of this part that were asked for.
func (b benchFlags) pauseKinds(dev rdma.Device) []string {
	if b.pauses == 0 {
		return nil
	}
	return slices.DeleteFunc(append(pausebench.Kinds(dev), pausebench.Rebuild), func(k string) bool { return !b.match.MatchString(k) })
}

// measurePauses measures how long appends stand still while the cluster changes.
func (a *app) measurePauses(ctx context.Context, dev rdma.Device, b benchFlags, rep *report) error {
	kinds := b.pauseKinds(dev)
	o := pausebench.Options{Device: dev, Dir: b.dir, Rounds: b.pauses, Planned: reconfigurationsPerDeath * b.pauses, Payload: benchPayload, Logger: a.logger(true)}
	steps := 0
	for _, k := range kinds {
		if steps += o.Steps(k); k == pausebench.Rebuild {
			steps += rebuildSteps - o.Steps(k)
		}
	}
	if steps == 0 {
		return nil
	}
	bar := a.newBar(int64(steps), "pauses")
	o.Step = func(what string) {
		bar.Describe(what)
		_ = bar.Add(1)
	}
	for _, k := range kinds {
		if k == pausebench.Rebuild {
			if err := a.measureRebuild(ctx, o, rep); err != nil {
				return err
			}
			continue
		}
		r, err := pausebench.Measure(ctx, o, k)
		if err != nil {
			return err
		}
		p := pauseJSON{Name: r.Name, Count: len(r.Pauses), Median: millis(r.Median()), Worst: millis(slices.Max(r.Pauses)), Bar: millis(r.Bar), Met: r.Met(), Phases: map[string]float64{}}
		for phase, d := range r.Phases {
			p.Phases[phase] = millis(d)
		}
		rep.Pauses = append(rep.Pauses, p)
	}
	return nil
}

// rebuildSteps is how often MeasureRebuild tells of a step.
const rebuildSteps = 4

func (a *app) measureRebuild(ctx context.Context, o pausebench.Options, rep *report) error {
	q := pausebench.RebuildOptions{Pages: rebuildPages, Rate: rebuildRate, PerSec: rebuildLoad, Duration: rebuildFor}
	r, err := pausebench.MeasureRebuild(ctx, o, q)
	if err != nil {
		return err
	}
	j := &rebuildCostJSON{Pages: r.Pages, Seconds: r.Copied.Seconds(), Rate: q.Rate}
	for _, x := range []struct {
		to   *rateJSON
		name string
		l    bench.Latencies
	}{{&j.Before, "before", r.Before}, {&j.During, "during", r.During}, {&j.After, "after", r.After}} {
		*x.to = newRateJSON(x.name, q.PerSec, q.Duration, x.l)
	}
	if base := j.Before.Percentiles["p99"] + j.After.Percentiles["p99"]; base > 0 {
		j.Ratio = 2 * j.During.Percentiles["p99"] / base
	}
	rep.Rebuild = j
	return nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (a *app) printPauses(r *report) error {
	if len(r.Pauses) > 0 {
		rows := [][]string{{"LONGEST APPEND, 2 REPLICAS, FLASH", "TIMES", "MEDIAN", "WORST", "BAR", "", "OF WHICH"}}
		for _, p := range r.Pauses {
			met := "met"
			if !p.Met {
				met = "NOT MET"
			}
			var phases []string
			for _, k := range slices.Sorted(maps.Keys(p.Phases)) {
				phases = append(phases, fmt.Sprintf("%s %.1f", k, p.Phases[k]))
			}
			rows = append(rows, []string{p.Name, fmt.Sprint(p.Count), fmt.Sprintf("%.1f ms", p.Median), fmt.Sprintf("%.1f ms", p.Worst), fmt.Sprintf("%.0f ms", p.Bar), met,
				strings.Join(phases, ", ")})
		}
		a.say("\n")
		if err := a.printTable(rows); err != nil {
			return err
		}
	}
	if x := r.Rebuild; x != nil {
		a.say("\nRebuild of %d pages in %.1f s, at most %d MiB/s; %d appends a second beside it: p99 %.2f times as long as without.\n", x.Pages, x.Seconds, x.Rate>>20, x.During.PerSecond, x.Ratio)
		rows := [][]string{{"", "APPENDS", "P50", "P99", "MAX"}}
		for _, l := range []rateJSON{x.Before, x.During, x.After} {
			rows = append(rows, []string{l.Name, fmt.Sprint(l.Appends), fmt.Sprintf("%.0f µs", l.Percentiles["p50"]), fmt.Sprintf("%.0f µs", l.Percentiles["p99"]), fmt.Sprintf("%.0f µs", l.Percentiles["max"])})
		}
		return a.printTable(rows)
	}
	return nil
}
