package server

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
)

// TestNewLeaderNoticesWhoDiedWithTheOldOne: units that are open say that the log ran, so that one that the new leader never heard has no more
// time than any other.
func TestNewLeaderNoticesWhoDiedWithTheOldOne(t *testing.T) {
	for _, dead := range []string{"unit", "sequencer"} {
		t.Run(dead, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				of := withSpare(t)
				of.cfg.FailAfter, of.cfg.Poll = patient, 50*time.Millisecond
				c := trioOf(of, mortal)
				l := c.open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				old := c.leader().cfg.ID
				began := time.Now()
				c.net.isolate(old)
				if dead == "unit" {
					c.units[1].die()
				} else {
					c.seq.die()
				}
				leader := c.leader(old)
				leads := time.Now()
				var got *layout.Layout
				await(t, "an epoch without it", func() error {
					got, _ = leader.store.fsm.active.get()
					if got.Epoch == l.Epoch {
						return errNoEpoch
					}
					return nil
				})
				took := time.Since(leads)
				t.Logf("elected after %v, without the %s after %v more", leads.Sub(began), dead, took)
				if got.IsMember(1) && got.Sequencer.ID == 1 {
					t.Errorf("%+v", got)
				}
				if most := graceFactor * c.cfg.FailAfter; took >= most {
					t.Errorf("took %v, fail_after is %v: it was given the time of a cluster that starts, %v", took, c.cfg.FailAfter, most)
				}
			})
		})
	}
}

// TestColdStartDropsNobody: after a power failure units come up over seconds, and none that runs says that the log did.
func TestColdStartDropsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.stop()
		for _, u := range c.units {
			u.die()
		}
		c.start()
		for id := layout.UnitID(4); id > 0; id-- { // all in less than graceFactor times FailAfter, and the last one in more than FailAfter
			time.Sleep(c.cfg.FailAfter / 2)
			c.units[id].restart()
		}
		got := c.open(2)
		if !reflect.DeepEqual(chainsOf(got), chainsOf(l)) {
			t.Errorf("chains %v", chainsOf(got))
		}
		if h := c.held(1); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) || c.units[1].wipes != 1 {
			t.Errorf("unit 1 holds %v after %d wipes", h, c.units[1].wipes)
		}
	})
}
