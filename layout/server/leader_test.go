package server

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestR13LeaderDiesInAnyPhase takes the leader away in each phase of a reconfiguration: another one aborts what is undecided, or
// completes what is ACTIVE, and all three servers end with the same records.
func TestR13LeaderDiesInAnyPhase(t *testing.T) {
	for _, call := range []string{"seal", "entries", "reconcile", "reconciled", "activate"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTrio(t, mortal)
				l := c.open(1)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				c.put(l, 2, wire.Durable, 101, 1)
				c.put(l, 5, wire.Durable, 102, 3, 4)
				old := c.leader()
				id := old.cfg.ID
				delete(c.servers, id)
				dead := make(chan error, 1)
				var done atomic.Bool
				c.units[2].setHook(func(name string, e layout.Epoch) error {
					if name == call && e >= 2 && done.CompareAndSwap(false, true) {
						c.net.isolate(id) // what it still sends to units is what was on its way when it died
						go func() { dead <- old.Close() }()
					}
					return nil
				})
				asked := make(chan struct{})
				go func() { _, _ = c.reconfigure(); close(asked) }()
				if err := <-dead; err != nil {
					t.Error(err)
				}
				<-asked // either answer will do

				got := c.open(2)
				if got.Start != 6 {
					t.Errorf("the sequencer starts at %d, want 6 (rule R20)", got.Start)
				}
				first := map[uint64]string{0: "entry 100", 1: "entry 101"}
				second := map[uint64]string{2: "entry 102"}
				for id, want := range map[layout.UnitID]map[uint64]string{1: first, 2: first, 3: second, 4: second} {
					if held := c.held(id); !reflect.DeepEqual(held, want) || c.units[id].wipes != 1 {
						t.Errorf("unit %d, wiped %d times, holds %v, want %v", id, c.units[id].wipes, held, want)
					}
				}
				c.restart(id)
				st := c.agree()
				for e := layout.Epoch(1); e <= st.Highest(); e++ {
					if r, ok := st.Record(e); ok && r.Verdict == layout.Undecided {
						t.Errorf("epoch %d was left undecided: %+v", e, r)
					}
				}
				if !reflect.DeepEqual(st.Active(), got) {
					t.Errorf("the records say\n%+v, the leader said\n%+v", st.Active(), got)
				}
			})
		})
	}
}

// TestR13PartitionedLeaderCannotDecide cuts the leader off from the other servers, not from the units, when everything is reconciled
// and only the verdict is missing.
func TestR13PartitionedLeaderCannotDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		old := c.leader()
		id := old.cfg.ID
		var cut atomic.Bool
		for _, u := range c.units {
			u.setHook(func(call string, e layout.Epoch) error {
				if call == "reconciled" && e == 2 && cut.CompareAndSwap(false, true) {
					c.net.isolate(id)
				}
				if call == "activate" && e == 2 {
					t.Error("epoch 2, which nobody could decide, was opened")
				}
				return nil
			})
		}
		owner := c.recordAt(old, 1).Owner
		asked := make(chan struct{})
		go func() { _, _ = old.manager.ask(context.Background(), &request{reason: "test"}); close(asked) }()
		heir := c.leader(id)
		<-asked
		if _, err := old.store.apply(layout.Decide{Epoch: 2, Owner: owner, Verdict: layout.Active}); !errors.Is(err, errNotLeader) && !errors.Is(err, errUnknown) {
			t.Errorf("the old leader decides: %v", err)
		}
		if _, err := (service{s: old}).Get(context.Background(), nil); status.Code(err) != codes.Unavailable {
			t.Errorf("the old leader answers for the state: %v", err)
		}
		if err := old.Health(); err == nil {
			// It takes a few time-outs: the leader that it knows is itself, and so none.
			t.Error("a server that reaches no other is healthy")
		}
		if live, ready := old.Live(), old.Ready(); live != nil || ready == nil {
			t.Errorf("a server that has lost the others: alive %v, ready %v; want alive and not ready", live, ready)
		}
		await(t, "the heir opens another epoch", func() error {
			if l, _, _, err := heir.store.active(); err != nil || l.Epoch < 3 {
				return errors.Join(err, errors.New("not yet"))
			}
			return nil
		})
		c.net.join(id)
		st := c.agree()
		if r, _ := st.Record(2); r.Verdict != layout.Aborted {
			t.Errorf("epoch 2: %+v", r)
		}
		if r, _ := st.Record(st.Latest()); r.Owner == owner || r.Owner&0xffff != layout.Owner(heir.cfg.ID) {
			t.Errorf("epoch %d is owned by %#x, that of the first leader was %#x", r.Epoch, uint64(r.Owner), uint64(owner))
		}
		c.open(3)
	})
}

// recordAt is what one server holds of an epoch.
func (c *trio) recordAt(s *Server, e layout.Epoch) (r layout.Record) {
	s.store.fsm.view(func(st *layout.State) { r, _ = st.Record(e) })
	return r
}

// TestElectedLeaderAnswersWithAllThatWasCommitted keeps the followers from applying anything: one that is elected then must not answer
// with what it has. Not in a bubble: its time stands still while goroutines wait for a mutex.
func TestElectedLeaderAnswersWithAllThatWasCommitted(t *testing.T) {
	of := newCluster(t)
	of.cfg.FailAfter = time.Minute
	c := trioOf(of, calm)
	c.open(1)
	old := c.leader()
	c.agree()
	var frozen []*fsm
	for id, s := range c.servers {
		if id != old.cfg.ID {
			s.store.fsm.mu.Lock()
			frozen = append(frozen, s.store.fsm)
		}
	}
	thaw := sync.OnceFunc(func() {
		for _, f := range frozen {
			f.mu.Unlock()
		}
	})
	defer thaw()
	if l, err := c.reconfigure(); err != nil || l.Epoch != 2 {
		t.Fatal(l, err)
	}
	c.stopServer(old.cfg.ID)
	var heir *Server
	await(t, "another is elected", func() error {
		for _, s := range c.servers {
			if s.store.elected() {
				heir = s
				return nil
			}
		}
		return errors.New("none")
	})
	if l, _ := heir.store.fsm.active.get(); l == nil || l.Epoch != 1 {
		t.Errorf("the test shows nothing: the new leader has applied %+v", l)
	}
	answer := make(chan *pb.Layout, 1)
	go func() { l, _ := heir.grpcGet(); answer <- l }()
	select {
	case l := <-answer:
		if l.GetEpoch() == 1 {
			t.Error("epoch 1, after epoch 2 was seen")
		}
	case <-time.After(50 * time.Millisecond): // it waits for what it must apply
	}
	thaw()
	c.open(2)
}

// TestGetNeedsAMajority asks a leader that was cut off and does not know it yet.
func TestGetNeedsAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, calm)
		c.open(1)
		old := c.leader()
		c.net.isolate(old.cfg.ID)
		if !old.store.elected() {
			t.Fatal("it knows already: the test shows nothing")
		}
		if l, err := old.grpcGet(); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, %v", l, err)
		}
		if c.leader(old.cfg.ID) == old {
			t.Error("no other leads")
		}
	})
}

// grpcGet is Get without a connection.
func (s *Server) grpcGet() (*pb.Layout, error) { return service{s: s}.Get(context.Background(), nil) }

func TestFollowerSaysWhoLeadsAndForwardsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, calm)
		c.open(1)
		leader := c.leader()
		var follower *Server
		for _, s := range c.servers {
			if s != leader {
				follower = s
			}
		}
		await(t, "the follower knows", func() error {
			if follower.store.leader().ID == 0 {
				return errors.New("not yet")
			}
			return follower.Health()
		})
		ctx := context.Background()
		v := service{s: follower}
		for name, call := range map[string]func() error{
			"get":         func() error { _, err := v.Get(ctx, &pb.GetRequest{}); return err },
			"client id":   func() error { _, err := v.NewClientID(ctx, &pb.NewClientIDRequest{}); return err },
			"reconfigure": func() error { _, err := v.Reconfigure(ctx, &pb.ReconfigureRequest{}); return err },
			"status":      func() error { _, err := v.Status(ctx, &pb.StatusRequest{}); return err },
			"watch":       func() error { return v.Watch(&pb.WatchRequest{}, nil) },
		} {
			err := call()
			want := "not the leader of the layout servers: that is server " + string(rune('0'+leader.cfg.ID)) + " at " + leader.ControlAddr()
			if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != want || control.LeaderOf(err) != leader.ControlAddr() {
				t.Errorf("%s: %v, leader %q; want %q", name, err, control.LeaderOf(err), want)
			}
		}
		if st := c.agree(); st.Latest() != 1 || st.Highest() != 1 {
			t.Errorf("epoch %d, highest %d", st.Latest(), st.Highest())
		}
		got, _ := stateService{s: follower}.State(ctx, nil)
		if got.Role != "follower" || got.Leader != uint32(leader.cfg.ID) || len(got.Servers) != 3 || got.Epoch != 1 || got.CommitIndex == 0 || got.Term == 0 {
			t.Errorf("the follower says of itself: %v", got)
		}
	})
}

// TestWatchEndsWithTheReign: a client that follows layouts is sent on when the leader steps down.
func TestWatchEndsWithTheReign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, calm)
		c.open(1)
		old := c.leader()
		conn, err := control.Dial(old.ControlAddr(), memoryDial()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		stream, err := pb.NewLayoutServiceClient(conn).Watch(ctx, &pb.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if l, err := stream.Recv(); err != nil || l.Epoch != 1 {
			t.Fatal(l, err)
		}
		if err := old.store.raft.HandOver(); err != nil {
			t.Fatal(err)
		}
		if l, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), errNotLeader.Error()) {
			t.Errorf("%v, %v", l, err)
		}
		if heir := c.leader(old.cfg.ID); heir.store.raft.Standing().Term < 2 {
			t.Error("the term did not rise")
		}
	})
}

// TestRollingRestartChangesNoEpoch: elections alone are no reason for a new epoch; no member hears of them.
func TestRollingRestartChangesNoEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, calm)
		before := c.open(1)
		for _, u := range c.units {
			u.setHook(func(call string, e layout.Epoch) error {
				if call != "state" {
					t.Errorf("%s of epoch %d", call, e)
				}
				return nil
			})
		}
		for id := uint16(1); id <= 3; id++ {
			c.stopServer(id)
			if got := c.open(1); !reflect.DeepEqual(got, before) {
				t.Errorf("without server %d: %+v", id, got)
			}
			c.restart(id)
			c.leader()
			c.agree()
		}
		if got := c.open(1); !reflect.DeepEqual(got, before) {
			t.Errorf("%+v, before %+v", got, before)
		}
	})
}
