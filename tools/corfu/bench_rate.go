package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
)

// rateJSON is a measurement at a fixed rate, as scripts read it.
type rateJSON struct {
	Name        string             `json:"name"`
	PerSecond   int                `json:"appends_per_s"`
	Seconds     float64            `json:"seconds"`
	Appends     int64              `json:"appends"`
	Percentiles map[string]float64 `json:"percentiles_us"` // from the intended start
	Buckets     []bucketJSON       `json:"buckets"`

	latencies bench.Latencies
}

// bucketJSON counts the appends that took longer than the bucket before, and up to To.
type bucketJSON struct {
	To    float64 `json:"to_us"`
	Count int64   `json:"count"`
}

func newRateJSON(name string, perSecond int, d time.Duration, l bench.Latencies) rateJSON {
	r := rateJSON{Name: name, PerSecond: perSecond, Seconds: d.Seconds(), Appends: l.Count(), Percentiles: map[string]float64{}, latencies: l}
	for _, q := range bench.Percentiles {
		r.Percentiles[bench.PercentileName(q)] = micros(l.At(q))
	}
	for _, b := range l.Buckets() {
		r.Buckets = append(r.Buckets, bucketJSON{micros(b.To), b.Count})
	}
	return r
}

// measureRate appends at --rate, and counts each append's time from the moment at which it was to begin.
func (a *app) measureRate(ctx context.Context, x *appendRig, b benchFlags, rep *report) error {
	if b.rate == 0 {
		return nil
	}
	d := b.duration
	name := appendName(x.durability)
	total := int64(d.Seconds() * float64(b.rate))
	bar := a.newBar(total, fmt.Sprintf("%s: %d a second", name, b.rate))
	l, err := bench.AtRate(ctx, b.rate, d, func(ctx context.Context, done func(error)) error {
		return x.log.AppendAsync(ctx, x.payload, func(_ layout.Position, err error) { done(err) })
	}, func(begun int) { _ = bar.Set(begun) })
	if err != nil {
		return fmt.Errorf("%s, %d a second: %w", name, b.rate, err)
	}
	rep.Rates = append(rep.Rates, newRateJSON(name, b.rate, d, l))
	return nil
}

func (a *app) printRates(list []rateJSON) {
	for _, r := range list {
		a.say("\n%s: %d at %d a second for %v, each from the moment at which it was to begin\n\n%s",
			r.Name, r.Appends, r.PerSecond, time.Duration(r.Seconds*float64(time.Second)), r.latencies.Plot(a.width()))
	}
}

// width is how many columns stdout has: those of the terminal, or 80.
func (a *app) width() int {
	if f, ok := a.stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}
