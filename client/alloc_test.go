package client

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/layout"
)

// The fast path allocates nothing. The units run in this process too, so the memory profile tells whose an allocation is.
func TestAppendDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("means nothing under the race detector")
	}
	NotInLab(t, "the client's own code; rdma/verbs counts allocations of its own") // and counting them all takes most of a minute there
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l := r.open()
		ctx := context.Background()
		payload := make([]byte, 4000)
		appends := func(n int) {
			for range n {
				if _, err := l.Append(ctx, payload); err != nil {
					t.Fatal(err)
				}
			}
		}
		appends(200)
		// Who has to look at a position, since something took long, takes pages from a pool that is made when it is first needed.
		if _, err := l.Read(ctx, 0); err != nil {
			t.Fatal(err)
		}
		rate := runtime.MemProfileRate
		runtime.MemProfileRate = 1
		defer func() { runtime.MemProfileRate = rate }()
		before := allocated(t, "corfu/client.(*Log).Append", "corfu/client.(*unitSession).receive")
		slow := testutil.ToFloat64(l.m.ackMissed)
		const n = 500
		appends(n)
		after := allocated(t, "corfu/client.(*Log).Append", "corfu/client.(*unitSession).receive")
		// An append whose acknowledgement is late (ackPatience) leaves the fast path and may allocate.
		slow = testutil.ToFloat64(l.m.ackMissed) - slow
		if slow > n/100 {
			t.Skipf("%v of %d acknowledgements took over %v: this machine is too busy to tell", slow, n, ackPatience)
		}
		for site, count := range after {
			if count -= before[site]; count > n/20+int64(slow)*40 {
				t.Errorf("%d allocations in %d appends at %s", count, n, site)
			}
		}
	})
}

// allocated counts the objects allocated under any of the functions, by the place of the allocation.
func allocated(t *testing.T, under ...string) map[string]int64 {
	t.Helper()
	runtime.GC()
	runtime.GC() // the profile is that of the cycle before
	records := make([]runtime.MemProfileRecord, 1<<16)
	n, ok := runtime.MemProfile(records, true)
	if !ok {
		t.Fatalf("%d records", n)
	}
	sites := map[string]int64{}
	for _, rec := range records[:n] {
		frames := runtime.CallersFrames(rec.Stack())
		site, mine := "", false
		for {
			f, more := frames.Next()
			if site == "" && !strings.HasPrefix(f.Function, "runtime.") {
				site = fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line)
			}
			mine = mine || slices.Contains(under, f.Function)
			if !more {
				break
			}
		}
		if mine {
			sites[site] += rec.AllocObjects
		}
	}
	return sites
}

// Run with: go test -run '^$' -bench Append ./client
func BenchmarkAppend(b *testing.B) {
	for _, d := range []layout.Durability{layout.Memory, layout.Flash} {
		b.Run(d.String(), func(b *testing.B) {
			r := newRig(b, d)
			l := r.open()
			ctx := context.Background()
			payload := make([]byte, 4000)
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := l.Append(ctx, payload); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}
