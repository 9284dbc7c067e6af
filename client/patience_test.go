package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"corfu/layout"
)

// The wait for holes doubles with each that is filled, rows counting once, up to half a second; it
// comes down when there are none.
func TestPatienceGrowsWithFilledHoles(t *testing.T) {
	const base = 20 * time.Millisecond
	var h patience
	now := time.Now()
	want := func(what string, d time.Duration) {
		t.Helper()
		if got := h.wait(base, now); got != d {
			t.Errorf("%s: %v, want %v", what, got, d)
		}
	}
	want("at first", base)
	for range 32 {
		h.filling(base, now)
	}
	want("after a row of holes", 2*base)
	for range 10 {
		now = now.Add(time.Second)
		h.filling(base, now)
	}
	want("after many", mostPatience)
	now = now.Add(calmDown)
	want("after a calm while", 320*time.Millisecond)
	now = now.Add(10 * calmDown)
	want("after a long one", base)
	h.filling(time.Second, now)
	if got := h.wait(time.Second, now); got != time.Second {
		t.Errorf("a hole time-out above the bound: %v, want it as it is", got)
	}
}

// A writer that takes 100 ms from its token to its entry gets it into the log beside a reader that
// waits 20 ms for a hole.
func TestFarWriterIsNotStarvedByCloseReaders(t *testing.T) {
	NotInLab(t, "the time between two steps of an append")
	r := newRig(t, layout.Memory)
	far, near := r.open(), r.open()
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range near.Follow(ctx, 0) {
		}
	}()
	defer func() { cancel(); <-ended }()
	for tries := 1; ; tries++ {
		a, v := r.half(far, "from afar", false)
		time.Sleep(100 * time.Millisecond) // its round trip
		out, err := a.publish(r.ctx, v)
		if err != nil && !errors.Is(err, errOther) {
			t.Fatal(err)
		}
		a.recycle(false)
		if out == outDone {
			return
		}
		if tries == 20 {
			t.Fatalf("%d positions were lost to the reader", tries)
		}
	}
}
