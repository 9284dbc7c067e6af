package client

import (
	"testing"

	"corfu/internal/messages"
	"corfu/layout"
)

// Units that left the layout learn of no newer one: a client whose informants they are must take others, though they still run.
func TestInformantsAreUnitsOfTheLayout(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	cc, err := l.control.get(l.Layout().Units[0].Control)
	if err != nil {
		t.Fatal(err)
	}
	n := news{l: l, conns: map[layout.UnitID]*messages.Conn{}}
	defer n.close()
	for gone := layout.UnitID(100); gone < 100+informants; gone++ { // as good as units that a layout before named
		if n.conns[gone], err = messages.Open(r.ctx, cc, l.dev, messages.Reader, 0); err != nil {
			t.Fatal(err)
		}
	}
	n.complete(r.ctx)
	if len(n.conns) != informants || !n.has(1) || !n.has(2) {
		t.Errorf("informants: %v", n.conns)
	}
}
