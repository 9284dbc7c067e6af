package devcluster_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestUnitIsDrainedAndAChainAddedUnderLoad: appends and reads go on, with pauses, while a unit leaves and a chain comes; then the unit that
// stayed in the drained one's chain is killed, so that the one which took the place has to know everything.
func TestUnitIsDrainedAndAChainAddedUnderLoad(t *testing.T) {
	ctx, dev := testContext(t), openDevice(t)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Spares: 3, FailAfter: 10 * time.Second}) // nobody is to fail before it is killed
	l := startLoad(t, ctx, log)
	l.more(500) // more than a window
	if _, err := c.Change(ctx, &pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1, By: 4}}}); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "unit 1 has left", func(l *layout.Layout) bool { return !l.IsMember(1) && l.IsMember(4) && rebuilt(l) })
	l.more(200)
	added, err := c.Change(ctx, &pb.ReconfigureRequest{Chain: []uint32{3, 5}})
	if err != nil {
		t.Fatal(err)
	}
	if last := added.Segments[len(added.Segments)-1]; last.Start != added.Start || len(last.Chains) != 2 || len(added.Segments) != 2 {
		t.Errorf("a chain was added: %+v", added)
	}
	l.more(600) // more than a window of the new chain, too
	if err := c.KillUnit(2); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "unit 2 is left out", func(l *layout.Layout) bool { return !l.IsMember(2) })
	l.more(200)
	l.finish(ctx)
	if p, err := log.SlowTail(ctx); err != nil || p < l.end {
		t.Errorf("tail %d, %v; %d was acknowledged", p, err, l.end-1)
	}
	if err := errors.Join(log.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	compareFlash(t, c.UnitDir(2), c.UnitDir(4), layout.Address(added.Start))
	compareFlash(t, c.UnitDir(3), c.UnitDir(5), 300)
	c.Units, c.Seqs, c.Layouts = nil, nil, nil
}

// TestR17CopyGoesOnInTheNextEpochAndUnderTheNextLeader: a spare joined and was sent the older positions, which takes long. Another epoch,
// or another leader, goes on with that: nothing is sent twice, and what was trimmed before and after is trimmed at the spare.
func TestR17CopyGoesOnInTheNextEpochAndUnderTheNextLeader(t *testing.T) {
	if os.Getenv("CORFU_LAB") == "1" {
		t.Skip("copies travel by gRPC: tcp shows it")
	}
	for _, next := range []string{"epoch", "leader"} {
		t.Run(next, func(t *testing.T) {
			ctx, dev := testContext(t), openDevice(t)
			metrics := prometheus.NewRegistry()
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Spares: 1, RebuildRate: 1000, Registerer: metrics})
			l := startLoad(t, ctx, log)
			l.more(600)
			if err := c.KillUnit(1); err != nil {
				t.Fatal(err)
			}
			joined := awaitLayout(t, log, "the spare joins", func(l *layout.Layout) bool { return l.IsMember(3) })
			sent := func() float64 { return counter(t, metrics, "corfu_layout_rebuild_copied_bytes_total") }
			eventually(t, "older pages are sent", func() error {
				if sent() == 0 {
					return errors.New("none")
				}
				return nil
			})
			was := sent()
			for p := layout.Position(100); p < 120; p++ {
				l.trim(ctx, p)
			}
			if next == "epoch" {
				if _, err := c.Reconfigure(ctx); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := errors.Join(c.StopLayout(0), c.StartLayout(ctx, 0)); err != nil {
					t.Fatal(err)
				}
				was = 0 // it counts anew
				// A layout server that is alone decides nothing before it has heard all members (rule R25): its directory may be an old copy.
				eventually(t, "the new leader has heard unit 2", func() error {
					s, err := c.Status(ctx)
					if err != nil {
						return err
					}
					for _, u := range s.Units {
						if u.Id == 2 && u.State == "open" {
							return nil
						}
					}
					return errors.New("not yet")
				})
			}
			l.trim(ctx, 120)
			awaitLayout(t, log, "the older positions are handed over", rebuilt)
			if again := sent() - was; again > float64(joined.Start)*4 { // an entry of this test has more than 80 bytes
				t.Errorf("%v bytes were sent again", again)
			}
			l.more(100)
			if err := c.KillUnit(2); err != nil {
				t.Fatal(err)
			}
			awaitLayout(t, log, "the spare alone", func(l *layout.Layout) bool { return !l.IsMember(2) })
			l.finish(ctx)
			if err := errors.Join(log.Close(), c.Close()); err != nil {
				t.Error(err)
			}
			compareFlash(t, c.UnitDir(2), c.UnitDir(3), layout.Address(joined.Start))
			c.Units, c.Seqs, c.Layouts = nil, nil, nil
		})
	}
}

func counter(t *testing.T, g prometheus.Gatherer, name string) (value float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}
