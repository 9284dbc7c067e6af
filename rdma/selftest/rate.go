package selftest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"corfu/rdma"
)

// rateDepth is how many lists of rateList FETCH_ADDs are in flight: more than any device answers at once.
const (
	rateDepth = 8
	rateList  = 8
)

// FetchAddRate adds 1 to the word at target, again and again for at least d, with many in flight, and tells how many were
// done a second. It fails if the values found do not rise without a gap: nobody else may write to the word, and an atomic may
// be neither lost nor done twice (rule R1).
func FetchAddRate(ctx context.Context, c rdma.Conn, target rdma.Remote, d time.Duration) (perSecond float64, err error) {
	var ring [rateDepth]*rdma.Batch
	for i := range ring {
		ring[i] = rdma.NewBatch(rateList)
		for range rateList {
			ring[i].FetchAdd(target, 1)
		}
	}
	start := time.Now()
	var next, n uint64
	known, more := false, true
	for i := 0; ; i++ {
		b := ring[i%rateDepth]
		if b.InFlight() {
			if err := c.Wait(ctx, b); err != nil {
				return 0, err
			}
			if !known {
				next, known = b.Old(0), true
			}
			for k := range rateList {
				if b.Old(k) != next {
					return 0, fmt.Errorf("rule R1: FETCH_ADD found %d, want %d", b.Old(k), next)
				}
				next++
			}
			n += rateList
		}
		if more = more && time.Since(start) < d; more {
			if err := c.Post(ctx, b); err != nil {
				return 0, err
			}
		} else if !slices.ContainsFunc(ring[:], (*rdma.Batch).InFlight) {
			return float64(n) / time.Since(start).Seconds(), nil
		}
	}
}

// Latency is what operations took, one at a time.
type Latency struct{ P50, P99 time.Duration }

// Measure does the list that fill makes n times, one after the other, and a tenth as often before that counts.
func Measure(ctx context.Context, c rdma.Conn, n int, fill func(b *rdma.Batch)) (Latency, error) {
	b := rdma.NewBatch(4)
	warm := n / 10
	took := make([]time.Duration, 0, n)
	for i := range n + warm {
		b.Reset()
		fill(b)
		start := time.Now()
		if err := c.Do(ctx, b); err != nil {
			return Latency{}, err
		}
		if i >= warm {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	return Latency{P50: took[len(took)/2], P99: took[len(took)*99/100]}, nil
}
