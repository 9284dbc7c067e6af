package verbs

import (
	"context"
	"slices"
	"testing"
	"time"

	"corfu/rdma"
)

// In the lab, beside perftest, one run:
//
//	go test -c -o build/verbs.test ./rdma/verbs
//	make lab CMD='cd rdma/verbs && ib_atomic_lat -d rxe0 -x 1 -A FETCH_AND_ADD -n 3000 >/dev/null & sleep 1
//	  ib_atomic_lat -d rxe0 -x 1 -A FETCH_AND_ADD -n 3000 10.77.0.1; wait
//	  ../../build/verbs.test -test.run - -test.bench . -test.benchtime 3000x'
//
// Reported: p50 and p99 of Do in µs, and allocations, of which there must be none.

// busy polls for as long as anything can take, as perftest does.
var busy = rdma.ConnOptions{Spin: 10 * time.Millisecond}

func benchDo(b *testing.B, o rdma.ConnOptions, fill func(list *rdma.Batch, local *rdma.Memory, remote rdma.Region)) {
	d := lab(b)
	_, remote := shared(b, d, 1<<16)
	local, _ := shared(b, d, 1<<16)
	c, _ := pair(b, d, o)
	list := rdma.NewBatch(8)
	ctx := context.Background()
	took := make([]time.Duration, 0, 1<<16)
	do := func() {
		list.Reset()
		fill(list, local, remote)
		if err := c.Do(ctx, list); err != nil {
			b.Fatal(err)
		}
	}
	for range 100 {
		do()
	}
	b.ReportAllocs()
	last := time.Now()
	for b.Loop() {
		do()
		now := time.Now() // one look at the clock for each operation, as perftest has
		if len(took) < cap(took) {
			took = append(took, now.Sub(last))
		}
		last = now
	}
	slices.Sort(took)
	us := func(q int) float64 { return float64(took[len(took)*q/100]) / 1e3 }
	b.ReportMetric(us(50), "p50-µs")
	b.ReportMetric(us(99), "p99-µs")
}

func fetchAdd(l *rdma.Batch, _ *rdma.Memory, r rdma.Region) { l.FetchAdd(r.Remote(0), 1) }

func BenchmarkFetchAdd(b *testing.B) { benchDo(b, busy, fetchAdd) }

// With the default spin many answers of an emulated device come after it: this shows what sleeping costs.
func BenchmarkFetchAddDefaultSpin(b *testing.B) { benchDo(b, rdma.ConnOptions{}, fetchAdd) }

func BenchmarkFetchAddSleep(b *testing.B) { benchDo(b, rdma.ConnOptions{Spin: -1}, fetchAdd) }

func BenchmarkCompareSwap(b *testing.B) {
	n := uint64(0)
	benchDo(b, busy, func(l *rdma.Batch, _ *rdma.Memory, r rdma.Region) {
		l.CompareSwap(r.Remote(0), n, n+1)
		n++
	})
}

func BenchmarkWrite4K(b *testing.B) {
	benchDo(b, busy, func(l *rdma.Batch, m *rdma.Memory, r rdma.Region) { l.Write(m.Slice(0, 4096), r.Remote(4096)) })
}

func BenchmarkRead4K(b *testing.B) {
	benchDo(b, busy, func(l *rdma.Batch, m *rdma.Memory, r rdma.Region) { l.Read(m.Slice(0, 4096), r.Remote(4096)) })
}

func BenchmarkWrite4KThenCompareSwap(b *testing.B) {
	n := uint64(0)
	benchDo(b, busy, func(l *rdma.Batch, m *rdma.Memory, r rdma.Region) {
		l.Write(m.Slice(0, 4096), r.Remote(4096))
		l.CompareSwap(r.Remote(0), n, n+1)
		n++
	})
}

// Many goroutines on one connection: whoever waits reaps for all.
func BenchmarkFetchAddParallel(b *testing.B) {
	d := lab(b)
	_, remote := shared(b, d, 4096)
	c, _ := pair(b, d, rdma.ConnOptions{})
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		list := rdma.NewBatch(1)
		for pb.Next() {
			list.Reset()
			list.FetchAdd(remote.Remote(0), 1)
			if err := c.Do(context.Background(), list); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// The fast path allocates nothing.
func TestDoAllocates(t *testing.T) {
	d := lab(t)
	_, remote := shared(t, d, 4096)
	for _, spin := range []time.Duration{time.Millisecond, -1} {
		c, _ := pair(t, d, rdma.ConnOptions{Spin: spin})
		list := rdma.NewBatch(4)
		n := testing.AllocsPerRun(500, func() {
			list.Reset()
			list.FetchAdd(remote.Remote(0), 1)
			if err := c.Do(context.Background(), list); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("spin %v: %v allocations", spin, n)
		}
	}
}
