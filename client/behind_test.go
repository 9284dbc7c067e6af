package client

import (
	"testing"

	"corfu/layout"
)

// A reader that does not know yet how far the window has moved learns it from the first words that it reads, and asks for what lies behind by runs,
// not page by page.
func TestFirstReadBehindTheWindowGoesByRuns(t *testing.T) {
	r := newRig(t, layout.Flash) // a window of 128
	l, reader := r.open(), r.open()
	const n = 1000
	var e asyncEnds
	for i := range n {
		r.async(l, &e, r.ctx, i, []byte("an entry"))
	}
	e.Wait()
	got := 0
	for x, err := range reader.ReadRange(r.ctx, 0, 800) {
		if err != nil {
			t.Fatalf("position %d: %v", x.Position, err)
		}
		got++
	}
	v := reader.current()
	s := v.units[v.layout.Segments[0].Chains[0].Tail()].cur.Load()
	if lists := s.reads.posted.Load(); got < 700 || lists > 100 { // of at most 64 pages, some of them twice; a few pages are junk where an append was slow
		t.Errorf("%d entries took %d lists; want at most 100", got, lists)
	}
}
