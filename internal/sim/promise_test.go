package sim

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"corfu/client"
	"corfu/internal/wire/pb"
)

// three is a run with three layout servers that think that they lead, one after the other.
type three struct {
	*testing.T
	c *cluster
	f *Fabric
}

// leads makes layout server i the leader. The ones before do not hear of it. As soon as it knows unit 2, it cannot reach it any more.
func (x three) leads(i int) {
	x.c.raft.elect(layoutName(i))
	time.Sleep(100 * time.Millisecond)
	x.cut(layoutName(i), unitName(2))
}

func (x three) cut(a, b string) {
	x.f.Block(a, b, true)
	x.f.Block(b, a, true)
}

// comes waits for a call that is held.
func (x three) comes(what string, came <-chan struct{}) {
	x.Helper()
	select {
	case <-came:
	case <-time.After(2 * time.Second):
		x.Fatalf("%s: no call", what)
	}
}

// restart ends a unit and starts it again.
func (x three) restart(id int) {
	bury, ok := x.c.kill(x.c.units, id, true)
	if !ok {
		x.Fatalf("unit %d is down", id)
	}
	bury()
	if err := x.c.startUnit(id); err != nil {
		x.Fatal(err)
	}
}

// lateSeal is the run of docs/model, R14-volatile-promise, for the programs. Three reconfigurers leave out unit 2 and let unit 3 join. The
// first one's seals at epoch 2 are late. The second one seals and records epoch 2, and its orders to reconcile are late. The third one
// aborts that, and makes epoch 3 ACTIVE, in which an append is acknowledged. Then unit 3 restarts, if it is to, the late calls arrive, and unit 1
// is gone, so that the log goes on with unit 3 alone: the tail counts (rule R16).
func lateSeal(t *testing.T, restarts bool) *History {
	dir, h := scratch(t), newHistory()
	synctest.Test(t, func(t *testing.T) {
		f := NewFabric(*seedFlag, Weird{Late: time.Microsecond, Disk: 10 * time.Microsecond})
		log := slog.New(slog.DiscardHandler)
		if *logFlag {
			log = slog.Default()
		}
		c, err := start(f, dir, Shape{Chains: 1, Replicas: 2, Spares: 1, Layouts: 3, Heals: true, NoFabric: true}, 2*time.Millisecond, log)
		if err != nil {
			t.Fatal(err)
		}
		x := three{t, c, f}
		defer func() {
			c.close()
			time.Sleep(time.Minute)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l, err := c.open(ctx, "client", client.Options{HoleTimeout: time.Millisecond, OpTimeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}

		seal, deliverSeals := f.Hold(layoutName(1), pb.UnitService_Seal_FullMethodName)
		_, deliverOther := f.Hold(layoutName(1), pb.SequencerService_Seal_FullMethodName)
		x.leads(1)
		x.comes("seal at epoch 2", seal)
		reconcile, deliverOrders := f.Hold(layoutName(2), pb.UnitService_Reconcile_FullMethodName)
		x.leads(2)
		x.comes("reconcile for epoch 2", reconcile)
		x.cut(layoutName(3), unitName(2)) // before it hears of it, or it would go on with it at once
		x.leads(3)
		h.append(ctx, l, 1, "acknowledged")
		if e := l.Layout().Epoch; e != 3 {
			t.Fatalf("the append was in epoch %d", e)
		}

		f.Pause(layoutName(3)) // or it would open unit 3 again at once
		if restarts {
			x.restart(3)
		}
		deliverSeals()
		time.Sleep(5 * time.Millisecond)
		deliverOrders()
		time.Sleep(20 * time.Millisecond)
		deliverOther()
		for _, other := range []string{"client", unitName(3), seqName(1), layoutName(1), layoutName(2), layoutName(3)} {
			x.cut(unitName(1), other)
		}
		f.Resume(layoutName(3))
		if err := h.read(ctx, l, 1, 0); err != nil {
			t.Fatal(err)
		}
		if e := l.Layout().Epoch; restarts && e < 4 {
			t.Fatalf("the read was in epoch %d", e)
		}
	})
	return h
}

// Rule R14: what was promised holds, after a restart as well.
func TestR14LateSealsAreRefused(t *testing.T) {
	for _, restarts := range []bool{true, false} {
		if err := lateSeal(t, restarts).known.Check(); err != nil {
			t.Errorf("restarts: %v: %v", restarts, err)
		}
	}
}
