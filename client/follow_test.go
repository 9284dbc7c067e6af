package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/layout"
)

// An epoch ends before anything was published at a position that it had handed out, and that Follow waits for. In the next one it is not handed
// out yet: Follow goes on there, and ends only with its context.
func TestFollowGoesOnWhereANewEpochBegins(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	if _, err := l.Append(r.ctx, []byte("first")); err != nil {
		t.Fatal(err)
	}
	follower, err := Open(r.ctx, Options{LayoutServers: []string{r.LayoutAddr()}, Device: r.dev, Logger: testLog(), HoleTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	lost, _ := r.half(l, "of the old epoch", false)
	defer lost.recycle(false)

	ctx, cancel := context.WithCancel(r.ctx)
	entries, ended := make(chan Entry, 2), make(chan error, 1)
	go func() {
		for e, err := range follower.Follow(ctx, 0) {
			if err != nil {
				ended <- err
				return
			}
			entries <- e
		}
	}()
	follows := true
	want := func(p layout.Position, payload string) {
		t.Helper()
		select {
		case e := <-entries:
			if got, want := fmt.Sprintf("%d: %s", e.Position, e.Payload), fmt.Sprintf("%d: %s", p, payload); got != want {
				t.Errorf("Follow yields %s; want %s", got, want)
			}
		case err := <-ended:
			follows = false
			t.Fatalf("Follow ended before %s: %v", payload, err)
		}
	}
	defer func() {
		if cancel(); follows {
			<-ended
		}
	}()

	want(lost.pos-1, "first")
	Until(t, "Follow to meet the hole", func() bool { return testutil.ToFloat64(follower.m.holes) == 1 })
	tails := testutil.ToFloat64(follower.m.calls.total[opTail][resOK])
	if _, err := r.Reconfigure(r.ctx); err != nil {
		t.Fatal(err)
	}
	Until(t, "Follow to learn that the hole is beyond the tail", func() bool { return testutil.ToFloat64(follower.m.calls.total[opTail][resOK]) > tails })
	if p, err := l.Append(r.ctx, []byte("of the new epoch")); err != nil || p != lost.pos {
		t.Errorf("append in the new epoch: position %d, %v; want %d", p, err, lost.pos)
	}
	want(lost.pos, "of the new epoch")
	if len(entries) > 0 || len(ended) > 0 {
		t.Error("Follow yields more than was appended, or ended")
	}
}
