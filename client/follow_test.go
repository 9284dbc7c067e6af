package client

import (
	"context"
	"testing"
	"time"

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
	follower, err := Open(r.ctx, Options{LayoutServers: []string{r.LayoutAddr()}, Device: r.dev, Logger: testLog(), HoleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	lost, _ := r.half(l, "of the old epoch", false)
	defer lost.recycle(false)
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	want := []string{"first", "of the new epoch"}
	n := 0
	for e, err := range follower.Follow(ctx, 0) {
		if err != nil {
			t.Fatalf("after %d entries: %v", n, err)
		}
		if string(e.Payload) != want[n] {
			t.Fatalf("entry %d at %d: %q", n, e.Position, e.Payload)
		}
		if n++; n == len(want) {
			return
		}
		// Now it waits for the hole.
		go func() {
			time.Sleep(100 * time.Millisecond)
			if _, err := r.Reconfigure(r.ctx); err != nil {
				t.Error(err)
			}
			time.Sleep(300 * time.Millisecond)
			if p, err := l.Append(r.ctx, []byte(want[1])); err != nil || p != lost.pos {
				t.Errorf("append in the new epoch: position %d, %v; want %d", p, err, lost.pos)
			}
		}()
	}
}
