package server

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// failing answers each call of that name with an error, as a disk does that takes nothing more. n counts them.
func failing(name string, n *atomic.Int32) hook {
	return func(call string, _ layout.Epoch) error {
		if call != name {
			return nil
		}
		n.Add(1)
		return status.Error(codes.Internal, "no space left on device")
	}
}

// trouble waits until clients are told why the log stands still, and operators as well.
func (c *cluster) trouble(parts ...string) {
	c.t.Helper()
	await(c.t, "Get says why", func() error {
		m, err := c.client().Get(context.Background(), &pb.GetRequest{})
		for _, p := range parts {
			if err == nil && !strings.Contains(m.Trouble, p) {
				err = fmt.Errorf("%q lacks %q", m.Trouble, p)
			}
		}
		return err
	})
	await(c.t, "status says what to do", func() error {
		if m := c.status(); len(m.Problems) == 0 || !strings.Contains(m.Problems[0].What, parts[0]) || !strings.Contains(m.Problems[0].Todo, "start it again") {
			return fmt.Errorf("%v", m.Problems)
		}
		return nil
	})
}

// TestMemberThatRefusesIsLeftOut: unit 1 answers its heartbeats, and an error to what an epoch asks of it, for ever. Once it was mended and
// started anew it joins again.
func TestMemberThatRefusesIsLeftOut(t *testing.T) {
	for _, call := range []string{"seal", "reconcile", "reconciled", "activate"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.template.Spares, c.cfg.FailAfter = nil, patient
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				var n atomic.Int32
				c.units[1].setHook(failing(call, &n))
				began := time.Now()
				go func() { _, _ = c.reconfigure() }()
				got := c.active("without unit 1", func(l *layout.Layout) bool { return !l.IsMember(1) })
				t.Logf("epoch %d after %v and %d errors", got.Epoch, time.Since(began), n.Load())
				if h := c.held(2); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
					t.Errorf("unit 2 holds %v", h)
				}
				c.says("unit 1", "no space left on device", "start it again")
				c.units[1].setHook(nil)
				c.units[1].restart()
				c.active("unit 1 joined again", func(l *layout.Layout) bool { return l.IsMember(1) })
			})
		})
	}
}

// A member that refuses, and misses a heartbeat now and then as well, is left out all the same.
func TestMissedHeartbeatsForgiveNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares, c.cfg.FailAfter = nil, patient
		c.start().open(1)
		var n, asked atomic.Int32
		refuse := failing("seal", &n)
		c.units[1].setHook(func(call string, e layout.Epoch) error {
			if call == "state" && asked.Add(1)%2 == 0 {
				return status.Error(codes.Unavailable, "busy")
			}
			return refuse(call, e)
		})
		go func() { _, _ = c.reconfigure() }()
		c.active("without unit 1", func(l *layout.Layout) bool { return !l.IsMember(1) })
	})
}

// says waits for a problem in the status that has these parts, the last of them in what is to be done.
func (c *cluster) says(parts ...string) {
	c.t.Helper()
	await(c.t, "status says so", func() error {
		m := c.status()
		for _, p := range m.Problems {
			if strings.Contains(p.What, parts[0]) && strings.Contains(p.What, parts[1]) && strings.Contains(p.Todo, parts[2]) {
				return nil
			}
		}
		return fmt.Errorf("%v", m.Problems)
	})
}

func TestSpareReplacesWhoRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.MinReplicas, c.cfg.FailAfter = 2, patient
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		var n atomic.Int32
		c.units[2].setHook(failing("seal", &n))
		go func() { _, _ = c.reconfigure() }()
		c.active("the spare took over", func(l *layout.Layout) bool {
			return l.IsMember(5) && !l.IsMember(2) && len(l.Behind()) == 0
		})
		c.units[5] = c.spare
		if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
			t.Errorf("the spare holds %v", h)
		}
	})
}

// TestR16WhoRefusesAndCannotBeSparedIsWaitedFor: the log says for whom and why, and goes on by itself when that unit can be sealed.
func TestR16WhoRefusesAndCannotBeSparedIsWaitedFor(t *testing.T) {
	for name, x := range map[string]struct {
		why     string
		arrange func(c *cluster)
	}{
		"min_replicas": {"min_replicas is 2", func(c *cluster) { c.cfg.MinReplicas = 2 }},
		"rule R16":     {"rule R16", func(*cluster) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.template.Spares = nil
				x.arrange(c)
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 2) // what only the tail has, since the head restarts
				var n atomic.Int32
				c.units[2].setHook(failing("seal", &n))
				c.units[1].restart()
				c.trouble("unit 2", "no space left on device", x.why)
				if got, _ := c.server.store.fsm.active.get(); !got.IsMember(2) || got.Epoch != l.Epoch {
					t.Errorf("%+v", got)
				}
				c.units[2].setHook(nil)
				c.open(2)
				if h := c.held(1); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
					t.Errorf("unit 1 holds %v", h)
				}
			})
		})
	}
}

func TestStandbyReplacesASequencerThatRefuses(t *testing.T) {
	for _, call := range []string{"seal", "activate"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.start().open(1)
				var n atomic.Int32
				c.seq.mu.Lock()
				c.seq.hook = failing(call, &n)
				c.seq.mu.Unlock()
				go func() { _, _ = c.reconfigure() }()
				c.active("the standby serves", func(l *layout.Layout) bool { return l.Sequencer.ID == 2 })
			})
		})
	}
}

// TestSpareThatRefusesCostsTheLogNothing: it is sealed before the others are, and then let alone for a while.
func TestSpareThatRefusesCostsTheLogNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.start().open(1)
		var n atomic.Int32
		c.spare.setHook(failing("seal", &n))
		c.units[1].die()
		c.active("without unit 1", func(l *layout.Layout) bool { return !l.IsMember(1) && !l.IsMember(5) })
		tried := n.Load()
		time.Sleep(3 * backoffMin)
		if now := n.Load(); tried != 1 || now != tried {
			t.Errorf("sealed %d times, then %d: want once", tried, now)
		}
		c.says("unit 5", "no space left on device", "start it again")
	})
}

// TestUnitThatHangsInItsActivationIsLeftOut, though it answers heartbeats. The sequencer, whose turn is after the units', is opened all the same and
// not blamed for the time that the unit took.
func TestUnitThatHangsInItsActivationIsLeftOut(t *testing.T) {
	for _, standby := range []bool{false, true} {
		t.Run(fmt.Sprint("standby ", standby), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.cfg.CallTimeout = 3 * c.cfg.FailAfter // shorter than what one may take that hangs, as with a long fail_after
				if c.template.Spares = nil; !standby {
					c.template.Standbys = nil
				}
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				free := make(chan struct{})
				defer close(free)
				c.units[1].setHook(func(call string, _ layout.Epoch) error {
					if call == "activate" {
						<-free
					}
					return nil
				})
				began := time.Now()
				go func() { _, _ = c.reconfigure() }()
				got := c.active("without unit 1", func(l *layout.Layout) bool { return !l.IsMember(1) })
				if took := time.Since(began); got.Sequencer.ID != 1 || took > 40*time.Second {
					t.Errorf("after %v: %+v", took, got)
				}
			})
		})
	}
}

// TestSpareThatHangsInItsSealIsLeftOut, as one whose disk does not answer: it has as much time as a member has to open an epoch, not all that a
// flush may take.
func TestSpareThatHangsInItsSealIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.CallTimeout = 40 * time.Second
		c.start().open(1)
		free := make(chan struct{})
		defer close(free)
		c.spare.setHook(func(call string, _ layout.Epoch) error {
			if call == "seal" {
				<-free
			}
			return nil
		})
		c.units[1].die()
		began := time.Now()
		c.active("without unit 1", func(l *layout.Layout) bool { return !l.IsMember(1) && !l.IsMember(5) })
		if took, most := time.Since(began), c.server.cfg.CallTimeout; took >= most {
			t.Errorf("took %v, as long as any call may take: %v", took, most)
		}
		c.says("unit 5", "cannot be sealed", "start it again")
	})
}

func (u *fakeUnit) setStuck(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stuck = d
}

// TestUnitWhoseFlashTakesNothingIsLeftOut, and the spare takes its place. It is not tried again as long as it is so, and soon after that.
func TestUnitWhoseFlashTakesNothingIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.units[1].setStuck(c.cfg.stuckAfter() - time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		if got, _ := c.server.store.fsm.active.get(); got.Epoch != l.Epoch {
			t.Errorf("epoch %d: a disk may pause", got.Epoch)
		}
		c.units[1].setStuck(c.cfg.stuckAfter())
		c.active("the spare took over", func(l *layout.Layout) bool {
			return l.IsMember(5) && !l.IsMember(1) && len(l.Behind()) == 0
		})
		c.says("unit 1", "cannot write to flash: input/output error", "start it again")
		c.units[5] = c.spare
		if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
			t.Errorf("the spare holds %v", h)
		}
		c.units[1].setStuck(0)
		c.units[1].restart()
		c.spare.die()
		c.active("unit 1 is back", func(l *layout.Layout) bool { return l.IsMember(1) && !l.IsMember(5) })
	})
}

// TestUnitWhoseFlashTakesNothingAndThatMustStayIsWaitedFor: no epoch is made for its sake, which would stop the other chains and ask its flash just
// the same.
func TestUnitWhoseFlashTakesNothingAndThatMustStayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares, c.cfg.MinReplicas, c.cfg.FailAfter = nil, 2, patient
		l := c.start().open(1)
		c.units[1].setStuck(c.cfg.stuckAfter())
		c.trouble("unit 1", "cannot write to flash", "min_replicas is 2")
		time.Sleep(5 * backoffMin)
		if got, _ := c.server.store.fsm.active.get(); got.Epoch != l.Epoch {
			t.Errorf("epoch %d, it was %d", got.Epoch, l.Epoch)
		}
		c.units[1].setStuck(0)
		await(t, "nothing is the matter", func() error {
			if m := c.status(); m.Waiting != "" {
				return fmt.Errorf("%s", m.Waiting)
			}
			return nil
		})
	})
}
