package server

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
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

// once runs do at the first call of that name.
func once(name string, do func()) hook {
	var done atomic.Bool
	return func(call string, _ layout.Epoch) error {
		if call == name && done.CompareAndSwap(false, true) {
			do()
			return status.Error(codes.Unavailable, "died")
		}
		return nil
	}
}

// TestReconfigurationSurvivesAMemberThatDiesInAnyPhase kills unit 2 in each phase, brings it back (restarted: R19),
// and wants all members open again with every entry, by themselves.
func TestReconfigurationSurvivesAMemberThatDiesInAnyPhase(t *testing.T) {
	for _, call := range []string{"seal", "entries", "reconcile", "reconciled", "activate"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				l := c.start().open(1)
				if c.units[3].base != 0 {
					t.Errorf("the first seal names base %d", c.units[3].base)
				}
				c.put(l, 0, wire.Durable, 100, 1, 2)
				c.put(l, 2, wire.Durable, 101, 1)
				c.put(l, 5, wire.Durable, 102, 3, 4)
				u := c.units[2]
				dead := make(chan struct{})
				u.setHook(once(call, func() { go func() { u.die(); close(dead) }(); <-dead }))
				asked := make(chan error, 1)
				go func() { _, err := c.reconfigure(); asked <- err }()
				<-dead
				u.restart()
				<-asked // either answer will do: what counts is what the members come to

				got := c.open(2)
				if got.Start != 6 {
					t.Errorf("the sequencer starts at %d, want 6", got.Start)
				}
				first := map[uint64]string{0: "entry 100", 1: "entry 101"}
				second := map[uint64]string{2: "entry 102"}
				for id, want := range map[layout.UnitID]map[uint64]string{1: first, 2: first, 3: second, 4: second} {
					if held := c.held(id); !reflect.DeepEqual(held, want) {
						t.Errorf("unit %d holds %v, want %v", id, held, want)
					}
					if c.units[id].wipes != 1 {
						t.Errorf("unit %d was wiped", id)
					}
				}
				if r := c.record(got.Epoch); layout.Epoch(c.units[3].base) != r.Base {
					t.Errorf("the last seal names base %d, the record %d", c.units[3].base, r.Base)
				}
				for e := layout.Epoch(2); e < got.Epoch; e++ {
					if r := c.record(e); r.Verdict == layout.Undecided {
						t.Errorf("epoch %d was left undecided: %+v", e, r)
					}
				}
			})
		})
	}
}

func TestSequencerThatDiesIsSealedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		c.put(l, 3, wire.Durable, 100, 3, 4)
		c.seq.die()
		c.seq.mu.Lock()
		c.seq.state = stateClosed
		c.seq.mu.Unlock()
		await(t, "the manager notices", func() error {
			m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
			if err != nil {
				return err
			}
			for _, x := range m.Members {
				if x.Name == "sequencer 1" && x.State == stateUnreachable && x.Error != "" && strings.Contains(m.Phase, "waiting for sequencer 1") {
					return nil
				}
			}
			return fmt.Errorf("%v", m)
		})
		if _, err := c.reconfigure(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "sequencer 1") {
			t.Errorf("asked for without the sequencer: %v", err)
		}
		c.seq.daemon.start()
		if l := c.open(2); l.Start != 4 {
			t.Errorf("it starts at %d, want 4 (rule R20)", l.Start)
		}
	})
}

func TestR19RestartedUnitComesBackInAHigherEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.start().open(1)
		c.units[3].restart()
		l := c.open(2)
		c.units[1].restart()
		c.units[2].restart() // a whole chain: all its members are sealed, which is enough under flash (rule R16)
		c.open(l.Epoch + 1)
	})
}

func TestR16MemoryNeedsAnIntactMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.template.Durability = layout.Memory
		c.start().open(1)
		c.units[1].restart()
		l := c.open(2) // unit 2 was intact
		c.units[1].die()
		c.units[2].restart()
		c.units[1].restart()
		await(t, "the manager says so", func() error {
			m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
			if err == nil && !strings.Contains(m.Phase, "R16") {
				err = fmt.Errorf("%v", m)
			}
			return err
		})
		if _, err := c.reconfigure(); err == nil || !strings.Contains(err.Error(), "R16") {
			t.Errorf("without an intact member: %v", err)
		}
		if got, _ := c.server.store.fsm.active.get(); got.Epoch != l.Epoch {
			t.Errorf("epoch %d became active", got.Epoch)
		}
	})
}

func TestR13RestartedServerKeepsItsRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		before := c.start().open(1)
		first, err := c.client().NewClientID(context.Background(), &pb.NewClientIDRequest{})
		if err != nil {
			t.Fatal(err)
		}
		owner := c.record(1).Owner
		c.stop()

		c.cfg.Bootstrap = nil
		if after := c.start().open(1); !reflect.DeepEqual(after, before) {
			t.Errorf("the layout is %+v, was %+v", after, before)
		}
		second, err := c.client().NewClientID(context.Background(), &pb.NewClientIDRequest{})
		if err != nil || second.Client <= first.Client { // what is left of a block of ids is lost with its server, and no id comes twice
			t.Errorf("client %v after %v, %v", second, first, err)
		}
		if r := c.record(1); r.Owner != owner {
			t.Errorf("owner of epoch 1 is %#x, was %#x", r.Owner, owner)
		}
		if l, err := c.reconfigure(); err != nil || l.Epoch != 2 || c.record(2).Owner == owner {
			t.Errorf("%+v, %v: the next owner must be another one", l, err)
		}
	})
}

func TestR13SnapshotsKeepTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		before := c.start().open(1)
		if err := c.server.store.raft.(*raftLog).Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		c.stop()
		if after := c.start().open(1); !reflect.DeepEqual(after, before) {
			t.Errorf("the layout is %+v, was %+v", after, before)
		}
	})
}

// TestR18ServerThatDiesBetweenVerdictAndActivation restarts the server there: the next one must activate the same epoch, without a
// further one.
func TestR18ServerThatDiesBetweenVerdictAndActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var alive atomic.Bool
		for _, u := range c.units {
			u.setHook(func(call string, e layout.Epoch) error {
				if call == "activate" && !alive.Load() {
					return status.Error(codes.Unavailable, "not now")
				}
				return nil
			})
		}
		c.start()
		await(t, "the verdict", func() error {
			if r := c.record(1); r.Verdict != layout.Active {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		c.stop()
		alive.Store(true)
		c.start()
		if l := c.open(1); l.Epoch != 1 {
			t.Errorf("epoch %d", l.Epoch)
		}
	})
}

// TestR18NobodyActivatesBeforeTheVerdict looks at the store whenever a member is asked to activate.
func TestR18NobodyActivatesBeforeTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var server atomic.Pointer[Server]
		for _, u := range c.units {
			u.setHook(func(call string, e layout.Epoch) error {
				if call != "activate" {
					return nil
				}
				s := server.Load()
				if s == nil {
					return status.Error(codes.Unavailable, "the test is not ready")
				}
				s.store.fsm.view(func(st *layout.State) {
					if r, _ := st.Record(e); r.Verdict != layout.Active {
						t.Errorf("activate of epoch %d: %+v", e, r)
					}
				})
				return nil
			})
		}
		c.start()
		server.Store(c.server)
		c.open(1)
		for range 3 {
			if _, err := c.reconfigure(); err != nil {
				t.Fatal(err)
			}
		}
		c.open(4)
	})
}

func TestTwoReconfiguresAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.start().open(1)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var epochs []layout.Epoch
		for range 4 {
			wg.Go(func() {
				l, err := c.reconfigure()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				epochs = append(epochs, l.Epoch)
				mu.Unlock()
			})
		}
		wg.Wait()
		last := c.open(2)
		if slices.Min(epochs) < 2 || slices.Max(epochs) != last.Epoch || last.Epoch > 5 {
			t.Errorf("epochs %v, the last is %d", epochs, last.Epoch)
		}
	})
}

func TestPromiseFromElsewhereIsLeaptOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.units[4].promise = 1 << 30
		if l := c.start().open(1); l.Epoch != 1<<30+1 {
			t.Errorf("epoch %d", l.Epoch)
		}
	})
}

func TestUnitOfAnotherLogIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.cfg.FailAfter = patient
		other := layout.LogID{99}
		u := c.units[2]
		u.log = other[:]
		u.entries[5] = &pb.Entry{Address: 5, State: uint32(wire.Durable)}
		c.start()
		await(t, "the manager says so", func() error {
			m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
			if err != nil {
				return err
			}
			if !strings.Contains(m.Phase, "another log") || m.Layout != nil {
				return fmt.Errorf("%v", m)
			}
			return nil
		})
		if u.wipes != 0 || len(u.entries) != 1 || u.promise != 0 {
			t.Errorf("it was touched: %d wipes, promise %d", u.wipes, u.promise)
		}
		if err := c.server.Health(); err == nil {
			t.Error("a log without a layout is healthy")
		}
		if _, err := c.client().Get(context.Background(), &pb.GetRequest{}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("get: %v", err)
		}
	})
}

func TestBootstrapOfAnotherLogIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		before := c.start().open(1)
		c.stop()
		other := c.template.Next(0, 0)
		other.Geometry.Window *= 2
		other.Units[0].Control = "127.0.0.1:1"
		c.cfg.Bootstrap = other
		if after := c.start().open(1); !reflect.DeepEqual(after, before) {
			t.Errorf("the layout is %+v, was %+v", after, before)
		}
	})
}

func TestMembersMayMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.stop()
		u := c.units[1]
		u.die()
		u.addr = "" // another port
		u.restart()
		c.template.Units[0].Control = u.addr
		got := c.start().open(2)
		if m, _ := got.Unit(1); m.Control != u.addr {
			t.Errorf("unit 1 is at %s, want %s", m.Control, u.addr)
		}
		if want := map[uint64]string{0: "entry 100"}; !reflect.DeepEqual(c.held(1), want) {
			t.Errorf("unit 1 holds %v, want %v", c.held(1), want)
		}
	})
}

func TestWatchSendsEveryLaterLayout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.start()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		await(t, "it leads", func() error { _, err := c.client().Status(ctx, &pb.StatusRequest{}); return err })
		stream, err := c.client().Watch(ctx, &pb.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for want := uint64(1); want <= 3; want++ {
			m, err := stream.Recv()
			if err != nil || m.Epoch != want {
				t.Fatalf("got %v, %v; want epoch %d", m, err, want)
			}
			if _, err := pbconv.ToLayout(m); err != nil {
				t.Error(err)
			}
			if _, err := c.reconfigure(); err != nil {
				t.Fatal(err)
			}
		}
		c.stop()
		for err == nil {
			_, err = stream.Recv()
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
			t.Errorf("the end of the server: %v", err)
		}
	})
}

// TestR17LargeCopyIsBoundedAndInOrder lets one unit lack more than any message or listing holds.
func TestR17LargeCopyIsBoundedAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.cfg.FailAfter = patient // the copy keeps the processors busy
		l := c.start().open(1)
		const n = listedAtATime + 500
		u := c.units[1]
		u.mu.Lock()
		for a := range uint64(n) {
			p := layout.Position(2 * a)
			e := &pb.Entry{Address: a, State: uint32(wire.Junk)}
			if a%7 != 3 {
				at := layout.Attempt(1000 + a)
				e = &pb.Entry{Address: a, State: uint32(wire.Written), Attempt: uint64(at), Page: page(l.Log, p, at)}
			}
			u.entries[a] = e
		}
		u.mu.Unlock()
		if _, err := c.reconfigure(); err != nil {
			t.Fatal(err)
		}
		v := c.units[2]
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.entries) != n || len(v.received) != n || !slices.IsSorted(v.received) {
			t.Errorf("%d entries, %d sent, ascending %v; want %d", len(v.entries), len(v.received), slices.IsSorted(v.received), n)
		}
		if v.largest > sentAtATime+4096 {
			t.Errorf("a message of %d bytes of pages", v.largest)
		}
	})
}

func TestR17BadEntriesAreNotSpread(t *testing.T) {
	for name, spoil := range map[string]func(e *pb.Entry){
		"a page that does not verify": func(e *pb.Entry) { e.Page[wire.HeaderSize] ^= 1 },
		"a page of another position":  func(e *pb.Entry) { e.Page = page(layout.LogID{}, 77, 100) },
		"a page of another attempt":   func(e *pb.Entry) { e.Attempt = 101 },
		"an unknown state":            func(e *pb.Entry) { e.State = 12 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				l := c.start().open(1)
				c.put(l, 0, wire.Durable, 100, 1)
				c.units[1].mu.Lock()
				spoil(c.units[1].entries[0])
				c.units[1].mu.Unlock()
				if _, err := c.reconfigure(); err == nil || !strings.Contains(err.Error(), errBadEntry.Error()) {
					t.Errorf("%v", err)
				}
				if h := c.held(2); len(h) != 0 {
					t.Errorf("unit 2 was given %v", h)
				}
			})
		})
	}
}

func TestR17ConflictStopsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1)
		c.put(l, 0, wire.Durable, 200, 2)
		_, err := c.reconfigure()
		if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), "invariant") {
			t.Errorf("%v", err)
		}
		if got, _ := c.server.store.fsm.active.get(); got.Epoch != 1 {
			t.Errorf("epoch %d became active", got.Epoch)
		}
	})
}

func TestUnitThatStallsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.cfg.StallTimeout = 200 * time.Millisecond
		c.start().open(1)
		free := make(chan struct{})
		c.units[4].setHook(func(call string, e layout.Epoch) error {
			if call == "reconciled" && e == 2 {
				<-free
			}
			return nil
		})
		_, err := c.reconfigure()
		close(free)
		if err != nil && !strings.Contains(err.Error(), errStalled.Error()) {
			t.Errorf("%v", err)
		}
		if r := c.record(2); r.Verdict != layout.Aborted {
			t.Errorf("epoch 2: %+v", r)
		}
		c.open(3)
	})
}
