package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/rdma"
	"corfu/tools/corfu/internal/bench"
)

// appendRig is a cluster of one chain of two units, and one client of it.
type appendRig struct {
	durability layout.Durability
	cluster    *devcluster.Cluster
	log        *client.Log
	payload    []byte
}

func (r *appendRig) open(ctx context.Context, dev rdma.Device, b benchFlags, a *app) (err error) {
	r.payload = make([]byte, benchPayload)
	for i := range r.payload {
		r.payload[i] = byte(i*7 + i>>8)
	}
	r.cluster, err = devcluster.Start(ctx, devcluster.Options{
		Device: dev, Dir: filepath.Join(b.dir, r.durability.String()), Chains: 1, Replicas: 2, Durability: r.durability, Logger: a.logger(true),
		Geometry: layout.Geometry{PageSize: 4096, Window: 4096, SessionSlots: 256, MaxSessions: 8}, // one client with all the staging
		Poll:     time.Second,                                                                      // health checks of two clusters weigh where a processor is emulated
	})
	if err != nil {
		return err
	}
	r.log, err = client.Open(ctx, client.Options{
		LayoutServers: []string{r.cluster.LayoutAddr()}, Device: dev, Spin: b.spin, Logger: a.logger(true),
	})
	if err != nil {
		return errors.Join(err, r.cluster.Close())
	}
	return nil
}

func (r *appendRig) close() error { return errors.Join(r.log.Close(), r.cluster.Close()) }

// Name implements bench.Contestant.
func (r *appendRig) Name() string { return appendName(r.durability) }

func appendName(d layout.Durability) string { return fmt.Sprintf("Append, 2 replicas, %v", d) }

// Round implements bench.Contestant.
func (r *appendRig) Round(ctx context.Context, ops int) (bench.Sample, error) {
	return bench.Time(ctx, ops, func(ctx context.Context) error {
		_, err := r.log.Append(ctx, r.payload)
		return err
	})
}

// throughput runs n appenders, each with one append outstanding, for d.
func (r *appendRig) throughput(ctx context.Context, n int, d time.Duration) (perSecond float64, err error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	start := time.Now()
	for range n {
		running.Add(1)
		go func() {
			defer running.Done()
			for time.Since(start) < d && failed.Load() == nil {
				if _, err := r.log.Append(ctx, r.payload); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				done.Add(1)
			}
		}()
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / time.Since(start).Seconds(), nil
}

func (a *app) measureThroughput(ctx context.Context, r *appendRig, b benchFlags, rep *report) error {
	if b.duration == 0 || len(b.appenders) == 0 {
		return nil
	}
	bar := a.newBar(int64(len(b.appenders)), "throughput")
	for _, n := range b.appenders {
		bar.Describe(fmt.Sprintf("throughput: %v, %d appenders", r.durability, n))
		rate, err := r.throughput(ctx, n, b.duration)
		if err != nil {
			return fmt.Errorf("throughput, %v, %d appenders: %w", r.durability, n, err)
		}
		rep.Throughput = append(rep.Throughput, throughputJSON{r.durability.String(), n, rate, rate * benchPayload / 1e6})
		_ = bar.Add(1)
	}
	return nil
}
