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

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// patient is the detection time of tests. They run in bubbles, where a member that answers does so
// in no time, however busy the machine is.
const patient = 500 * time.Millisecond

// brisk is that of tests that compare it with other times.
const brisk = time.Second

// ask asks for a change, again and again while nobody knows what became of it.
func (c *cluster) ask(q *pb.ReconfigureRequest) (l *layout.Layout, err error) {
	c.t.Helper()
	await(c.t, "an answer", func() error {
		m, e := c.client().Reconfigure(context.Background(), q)
		switch status.Code(e) {
		case codes.OK:
			l, err = pbconv.ToLayout(m)
			return nil
		case codes.FailedPrecondition:
			err = e
			return nil
		}
		return e
	})
	return l, err
}

// again waits until nothing is copied any more: then asking again changes nothing.
func (c *cluster) again(q *pb.ReconfigureRequest) {
	c.t.Helper()
	before := c.active("at rest", func(l *layout.Layout) bool { return len(l.Behind()) == 0 })
	if l, err := c.ask(q); err != nil || !reflect.DeepEqual(l, before) {
		c.t.Errorf("%v asked again: %+v, %v; it was %+v", q, l, err, before)
	}
}

func drained(u layout.UnitID) func(*layout.Layout) bool {
	return func(l *layout.Layout) bool { return !l.IsMember(u) && len(l.Behind()) == 0 }
}

// TestR17DrainedUnitLeavesWhenItsPlaceIsTaken: the spare joins its chain at once, has the older entries, and only then the unit goes; it is
// out of service then, though its chain lacks a unit later. Each step can be asked for again.
func TestR17DrainedUnitLeavesWhenItsPlaceIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.put(l, 2, wire.Durable, 101, 1, 2)
		q := &pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1}}}
		got, err := c.ask(q)
		if want := [][]layout.UnitID{{1, 2}, {3, 4}, {3, 4}, {1, 2, 5}}; err != nil || !reflect.DeepEqual(chainsOf(got), want) {
			t.Fatalf("chains %v, %v; want %v", got, err, want)
		}
		got = c.active("unit 1 has left", drained(1))
		if want := [][]layout.UnitID{{2, 5}, {3, 4}}; !reflect.DeepEqual(chainsOf(got), want) || !reflect.DeepEqual(got.Leaving, []layout.Leaving{{Unit: 1}}) {
			t.Errorf("%+v, chains want %v", got, want)
		}
		c.units[5] = c.spare
		want := map[uint64]string{0: "entry 100", 1: "entry 101"}
		if h := c.held(5); !reflect.DeepEqual(h, want) {
			t.Errorf("unit 5 holds %v, want %v", h, want)
		}
		c.again(q)
		c.units[5].die()
		got = c.active("a shorter chain", func(l *layout.Layout) bool { return !l.IsMember(5) })
		if got.IsMember(1) {
			t.Errorf("a unit out of service joined: %+v", got)
		}
		add := &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 1, Control: c.units[1].addr}}}
		if _, err := c.ask(add); err != nil {
			t.Fatal(err)
		}
		got = c.active("unit 1 serves again", func(l *layout.Layout) bool { return l.IsMember(1) && len(l.Behind()) == 0 })
		if len(got.Leaving) != 0 || c.units[1].wipes != 2 {
			t.Errorf("%+v, wiped %d times", got, c.units[1].wipes)
		}
		c.again(add)
	})
}

// TestWhatIsAskedForAgainIsSaidToBeSo: remove, fail-over, one more chain; and what cannot be is refused and changes nothing.
func TestWhatIsAskedForAgainIsSaidToBeSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		l := c.start().open(1)
		c.put(l, 4, wire.Durable, 100, 1, 2)
		six := &pb.Unit{Id: 6, Control: startUnit(t, 6).addr}
		for _, x := range []struct {
			q    *pb.ReconfigureRequest
			want string
		}{
			{&pb.ReconfigureRequest{Chain: []uint32{5}}, "a chain of 1 units"},
			{&pb.ReconfigureRequest{Chain: []uint32{5, 6}}, "unit 6 is not listed"},
			{&pb.ReconfigureRequest{Chain: []uint32{5, 2}}, "in a chain already"},
			{&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 9}}}, "in no chain"},
			{&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1, By: 3}}}, "in a chain already"},
			{&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1, By: 6}}}, "unit 6 is not listed"},
			{&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1}, {Unit: 3}}}, "no spare answers"},
			{&pb.ReconfigureRequest{Failover: true, FailoverTo: 3}, "sequencer 3 does not stand by"},
		} {
			if l, err := c.ask(x.q); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v: %v, %v; want %q", x.q, l, err, x.want)
			}
		}
		q := &pb.ReconfigureRequest{Add: []*pb.Unit{six}, Chain: []uint32{6, 5}}
		got, err := c.ask(q)
		want := []layout.Segment{
			{Chains: []layout.Chain{{Units: []layout.UnitID{1, 2}}, {Units: []layout.UnitID{3, 4}}}},
			{Start: 5, Chains: []layout.Chain{{Base: 2, Units: []layout.UnitID{3, 4}}, {Base: 3, Units: []layout.UnitID{1, 2}}, {Units: []layout.UnitID{6, 5}}}},
		}
		if err != nil || !reflect.DeepEqual(got.Segments, want) || len(got.Spares) != 0 || got.Epoch != 2 {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		c.again(q)
		for _, q := range []*pb.ReconfigureRequest{{Failover: true, FailoverFrom: 1}, {Failover: true, FailoverTo: 1}, {Remove: []uint32{6}}} {
			before := c.active("at rest", func(*layout.Layout) bool { return true })
			if got, err := c.ask(q); err != nil || got.Epoch == before.Epoch {
				t.Errorf("%v: %v, %v", q, got, err)
			}
			c.again(q)
		}
	})
}

// TestUnitAddedWhileASpareIsSilentIsListedOrRefused: the new unit misses its first heartbeats, as one whose connection is dialled still; that it
// cannot be added is not sure while the spare misses some, too. An epoch that changes nothing is no answer to who waits for that.
func TestUnitAddedWhileASpareIsSilentIsListedOrRefused(t *testing.T) {
	for _, starts := range []bool{true, false} {
		t.Run(fmt.Sprint("starts ", starts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.cfg.FailAfter = patient
				c.start().open(1)
				added := startUnit(t, 6)
				var missed, late atomic.Int32
				c.spare.setHook(func(call string, _ layout.Epoch) error {
					if call != "state" || late.Load() > 3 {
						return nil
					}
					missed.Add(1)
					return status.Error(codes.Unavailable, "busy")
				})
				added.setHook(func(string, layout.Epoch) error {
					if late.Add(1) > 3 && starts {
						return nil
					}
					return status.Error(codes.Unavailable, "starts")
				})
				await(t, "the spare misses a heartbeat", func() error {
					if missed.Load() < 2 { // the first was counted once it is asked again
						return fmt.Errorf("%d", missed.Load())
					}
					return nil
				})
				l, err := c.ask(&pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 6, Control: added.addr}}})
				if listed := l != nil && slices.Contains(l.Spares, layout.Unit{ID: 6, Control: added.addr}); listed != starts || (err == nil) != starts {
					t.Errorf("%+v, %v; unit 6 answers: %v", l, err, starts)
				}
			})
		})
	}
}

// TestLeaderLostWhileAUnitIsDrained takes the leader away in each phase of both epochs of a drain, or while it copies: the operator asks again,
// and the unit leaves once, its place taken, nothing lost.
func TestLeaderLostWhileAUnitIsDrained(t *testing.T) {
	for _, x := range []struct {
		call string
		nth  int32 // from the first epoch after the bootstrap on
	}{{"reconciled", 1}, {"activate", 1}, {"state", 40}, {"reconciled", 2}} {
		t.Run(fmt.Sprint(x.call, " ", x.nth), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quiet := withSpare(t)
				quiet.cfg.FailAfter = patient
				c := trioOf(quiet, mortal)
				l := c.open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				old := c.leader()
				id := old.cfg.ID
				var n atomic.Int32
				dead := make(chan error, 1)
				c.units[2].setHook(func(call string, e layout.Epoch) error {
					if call == x.call && (e >= 2 || call == "state") && n.Add(1) == x.nth {
						c.net.isolate(id)
						go func() { dead <- old.Close() }()
					}
					return nil
				})
				delete(c.servers, id)
				q := &pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1, By: 5}}}
				for gone := false; !gone; {
					if _, err := c.ask(q); err != nil {
						t.Fatal(err)
					}
					select {
					case err := <-dead:
						gone = true
						if err != nil {
							t.Error(err)
						}
					case <-time.After(50 * time.Millisecond):
					}
				}
				if _, err := c.ask(q); err != nil {
					t.Fatal(err)
				}
				got := c.active("unit 1 has left", drained(1))
				if want := [][]layout.UnitID{{2, 5}, {3, 4}}; !reflect.DeepEqual(chainsOf(got), want) || !reflect.DeepEqual(got.Leaving, []layout.Leaving{{Unit: 1, By: 5}}) {
					t.Errorf("%+v, chains want %v", got, want)
				}
				c.units[5] = c.spare
				if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
					t.Errorf("unit 5 holds %v", h)
				}
				c.again(q)
			})
		})
	}
}

// TestUnitAddedOrReplacedEndsTheWaitBelowMinReplicas: a dead unit without which no chain may go on is replaced by one that is new to the
// layout, and the log goes on; or a new spare is added, and joins by itself.
func TestUnitAddedOrReplacedEndsTheWaitBelowMinReplicas(t *testing.T) {
	for _, replace := range []bool{false, true} {
		t.Run(fmt.Sprint("replace ", replace), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				metrics := prometheus.NewRegistry()
				c.template.Spares, c.cfg.MinReplicas, c.cfg.Registerer, c.cfg.FailAfter = nil, 2, metrics, patient
				l := c.start().open(1)
				c.put(l, 1, wire.Durable, 100, 3, 4)
				c.units[3].die()
				await(t, "the log waits", func() error {
					if n := waiting(t, metrics); n != 1 {
						return fmt.Errorf("corfu_layout_waiting is %v", n)
					}
					return nil
				})
				q := &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: c.spare.addr}}}
				if replace {
					q.Drain = []*pb.Leaving{{Unit: 3, By: 5}}
				}
				if _, err := c.ask(q); err != nil {
					t.Fatal(err)
				}
				got := c.active("unit 5 in its place", drained(3))
				if want := [][]layout.UnitID{{1, 2}, {4, 5}}; !reflect.DeepEqual(chainsOf(got), want) || (len(got.Leaving) == 1) != replace {
					t.Errorf("%+v, chains want %v", got, want)
				}
				c.units[5] = c.spare
				if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
					t.Errorf("unit 5 holds %v", h)
				}
				if n := waiting(t, metrics); n != 0 {
					t.Errorf("corfu_layout_waiting is %v", n)
				}
				c.again(q)
			})
		})
	}
}

// waiting is what the metric corfu_layout_waiting says.
func waiting(t *testing.T, g prometheus.Gatherer) (value float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "corfu_layout_waiting" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no metric corfu_layout_waiting")
	return 0
}

// TestR16UnitWithTheOnlySoundCopyIsWaitedFor: the one that is left has it CORRUPT, so that going on would lose what was acknowledged. The log
// waits and says for whom, until it is back and the copy is repaired, or an operator gives the entry up.
func TestR16UnitWithTheOnlySoundCopyIsWaitedFor(t *testing.T) {
	for _, giveUp := range []bool{false, true} {
		t.Run(fmt.Sprint("given up ", giveUp), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.template.Spares, c.cfg.FailAfter = nil, patient
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 2)
				c.units[2].die()
				c.units[1].mu.Lock()
				c.units[1].entries[0] = &pb.Entry{State: uint32(wire.Corrupt)}
				c.units[1].mu.Unlock()
				await(t, "the log waits", func() error {
					m, err := c.client().Get(context.Background(), &pb.GetRequest{})
					if err == nil && (!strings.Contains(m.Trouble, "units [2] may have the only sound copies") || m.Epoch != 1) {
						err = fmt.Errorf("%v", m)
					}
					return err
				})
				remove := &pb.ReconfigureRequest{Remove: []uint32{2}, AcceptLoss: giveUp}
				if !giveUp {
					if _, err := c.client().Reconfigure(context.Background(), remove); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "R16") {
						t.Errorf("removed: %v", err)
					}
					c.units[2].restart()
					c.open(2)
					c.wantHeld(map[layout.UnitID]map[uint64]string{1: {0: "entry 100"}, 2: {0: "entry 100"}})
					return
				}
				if _, err := c.ask(remove); err != nil {
					t.Fatal(err)
				}
				got := c.active("unit 1 alone", func(l *layout.Layout) bool { return !l.IsMember(2) })
				if want := [][]layout.UnitID{{1}, {3, 4}}; !reflect.DeepEqual(chainsOf(got), want) {
					t.Errorf("chains %v, want %v", chainsOf(got), want)
				}
			})
		})
	}
}

// TestR16WhoLeavesSuppliesTheOnlySoundCopy: nothing but the doubtful addresses is compared otherwise.
// One that has more of them than it names may have any.
func TestR16WhoLeavesSuppliesTheOnlySoundCopy(t *testing.T) {
	for _, names := range []int{0, 1} {
		t.Run(fmt.Sprint("names ", names), func(t *testing.T) {
			whoLeavesSupplies(t, names)
		})
	}
}

func whoLeavesSupplies(t *testing.T, names int) {
	c := withSpare(t)
	c.units[1].names = names
	c.template.Spares, c.cfg.FailAfter = nil, patient
	l := c.start().open(1)
	never := func(call string, _ layout.Epoch) error {
		if call == "repair" {
			return status.Error(codes.Aborted, "not now")
		}
		return nil
	}
	c.units[1].setHook(never)
	c.put(l, 0, wire.Durable, 100, 2)
	c.put(l, 0, wire.Corrupt, 0, 1)
	c.put(l, 2, wire.Durable, 101, 1, 2)
	c.put(l, 4, wire.Durable, 102, 2)
	c.put(l, 4, wire.Corrupt, 0, 1)
	for _, u := range []layout.UnitID{1, 2} {
		c.units[u].mu.Lock()
		c.units[u].watermark = 3
		c.units[u].mu.Unlock()
	}
	await(t, "unit 1 says that it is corrupt", func() error {
		m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
		if err == nil && m.Members[0].Corrupt != 2 {
			err = fmt.Errorf("%v", m)
		}
		return err
	})
	if _, err := c.ask(&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 2}}, Shorter: true}); err != nil {
		t.Fatal(err)
	}
	c.active("unit 1 alone", drained(2))
	if h := c.held(1); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100", 1: "entry 101", 2: "entry 102"}) {
		t.Errorf("unit 1 holds %v", h)
	}
}

// TestR17TrimBehindACopyReachesAllOfTheChain: it came after the copy and got no further than the head, which leaves. Were it told to the unit that
// takes over alone, readers would find "trimmed" at the new tail, and after its loss the entry again.
func TestR17TrimBehindACopyReachesAllOfTheChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.put(l, 2, wire.Durable, 101, 1, 2)
		for _, u := range []layout.UnitID{1, 2} {
			c.units[u].mu.Lock()
			c.units[u].watermark = 2
			c.units[u].mu.Unlock()
		}
		var copied atomic.Bool
		c.spare.setHook(func(call string, _ layout.Epoch) error {
			if call == "backfilled" && copied.CompareAndSwap(false, true) {
				c.put(l, 0, wire.Trimmed, 0, 1)
			}
			return nil
		})
		if _, err := c.ask(&pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: 1}}}); err != nil {
			t.Fatal(err)
		}
		c.active("unit 1 has left", drained(1))
		c.units[5] = c.spare
		want := map[uint64]string{0: "trimmed 0", 1: "entry 101"}
		for _, u := range []layout.UnitID{2, 5} {
			if h := c.held(u); !copied.Load() || !reflect.DeepEqual(h, want) {
				t.Errorf("unit %d holds %v, want %v", u, h, want)
			}
		}
	})
}

// TestR16LossIsAcceptedOfTheUnitsThatWereNamed alone: of another chain, too, the only sound copies are away, and nobody gave those up.
func TestR16LossIsAcceptedOfTheUnitsThatWereNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares, c.cfg.FailAfter = nil, patient
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 2)
		c.put(l, 1, wire.Durable, 101, 4)
		for _, u := range []layout.UnitID{2, 4} {
			c.units[u].die()
			c.units[u-1].mu.Lock()
			c.units[u-1].entries[0] = &pb.Entry{State: uint32(wire.Corrupt)}
			c.units[u-1].mu.Unlock()
		}
		await(t, "the log waits", func() error {
			m, err := c.client().Get(context.Background(), &pb.GetRequest{})
			if err == nil && (!strings.Contains(m.Trouble, "unit 2") || !strings.Contains(m.Trouble, "unit 4") || !strings.Contains(m.Trouble, "R16")) {
				err = fmt.Errorf("%v", m)
			}
			return err
		})
		one := &pb.ReconfigureRequest{Remove: []uint32{2}, AcceptLoss: true}
		if l, err := c.client().Reconfigure(context.Background(), one); err == nil || !strings.Contains(err.Error(), "units [4] may have the only sound copies") {
			t.Errorf("%v, %v", l, err)
		}
		if _, err := c.ask(&pb.ReconfigureRequest{Remove: []uint32{2, 4}, AcceptLoss: true}); err != nil {
			t.Error(err)
		}
		got := c.active("both are gone", func(l *layout.Layout) bool { return !l.IsMember(2) && !l.IsMember(4) })
		if want := [][]layout.UnitID{{1}, {3}}; !reflect.DeepEqual(chainsOf(got), want) {
			t.Errorf("chains %v, want %v", chainsOf(got), want)
		}
	})
}
