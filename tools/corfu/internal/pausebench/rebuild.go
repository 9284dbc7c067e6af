package pausebench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/sleep"
	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
)

// Rebuild is the name of the row.
const Rebuild = "pause: rebuild"

// RebuildOptions say what is rebuilt, beside Options.
type RebuildOptions struct {
	Pages    int           // older entries, of one page each
	Rate     int           // bytes a second at which they are copied
	PerSec   int           // appends a second, at a fixed rate
	Duration time.Duration // of each measurement; that beside the rebuild ends with it
}

// Rebuilt is what appends took, without and beside a rebuild: in one run, one cluster, two replicas each time.
type Rebuilt struct {
	Before, During, After bench.Latencies
	Pages                 int           // copied
	Copied                time.Duration // from the new epoch until the unit had all
}

// MeasureRebuild fills a cluster, measures appends, kills a unit, whose spare then gets the older entries, measures appends beside that,
// and once more when it is over.
func MeasureRebuild(ctx context.Context, o Options, b RebuildOptions) (r Rebuilt, err error) {
	metrics := prometheus.NewRegistry()
	c, err := devcluster.Start(ctx, devcluster.Options{
		Device: o.Device, Dir: o.Dir + "/rebuild", Chains: 1, Replicas: 2, Spares: 1, Poll: heartbeat, FailAfter: failAfter, RebuildRate: b.Rate,
		Geometry: layout.Geometry{PageSize: 4096, Window: 4096, SessionSlots: 256, MaxSessions: 8}, Registerer: metrics, Logger: o.Logger,
	})
	if err != nil {
		return r, fmt.Errorf("%s: %w", Rebuild, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: o.Device, Logger: o.Logger})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	payload := make([]byte, o.Payload)
	o.Step(Rebuild + ": writing what is copied later")
	if err := preload(ctx, log, payload, b.Pages); err != nil {
		return r, err
	}
	measure := func(until context.Context, what string) (bench.Latencies, error) {
		o.Step(Rebuild + ": " + what)
		return bench.AtRate(until, b.PerSec, b.Duration, func(_ context.Context, done func(error)) error {
			return log.AppendAsync(ctx, payload, func(_ layout.Position, err error) { done(err) })
		}, func(int) {})
	}
	if r.Before, err = measure(ctx, "appends before"); err != nil {
		return r, err
	}
	before := log.Layout().Epoch
	if err := c.KillUnit(2); err != nil {
		return r, err
	}
	joined := func(l *layout.Layout) bool { return l.Epoch > before && l.IsMember(3) }
	if err := await(ctx, log, joined); err != nil {
		return r, fmt.Errorf("%s: the spare does not join: %w", Rebuild, err)
	}
	began := time.Now()
	// The measurement ends a little before the rebuild does: the epoch that hands the older entries over is a pause of its own.
	beside, stop := context.WithCancel(ctx)
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() {
		defer stop()
		awaitRemaining(ctx, metrics, b.Pages/20, func() bool { return whole(log.Layout()) })
	})
	r.During, err = measure(beside, "appends beside the rebuild")
	watching.Wait()
	if err != nil && (!errors.Is(err, context.Canceled) || ctx.Err() != nil) {
		return r, err
	}
	if err := await(ctx, log, whole); err != nil {
		return r, fmt.Errorf("%s: it does not end: %w", Rebuild, err)
	}
	r.Copied, r.Pages = time.Since(began), b.Pages
	r.After, err = measure(ctx, "appends after it")
	return r, err
}

// await waits until the client's layout is as ok wants it.
func await(ctx context.Context, log *client.Log, ok func(*layout.Layout) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for !ok(log.Layout()) {
		if err := sleep.For(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// whole tells whether no chain lacks anything of the older positions.
func whole(l *layout.Layout) bool {
	_, older := l.Deficit(2)
	return older == 0
}

// awaitRemaining waits until a rebuild that has begun has no more than n pages left, or is over.
func awaitRemaining(ctx context.Context, metrics *prometheus.Registry, n int, over func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	begun := false
	for {
		left := gauge(metrics, "corfu_layout_rebuild_remaining_pages")
		begun = begun || left > 0
		if begun && left <= float64(n) || over() {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func gauge(r *prometheus.Registry, name string) float64 {
	all, _ := r.Gather()
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return 0
}

// preload appends n entries, many at once.
func preload(ctx context.Context, log *client.Log, payload []byte, n int) error {
	var wg sync.WaitGroup
	var left atomic.Int64
	var failed atomic.Pointer[error]
	left.Store(int64(n))
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				if _, err := log.Append(ctx, payload); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
