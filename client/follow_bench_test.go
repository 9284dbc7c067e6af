package client_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// How long after the append began a follower that waits has the entry, beside how long the append takes itself. Run with:
//
//	go test -run '^$' -bench Follow -benchtime 1000x ./client
func BenchmarkFollow(b *testing.B) {
	for _, d := range []layout.Durability{layout.Flash, layout.Memory} {
		b.Run(d.String(), func(b *testing.B) {
			c := start(b, devcluster.Options{Durability: d, Replicas: 2, Geometry: layout.DefaultGeometry()})
			l, reader := c.open(client.Options{}), c.open(client.Options{})
			ctx, cancel := context.WithCancel(context.Background())
			got := make(chan time.Time, 1)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for range reader.Follow(ctx, 0) {
					got <- time.Now()
				}
			}()
			defer func() { cancel(); <-ended }()
			payload := patterned(1, 4000)
			var acks, seen []time.Duration
			for b.Loop() {
				began := time.Now()
				if _, err := l.Append(ctx, payload); err != nil {
					b.Fatal(err)
				}
				acks = append(acks, time.Since(began))
				seen = append(seen, (<-got).Sub(began))
				time.Sleep(200 * time.Microsecond) // the follower waits again
			}
			slices.Sort(acks)
			slices.Sort(seen)
			p50 := func(s []time.Duration) float64 { return float64(s[len(s)/2].Nanoseconds()) / 1e3 }
			b.ReportMetric(p50(acks), "ack-p50-µs")
			b.ReportMetric(p50(seen), "seen-p50-µs")
			b.ReportMetric(p50(seen)/p50(acks), "seen/ack")
		})
	}
}
