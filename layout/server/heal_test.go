package server

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// withSpare is a cluster with unit 5 as a spare and sequencer 2 standing by, whose chains may get shorter.
func withSpare(t *testing.T) *cluster {
	c := newCluster(t)
	c.cfg.MinReplicas = 1
	c.spare = startUnit(t, 5)
	c.standby = startSequencer(t, 2)
	c.template.Spares = []layout.Unit{{ID: 5, Control: c.spare.addr}}
	c.template.Standbys = []layout.Sequencer{{ID: 2, Control: c.standby.addr}}
	return c
}

// active waits for an active layout that ok accepts, with all its members open.
func (c *cluster) active(what string, ok func(l *layout.Layout) bool) *layout.Layout {
	c.t.Helper()
	var l *layout.Layout
	await(c.t, what, func() error {
		m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
		if err != nil {
			return err
		}
		if m.Layout == nil || m.EpochInProgress != 0 || m.Phase != "" || len(m.Members) == 0 { // no members: a server that started and leads nobody yet
			return fmt.Errorf("%v", m)
		}
		if l, err = pbconv.ToLayout(m.Layout); err != nil {
			return err
		}
		for _, x := range m.Members {
			if x.Role == "" && (x.State != stateOpen || x.Epoch != m.Layout.Epoch) {
				return fmt.Errorf("%v", m)
			}
		}
		if !ok(l) {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	return l
}

func chainsOf(l *layout.Layout) (units [][]layout.UnitID) {
	for _, s := range l.Segments {
		for _, c := range s.Chains {
			units = append(units, c.Units)
		}
	}
	return units
}

// TestDeadUnitIsDroppedAndTheChainGoesOn without a spare: each end of the chain in turn. What the survivor holds, acknowledged or
// not, is there in the new epoch, and the unit that comes back is wiped and stands by, or joins again.
func TestDeadUnitIsDroppedAndTheChainGoesOn(t *testing.T) {
	for _, dead := range []layout.UnitID{1, 2} {
		t.Run(fmt.Sprint("unit ", dead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.template.Spares = nil
				l := c.start().open(1)
				left := 3 - dead
				c.put(l, 0, wire.Durable, 100, 1, 2)
				c.put(l, 2, wire.Durable, 101, dead) // nobody was told: only the dead one has it
				c.put(l, 1, wire.Durable, 102, 3, 4)
				c.units[dead].die()
				got := c.active("a shorter chain", func(l *layout.Layout) bool { return l.Epoch > 1 })
				want := l.Next(got.Epoch, 2)
				want.Segments[0].Chains[0].Units = []layout.UnitID{left}
				want.Spares = []layout.Unit{want.Units[dead-1]}
				want.Units = append(want.Units[:dead-1:dead-1], want.Units[dead:]...)
				if !reflect.DeepEqual(got, want) {
					t.Errorf("layout is\n%+v, want\n%+v", got, want)
				}
				if h := c.held(left); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) || c.units[left].wipes != 1 {
					t.Errorf("unit %d holds %v after %d wipes", left, h, c.units[left].wipes)
				}
				m, _ := c.client().Status(context.Background(), &pb.StatusRequest{})
				if m.GetDeficit() != 1 {
					t.Errorf("deficit %d", m.GetDeficit())
				}
				c.units[dead].restart()
				got = c.active("it joins again", func(l *layout.Layout) bool { return len(l.Units) == 4 })
				if c.units[dead].wipes != 2 || len(c.held(dead)) != 0 {
					t.Errorf("unit %d was wiped %d times and holds %v (rule R17)", dead, c.units[dead].wipes, c.held(dead))
				}
				if want := [][]layout.UnitID{{left}, {3, 4}, {left, dead}, {3, 4}}; !reflect.DeepEqual(chainsOf(got), want) {
					t.Errorf("chains %v, want %v", chainsOf(got), want)
				}
			})
		})
	}
}

// TestSpareTakesNewPositionsAtOnce: it is wiped, joins from the tail on (rule R20) in the very epoch that drops the dead unit.
func TestSpareTakesNewPositionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		l := c.start().open(1)
		c.spare.mu.Lock()
		c.spare.entries[7] = &pb.Entry{Address: 7, State: uint32(wire.Durable), Attempt: 1} // as if it had been a member before
		c.spare.trimmed = 9
		c.spare.mu.Unlock()
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.put(l, 4, wire.Durable, 101, 1, 2)
		c.units[1].die()
		got := c.active("a spare in the chain", func(l *layout.Layout) bool { return l.Epoch > 1 })
		// Position 5 comes first, so the chain of the odd positions does.
		if want := [][]layout.UnitID{{2}, {3, 4}, {3, 4}, {2, 5}}; !reflect.DeepEqual(chainsOf(got), want) || got.Segments[1].Start != 5 || got.Start != 5 || got.Epoch != 2 {
			t.Errorf("%+v", got)
		}
		if c.spare.wipes != 1 || len(c.spare.entries) != 0 {
			t.Errorf("the spare was wiped %d times and holds %v (rule R17)", c.spare.wipes, c.spare.entries)
		}
	})
}

// TestLeaderAndUnitDieTogether: the leader that follows never heard the unit, and goes on without it all the same; a spare joins and gets
// the older positions. When the unit is back, the first leader's records say the same.
func TestLeaderAndUnitDieTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := trioOf(withSpare(t), mortal)
		l := c.open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		old := c.leader().cfg.ID
		c.net.isolate(old)
		c.units[1].die()
		c.stopServer(old)
		got := c.active("the spare has taken over", func(l *layout.Layout) bool {
			return l.IsMember(5) && !l.IsMember(1) && len(l.Behind()) == 0
		})
		for _, chain := range chainsOf(got) {
			if slices.Contains(chain, 1) || len(chain) != 2 {
				t.Errorf("chains %v", chainsOf(got))
			}
		}
		c.units[5] = c.spare
		if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
			t.Errorf("the spare holds %v", h)
		}
		c.units[1].restart()
		c.restart(old)
		await(t, "it stands by", func() error {
			m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
			for _, x := range m.GetMembers() {
				if x.Name == "unit 1" && x.Role == "spare" && x.State != stateUnreachable {
					return err
				}
			}
			return fmt.Errorf("%v, %v", m, err)
		})
		if st := c.agree(); !reflect.DeepEqual(st.Active(), got) {
			t.Errorf("the records say\n%+v, it was\n%+v", st.Active(), got)
		}
	})
}

func TestBelowMinReplicasTheLogWaitsAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares, c.cfg.MinReplicas = nil, 2
		c.start().open(1)
		c.units[3].die()
		const why = "min_replicas is 2"
		await(t, "Get says why", func() error {
			m, err := c.client().Get(context.Background(), &pb.GetRequest{})
			if err == nil && (!strings.Contains(m.Trouble, why) || !strings.Contains(m.Trouble, "unit 3") || m.Epoch != 1) {
				err = fmt.Errorf("%v", m)
			}
			return err
		})
		if _, err := c.reconfigure(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), why) {
			t.Errorf("asked for: %v", err)
		}
		c.units[3].restart()
		c.open(2)
		if m, err := c.client().Get(context.Background(), &pb.GetRequest{}); err != nil || m.Trouble != "" {
			t.Errorf("%v, %v: nothing is wrong any more", m, err)
		}
	})
}

func TestR20StandbySequencerStartsBehindAllEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		l := c.start().open(1)
		c.put(l, 6, wire.Durable, 100, 1, 2)
		c.seq.die()
		got := c.active("the standby serves", func(l *layout.Layout) bool { return l.Epoch > 1 })
		want := l.Next(got.Epoch, 7)
		want.Sequencer, want.Standbys = l.Standbys[0], []layout.Sequencer{l.Sequencer}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("layout is\n%+v, want\n%+v", got, want)
		}
		c.standby.mu.Lock()
		if c.standby.state != stateOpen || c.standby.start != 7 {
			t.Errorf("the standby is %s from %d", c.standby.state, c.standby.start)
		}
		c.standby.mu.Unlock()

		// And back, by hand, once the first one answers again.
		c.seq.daemon.start()
		await(t, "fail-over by hand", func() error {
			_, err := c.client().Reconfigure(context.Background(), &pb.ReconfigureRequest{Failover: true})
			return err
		})
		if got := c.active("the first one serves", func(*layout.Layout) bool { return true }); got.Sequencer != l.Sequencer || got.Start != 7 {
			t.Errorf("%+v", got)
		}
		c.standby.mu.Lock()
		defer c.standby.mu.Unlock()
		if c.standby.state != stateSealed {
			t.Errorf("the one that was replaced is %s: nobody sealed it", c.standby.state)
		}
	})
}

func TestOperatorChangesMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares = nil
		c.start().open(1)
		ask := func(q *pb.ReconfigureRequest) *layout.Layout {
			t.Helper()
			m, err := c.client().Reconfigure(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			l, err := pbconv.ToLayout(m)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		q := &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: c.spare.addr}}, DryRun: true}
		if l := ask(q); l.Epoch != 2 || len(l.Spares) != 1 {
			t.Errorf("dry run: %+v", l)
		}
		if l, _ := c.server.store.fsm.active.get(); l.Epoch != 1 || len(l.Spares) != 0 {
			t.Errorf("a dry run changed the layout to %+v", l)
		}
		q.DryRun = false
		if l := ask(q); l.Epoch != 2 || len(l.Spares) != 1 {
			t.Errorf("add: %+v", l)
		}
		if l := ask(q); l.Epoch != 2 {
			t.Errorf("add again: %+v", l)
		}
		for _, control := range []string{"127.0.0.1:1", c.spare.addr} {
			q := &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: control}, {Id: 6, Control: control}}}
			if _, err := c.client().Reconfigure(context.Background(), q); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("add at %s: %v", control, err)
			}
		}
		// The spare has answered by now, or will be found in a later epoch.
		ask(&pb.ReconfigureRequest{Remove: []uint32{2}})
		l := c.active("the spare is in", func(l *layout.Layout) bool { return l.IsMember(5) })
		if _, listed := l.Unit(2); listed || len(l.Spares) != 0 || l.IsMember(2) {
			t.Errorf("remove: %+v", l)
		}
		if _, err := c.client().Reconfigure(context.Background(), &pb.ReconfigureRequest{Remove: []uint32{1, 5}}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("all units of a chain removed: %v", err)
		}
	})
}

// TestFullSpareHoldsUpNoOther: two spares joined, and the disk of the one that is copied to first is full. The other gets its older entries and
// serves them, the status says what is wrong with the first, and that goes on once it has room.
func TestFullSpareHoldsUpNoOther(t *testing.T) {
	for _, drain := range []bool{true, false} {
		t.Run(fmt.Sprint("drain ", drain), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.cfg.FailAfter = patient
				six := startUnit(t, 6)
				c.template.Spares = append(c.template.Spares, layout.Unit{ID: 6, Control: six.addr})
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				c.put(l, 1, wire.Durable, 101, 3, 4)
				for _, u := range []layout.UnitID{1, 2, 3, 4} {
					c.units[u].mu.Lock()
					c.units[u].watermark = 1
					c.units[u].mu.Unlock()
				}
				var full atomic.Bool
				full.Store(true)
				c.spare.setHook(func(call string, _ layout.Epoch) error {
					if call == "backfilled" && full.Load() {
						return status.Error(codes.ResourceExhausted, "no space left on device")
					}
					return nil
				})
				if drain {
					if _, err := c.ask(&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1, By: 5}, {Unit: 3, By: 6}}}); err != nil {
						t.Fatal(err)
					}
				} else {
					c.units[1].die()
					c.active("unit 5 in the place of unit 1", func(l *layout.Layout) bool { return l.IsMember(5) })
					c.units[3].die()
				}
				behind := func(units ...layout.UnitID) func(l *layout.Layout) bool {
					return func(l *layout.Layout) bool {
						var lag []layout.UnitID
						for _, r := range l.Behind() {
							lag = append(lag, r.Unit)
						}
						return reflect.DeepEqual(lag, units)
					}
				}
				c.active("unit 6 serves the older entries", func(l *layout.Layout) bool { return l.IsMember(6) && behind(5)(l) })
				c.units[5], c.units[6] = c.spare, six
				if h := c.held(6); !reflect.DeepEqual(h, map[uint64]string{0: "entry 101"}) {
					t.Errorf("unit 6 holds %v", h)
				}
				c.says("unit 5", "no space left on device", "corfu unit replace 5")
				full.Store(false)
				c.active("unit 5 serves them, too", behind())
				if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
					t.Errorf("unit 5 holds %v", h)
				}
			})
		})
	}
}

// TestMemberThatHangsInAnyPhaseIsLeftOut lets unit 1 stop to answer in the middle of a reconfiguration.
func TestMemberThatHangsInAnyPhaseIsLeftOut(t *testing.T) {
	for _, phase := range []string{"seal", "reconcile", "activate"} {
		t.Run(phase, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.template.Spares, c.cfg.FailAfter, c.cfg.CallTimeout = nil, patient, 40*time.Second
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				var hangs atomic.Bool
				free := make(chan struct{})
				defer close(free)
				c.units[1].setHook(func(call string, _ layout.Epoch) error {
					if call == phase || hangs.Load() {
						hangs.Store(true)
						<-free
					}
					return nil
				})
				began := time.Now()
				go func() { _, _ = c.reconfigure() }()
				got := c.active("without unit 1", func(l *layout.Layout) bool { return !l.IsMember(1) })
				if h := c.held(2); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
					t.Errorf("unit 2 holds %v", h)
				}
				if took := time.Since(began); took >= c.cfg.CallTimeout {
					t.Errorf("epoch %d after %v, as long as any call may take", got.Epoch, took)
				}
			})
		})
	}
}
