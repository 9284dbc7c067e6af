package main

import (
	"fmt"
	"maps"
	"slices"

	"corfu/layout"
)

// witness remembers over all boots what the outside was told, and judges each boot by it.
type witness struct {
	acked map[layout.Position]what
	seen  map[layout.Position]what // given to a reader, or acknowledged: may never change
	place map[what]layout.Position // where each value stands
	gone  map[what]bool            // values of appends that failed for certain

	wrong   []string
	missing map[layout.Position]bool // acknowledged, and found not to be there
	reads   int                      // facts told by readers

	from     layout.Position // this boot was asked to look from here on
	checked  layout.Position // up to here everything was looked at by a boot that got so far
	flash    map[layout.Position]line
	scan     map[layout.Position]what
	scanned  bool // this boot's scan is complete
	afterEnd bool // the cluster was stopped: flash lines say how it ended
}

func newWitness() *witness {
	return &witness{
		acked: map[layout.Position]what{}, seen: map[layout.Position]what{}, place: map[what]layout.Position{},
		gone: map[what]bool{}, missing: map[layout.Position]bool{},
	}
}

// overlap is how far a boot looks back beyond what was checked before, in positions: the newest are most at risk.
const overlap = 512

// begin starts a boot and says from where on it is to look: everything since the last
// complete look and a little more, or all.
func (w *witness) begin(all bool) layout.Position {
	w.from = 0
	if !all && w.checked > overlap {
		w.from = w.checked - overlap
	}
	w.flash, w.scan = map[layout.Position]line{}, map[layout.Position]what{}
	w.scanned, w.afterEnd = false, false
	return w.from
}

func (w *witness) blame(format string, args ...any) {
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// hear takes one line in.
func (w *witness) hear(l line) {
	switch l.fact {
	case factFlash:
		w.hearFlash(l)
	case factFlashDone:
		w.judgeFlash()
	case factRead:
		w.reads++
		if !w.scanned {
			w.scan[l.position] = l.what
		}
		if l.what.decided() {
			w.stands(l.position, l.what, "read")
			w.seen[l.position] = l.what
		} else if was, known := w.seen[l.position]; known {
			w.miss(l.position, fmt.Sprintf("position %d: was %s, now read as %s", l.position, was, l.what))
		}
	case factScanDone:
		w.judgeScan(layout.Position(l.number))
	case factAck:
		for i := range l.what.pages() {
			p, x := l.position+i, l.what
			if i > 0 {
				x = inside(l.position)
			}
			w.stands(p, x, "acknowledged")
			w.acked[p], w.seen[p] = x, x
		}
	case factLost:
		w.gone[l.what] = true
		if p, there := w.place[l.what]; there {
			w.blame("position %d holds %s, whose append was reported as failed", p, l.what)
		}
	case factClosed:
		w.afterEnd, w.flash = true, map[layout.Position]line{}
	case factEnd:
		for _, p := range slices.Sorted(maps.Keys(w.scan)) {
			if _, found := w.flash[p]; w.afterEnd && !found {
				w.miss(p, fmt.Sprintf("position %d: was read as %s, on no replica's flash after a clean stop", p, w.scan[p]))
			}
		}
	case factBad:
		w.blame("the guest says: %s", l.text)
	}
}

// miss notes that what was known of p is not there any more.
func (w *witness) miss(p layout.Position, text string) {
	if _, acked := w.acked[p]; acked {
		w.missing[p] = true
		text += " (acknowledged)"
	}
	w.blame("%s", text)
}

// stands compares what somebody found at p with all that is known.
func (w *witness) stands(p layout.Position, x what, how string) {
	if was, known := w.seen[p]; known && was != x && !(was == junk && x == part) {
		w.miss(p, fmt.Sprintf("position %d: was %s, now %s as %s", p, was, how, x))
	}
	if !x.isValue() {
		return
	}
	if q, there := w.place[x]; there && q != p {
		w.blame("%s stands at positions %d and %d", x, q, p)
	}
	w.place[x] = p
	if w.gone[x] {
		w.blame("position %d holds %s, whose append was reported as failed", p, x)
	}
}

func (w *witness) hearFlash(l line) {
	w.flash[l.position] = l
	w.stands(l.position, l.what, "on flash")
	if !w.afterEnd {
		return
	}
	// A cluster that recovered and was stopped in peace leaves no position half replicated.
	if l.copies != l.of {
		w.blame("position %d: %d of %d replicas have %s after a clean stop", l.position, l.copies, l.of, l.what)
	}
	if x := w.scan[l.position]; x != l.what && !(x == junk && l.what == part) {
		w.blame("position %d: was read as %q, but %s is on flash", l.position, x, l.what)
	}
}

// judgeFlash compares what the cut left with what was known; nothing was started since.
func (w *witness) judgeFlash() {
	for _, p := range slices.Sorted(maps.Keys(w.seen)) {
		if p < w.from {
			continue
		}
		l, found := w.flash[p]
		_, acked := w.acked[p]
		switch {
		case !found:
			w.miss(p, fmt.Sprintf("position %d: was %s, on no replica's flash", p, w.seen[p]))
		case acked && l.copies != l.of:
			w.miss(p, fmt.Sprintf("position %d: on the flash of %d of %d replicas", p, l.copies, l.of))
		}
	}
}

// judgeScan compares what clients read after recovery with what was known.
func (w *witness) judgeScan(tail layout.Position) {
	w.scanned = true
	for _, p := range slices.Sorted(maps.Keys(w.seen)) {
		if _, read := w.scan[p]; p >= w.from && !read {
			w.miss(p, fmt.Sprintf("position %d: was %s, beyond the tail %d now", p, w.seen[p], tail))
		}
	}
	w.judgeWhole()
	w.checked = max(w.checked, tail)
}

// judgeWhole: an entry of several positions was read at all of them, or at none.
func (w *witness) judgeWhole() {
	for _, p := range slices.Sorted(maps.Keys(w.scan)) {
		x := w.scan[p]
		for i := layout.Position(1); i < x.pages(); i++ {
			if got := w.scan[p+i]; got != inside(p) {
				w.miss(p, fmt.Sprintf("position %d: read as %s, but position %d as %q", p, x, p+i, got))
			}
		}
		if first, within := x.entry(); within && first >= w.from && p-first >= w.scan[first].pages() {
			w.miss(p, fmt.Sprintf("position %d: read as %s, where %q was read", p, x, w.scan[first]))
		}
	}
}

// verdict is nil if nothing was wrong; else the first few things.
func (w *witness) verdict() error {
	const shown = 10
	if len(w.wrong) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d things are wrong, %d acknowledged positions of %d are lost:", len(w.wrong), len(w.missing), len(w.acked))
	for _, s := range w.wrong[:min(shown, len(w.wrong))] {
		text += "\n  " + s
	}
	if n := len(w.wrong) - shown; n > 0 {
		text += fmt.Sprintf("\n  and %d more", n)
	}
	return fmt.Errorf("%s", text)
}
