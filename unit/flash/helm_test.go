package flash

import (
	"sync/atomic"
	"testing"
	"time"
)

// watched gives a helm that is watched, and on which lone pages came for long enough.
func watched(t *testing.T, stop chan struct{}) (h *Helm, relieved chan bool) {
	t.Helper()
	h, relieved = NewHelm(), make(chan bool, 1)
	h.Took()
	for range lonely {
		if h.Begin() {
			t.Fatal("the helmsman writes before pages came alone for a while")
		}
		h.Ended(true)
	}
	if h.Begin() {
		t.Fatal("the helmsman writes and nobody watches")
	}
	go func() { relieved <- h.Relieve(stop) }()
	begin(t, h)
	return h, relieved
}

// begin waits until the helmsman writes.
func begin(t *testing.T, h *Helm) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !h.Begin(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody watches")
		}
	}
}

// A helmsman whose write hangs loses the helm, once; the next one starts without trust and unwatched.
func TestHelmPassesOnWhenAWriteHangs(t *testing.T) {
	stop := make(chan struct{})
	h, relieved := watched(t, stop)
	if !<-relieved {
		t.Fatal("relieved without the helm")
	}
	if h.End() {
		t.Fatal("two have the helm")
	}
	h.Took()
	for range lonely {
		h.Ended(true)
	}
	if h.Begin() {
		t.Fatal("the new helmsman writes and nobody watches")
	}
	go func() { relieved <- h.Relieve(stop) }()
	begin(t, h)
	if !<-relieved || h.End() {
		t.Fatal("the helm does not pass on again")
	}
}

// While nothing hangs the helm stays, also when nothing is written; then nobody watches until a lone page comes.
func TestHelmStaysWithWhoeverDoesNotHang(t *testing.T) {
	stop := make(chan struct{})
	h, relieved := watched(t, stop)
	// On a busy machine the pause between these two lines may be long enough to be relieved: that is no error.
	if !h.End() {
		t.Skip("the machine paused for milliseconds")
	}
	for end := time.Now().Add(time.Minute); h.word.Load()&helmState != helmAsleep; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the relief does not go to sleep")
		}
	}
	select {
	case <-relieved:
		t.Fatal("relieved while nothing was written")
	default:
	}
	begin(t, h)
	close(stop)
	if took := <-relieved; took == h.End() {
		t.Fatalf("taken %v: the helm has none or two", took)
	}
}

// However the relief's looks fall, one goroutine has the helm: what the owner alone may touch is not raced for.
func TestHelmHasOneOwner(t *testing.T) {
	h, stop := NewHelm(), make(chan struct{})
	var owned int // by whoever has the helm; the race detector watches
	var taken atomic.Int64
	hand := func(helm bool, done chan struct{}) {
		defer func() { done <- struct{}{} }()
		for helm || h.Relieve(stop) {
			h.Took()
			for helm = true; helm; {
				owned++
				pause := time.Duration(owned%4) * reliefAfter // some writes hang
				h.Ended(true)
				select {
				case <-stop: // also the end of the relief, who may leave a helm that says it is watched
					return
				default:
				}
				if !h.Begin() {
					time.Sleep(10 * time.Microsecond)
					continue
				}
				time.Sleep(pause)
				if helm = h.End(); !helm {
					taken.Add(1)
				}
			}
		}
	}
	done := make(chan struct{})
	go hand(true, done)
	go hand(false, done)
	for end := time.Now().Add(time.Minute); taken.Load() < 10; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the helm passed on %d times", taken.Load())
		}
	}
	close(stop)
	<-done
	<-done
}
