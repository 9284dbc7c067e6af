package flash

import (
	"sync/atomic"
	"time"
)

// Helm lets the goroutine that owns a unit's core, the helmsman, write a lone page by itself: handing it to another
// goroutine and the result back costs up to a third of what a fast disk takes. Meanwhile nobody serves the core, so it is
// done only where pages came alone for a while, and another goroutine, the relief, takes the helm if a
// write takes longer than a few milliseconds. The core has one owner at any time: who wins the word has the helm.
//
// The zero value is not ready; use NewHelm. All but Relieve is for the helmsman alone.
type Helm struct {
	word   atomic.Uint64 // number of the helmsman's write, and its state
	wake   chan struct{} // one token: the relief is wanted
	streak int           // lone writes, one after the other
}

// States of a Helm, in the lowest bits of its word.
const (
	helmAsleep  = iota // 0; nobody watches: the helmsman must not write
	helmWatched        // the relief looks in every few milliseconds
	helmWriting        // and the helmsman writes
	helmState   = 3    // mask
)

const (
	// lonely is how many writes must have been alone before the helmsman takes one on.
	lonely = 8
	// reliefAfter to twice as long is how long the helmsman may write.
	reliefAfter = 2 * time.Millisecond
)

// NewHelm makes a helm that nobody watches.
func NewHelm() *Helm { return &Helm{wake: make(chan struct{}, 1)} }

// Took says that the caller has taken the helm, at the start or from Relieve.
func (h *Helm) Took() { h.streak = 0 }

// Ended says that a batch is on flash; alone: it was one page, and nothing came while it was written.
func (h *Helm) Ended(alone bool) {
	if alone {
		h.streak++
	} else {
		h.streak = 0
	}
}

// Begin tells whether the helmsman may write one page by itself now. If so, End must follow.
func (h *Helm) Begin() bool {
	if h.streak < lonely {
		return false
	}
	w := h.word.Load()
	if w&helmState == helmAsleep {
		select {
		case h.wake <- struct{}{}:
		default:
		}
		return false
	}
	return h.word.CompareAndSwap(w, (w&^helmState)+(helmState+1)|helmWriting) // or it falls asleep
}

// End ends what Begin began. false: the relief has the helm, and the caller must not touch the core any more.
func (h *Helm) End() bool {
	w := h.word.Load()
	return w&helmState == helmWriting && h.word.CompareAndSwap(w, w&^helmState|helmWatched)
}

// Relieve waits until the helmsman's write takes too long, and takes the helm; it returns false when stop is closed: from
// then on nobody watches, whatever the word says, and the helmsman stops as well. One goroutine at a time calls it, the one
// that has not the helm.
func (h *Helm) Relieve(stop <-chan struct{}) bool {
	for {
		select {
		case <-h.wake:
		case <-stop:
			return false
		}
		if took, stopped := h.watch(stop); took || stopped {
			return took
		}
	}
}

// watch watches the helmsman for as long as it writes now and then.
func (h *Helm) watch(stop <-chan struct{}) (took, stopped bool) {
	seen := h.word.Load()&^helmState | helmWatched
	h.word.Store(seen) // nobody else changes it while it is asleep
	tick := time.NewTicker(reliefAfter)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return false, true
		}
		w := h.word.Load()
		if w == seen {
			// The same as a whole tick ago: the same write, or none.
			took = w&helmState == helmWriting
			if h.word.CompareAndSwap(w, w&^helmState) {
				return took, false
			}
			took = false
		}
		seen = w
	}
}
