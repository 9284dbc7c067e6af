package devcluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/devcluster"
	"corfu/layout"
)

// TestR17MemberReturnsWithItsStore: a unit that left its chain comes back with its store whole. It
// keeps what was decided before it left, so that next to nothing is copied, and what is damaged at
// the unit that stayed is repaired from it: wiping it would lose the only sound copy.
func TestR17MemberReturnsWithItsStore(t *testing.T) {
	if inLab {
		t.Skip("copies travel by gRPC: tcp shows it")
	}
	for _, away := range []layout.UnitID{1, 2} {
		t.Run(fmt.Sprint("unit ", away), func(t *testing.T) {
			ctx, dev := testContext(t), openDevice(t)
			metrics := prometheus.NewRegistry()
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Registerer: metrics})
			said := map[layout.Position]string{}
			more := func(n int) {
				t.Helper()
				for range n {
					text := fmt.Sprint("entry ", len(said))
					p, err := log.Append(ctx, []byte(text))
					if err != nil {
						t.Fatal(err)
					}
					said[p] = text
				}
			}
			more(800) // several windows: the damage below is cold
			stays := 3 - away
			if err := c.KillUnit(away); err != nil {
				t.Fatal(err)
			}
			out := awaitLayout(t, log, "the unit is left out", func(l *layout.Layout) bool { return !l.IsMember(away) })
			f, err := os.OpenFile(filepath.Join(c.UnitDir(stays), "seg-000000000000"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte{0xff, 0xff}, 100*4096+64)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
			more(100)
			was := counter(t, metrics, "corfu_layout_rebuild_copied_bytes_total")
			if err := c.RestartUnit(ctx, away); err != nil {
				t.Fatal(err)
			}
			whole := awaitLayout(t, log, "it is a member for all positions", func(l *layout.Layout) bool { return l.IsMember(away) && rebuilt(l) })
			new := float64(whole.Start-out.Start) * 100 // bytes of a page of this test, at most
			if sent := counter(t, metrics, "corfu_layout_rebuild_copied_bytes_total") - was; sent > new {
				t.Errorf("%v bytes were copied to a unit that lacked %d of %d positions", sent, whole.Start-out.Start, whole.Start)
			}
			more(50)
			for p, want := range said {
				if b, err := log.Read(ctx, p); err != nil || string(b) != want {
					t.Errorf("position %d is %q, %v; want %q. Unit %d had it damaged: %v", p, b, err, want, stays, p == 100)
				}
			}
		})
	}
}

// TestR17MemberThatReturnsToAnotherChainIsWiped: a unit comes back with its store whole and takes
// the place of a unit of another chain. At its addresses other positions live there, and what it
// has is worth nothing.
func TestR17MemberThatReturnsToAnotherChainIsWiped(t *testing.T) {
	if inLab {
		t.Skip("copies travel by gRPC: tcp shows it")
	}
	ctx, dev := testContext(t), openDevice(t)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 2})
	l := startLoad(t, ctx, log)
	l.more(600)
	if err := errors.Join(c.KillUnit(1), c.KillUnit(3)); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "units 1 and 3 are left out", func(l *layout.Layout) bool { return !l.IsMember(1) && !l.IsMember(3) })
	l.more(100)
	l.finish(ctx)
	// The chain of the first position of the new epoch takes the unit: one that left the other
	// chain is started.
	tail, err := log.SlowTail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	place, err := log.Layout().Locate(tail)
	if err != nil {
		t.Fatal(err)
	}
	other := place.Chain.Head()
	back := map[layout.UnitID]layout.UnitID{2: 3, 4: 1}[other]
	if err := c.RestartUnit(ctx, back); err != nil {
		t.Fatal(err)
	}
	whole := awaitLayout(t, log, "the unit is a member for all positions", func(l *layout.Layout) bool {
		open, older := l.Deficit(2)
		return l.IsMember(back) && open == 1 && older <= 1 && len(l.Segments) == 1
	})
	if !whole.HasChain([]layout.UnitID{other, back}) {
		t.Fatalf("unit %d did not join unit %d, so that this shows nothing: %+v", back, other, whole.Segments)
	}
	if err := errors.Join(log.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	compareFlash(t, c.UnitDir(other), c.UnitDir(back), 300)
	c.Units, c.Seqs, c.Layouts = nil, nil, nil
}
