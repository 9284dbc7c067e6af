package client

import (
	"context"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/layout"
)

// Appends that are in flight together allocate less than once in ten entries at any place: what a list or a step costs is shared by those that go together.
func TestAppendsInCompanyDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("means nothing under the race detector")
	}
	NotInLab(t, "the client's own code; rdma/verbs counts allocations of its own")
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l := r.open()
		ctx := context.Background()
		payload := make([]byte, 1000)
		free := make(chan error, 64)
		for range cap(free) {
			free <- nil
		}
		done := func(_ layout.Position, err error) { free <- err }
		appends := func(n int) {
			for range n {
				if err := <-free; err != nil {
					t.Fatal(err)
				}
				if err := l.AppendAsync(ctx, payload, done); err != nil {
					t.Fatal(err)
				}
			}
		}
		under := []string{"corfu/client.(*Log).AppendAsync", "corfu/client.(*stage[...]).run", "corfu/client.(*unitSession).receive", "corfu/client.(*lateness).run"}
		appends(2000)
		if _, err := l.Read(ctx, 0); err != nil {
			t.Fatal(err)
		}
		rate := runtime.MemProfileRate
		runtime.MemProfileRate = 1
		defer func() { runtime.MemProfileRate = rate }()
		before := allocated(t, under...)
		slow := testutil.ToFloat64(l.m.ackMissed)
		const n = 2000
		appends(n)
		after := allocated(t, under...)
		if slow = testutil.ToFloat64(l.m.ackMissed) - slow; slow > n/100 {
			t.Skipf("%v of %d acknowledgements took over %v: this machine is too busy to tell", slow, n, ackPatience)
		}
		for site, count := range after {
			if count -= before[site]; count > n/10+int64(slow)*40 {
				t.Errorf("%d allocations in %d appends at %s", count, n, site)
			}
		}
		for range cap(free) {
			<-free
		}
	})
}
