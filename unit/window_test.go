package unit

import (
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// TestWindowBeginsAtTheFirstAddress: a spare joined a chain at its tail. It takes entries there, however far from 0, and what
// lies below is not its own.
func TestWindowBeginsAtTheFirstAddress(t *testing.T) {
	const first = layout.Address(10_000)
	b := newBench(t)
	l := testLayout(2)
	chains := l.Segments[0].Chains
	old := []layout.Chain{{Units: []layout.UnitID{99}}}
	l.Units = append(l.Units, layout.Unit{ID: 99, Control: "unit:99"})
	l.Segments = []layout.Segment{{Chains: old}, {Start: layout.Position(first), Chains: chains}}
	l.Segments[1].Chains[0].Base = first
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	_, err := b.seal(2)
	b.check(err)
	b.u.SetMemory(l, b.m)
	b.check(b.u.Load(b.d, 0, 0))
	v := b.u.View()
	w := layout.Address(testGeo.Window)
	if v.Base != first-w*3/4 || v.Watermark != first || v.End != first {
		t.Fatalf("view %+v", v)
	}
	for a := v.Base; a < v.Base+w; a++ {
		want := wire.Trimmed
		if a >= first {
			want = wire.Empty
		}
		b.wantState(a, want)
	}
	b.check(b.u.Reconciled(2))
	if _, err := b.u.Prepare(2); err != nil {
		t.Fatal(err)
	}
	b.m.registered = true
	b.u.Activate(2)
	for a := first; a < first+3*w; a++ {
		b.publish(a)
		b.u.Doorbell(1, a)
		b.flush()
	}
	if v := b.u.View(); v.Watermark != first+3*w || v.Base <= first {
		t.Errorf("view %+v", v)
	}
}
