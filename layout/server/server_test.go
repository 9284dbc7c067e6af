package server

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// cluster is a layout server over fakes: two chains of two units, units 1, 2 and 3, 4.
type cluster struct {
	t        *testing.T
	cfg      Config
	units    map[layout.UnitID]*fakeUnit
	seq      *fakeSequencer
	spare    *fakeUnit      // of withSpare
	standby  *fakeSequencer // of withSpare
	template *layout.Layout
	server   *Server
	conn     *grpc.ClientConn
	client   func() pb.LayoutServiceClient
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, units: map[layout.UnitID]*fakeUnit{}, seq: startSequencer(t, 1)}
	c.client = func() pb.LayoutServiceClient { return pb.NewLayoutServiceClient(c.conn) }
	l := &layout.Layout{Geometry: layout.DefaultGeometry(), Sequencer: layout.Sequencer{ID: 1, Control: c.seq.addr}}
	for id := layout.UnitID(1); id <= 4; id++ {
		u := startUnit(t, id)
		c.units[id] = u
		l.Units = append(l.Units, layout.Unit{ID: id, Control: u.addr})
	}
	l.Segments = []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1, 2}}, {Units: []layout.UnitID{3, 4}}}}}
	c.template = l
	c.cfg = Config{Dir: t.TempDir(), Bootstrap: l, Poll: 20 * time.Millisecond, FailAfter: patient, MinReplicas: 2, CallTimeout: 20 * time.Second, DialOptions: memoryDial(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	return c
}

// start starts the layout server.
func (c *cluster) start() *cluster {
	c.t.Helper()
	cfg := c.cfg
	cfg.ControlListener = memoryListen(c.t, "")
	s, err := Start(context.Background(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = s
	c.t.Cleanup(c.stop)
	c.conn, err = control.Dial(s.ControlAddr(), memoryDial()...)
	if err != nil {
		c.t.Fatal(err)
	}
	return c
}

func (c *cluster) stop() {
	if c.server == nil {
		return
	}
	_ = c.conn.Close()
	if err := c.server.Close(); err != nil {
		c.t.Error(err)
	}
	c.server = nil
}

// open waits until all members are open in the active epoch, and gives the layout. It checks that no member got there
// without a verdict (rule R18).
func (c *cluster) open(least layout.Epoch) *layout.Layout {
	c.t.Helper()
	var l *layout.Layout
	await(c.t, "all members open", func() error {
		m, err := c.client().Get(context.Background(), &pb.GetRequest{})
		if err != nil {
			return err
		}
		if l, err = pbconv.ToLayout(m); err != nil {
			return err
		}
		if l.Epoch < least {
			return fmt.Errorf("epoch %d is active", l.Epoch)
		}
		for id, u := range c.units {
			u.mu.Lock()
			state, promise := u.state, u.promise
			u.mu.Unlock()
			if state != stateOpen || promise != uint64(l.Epoch) {
				return fmt.Errorf("unit %d is %s at %d, the layout at %d", id, state, promise, l.Epoch)
			}
		}
		c.seq.mu.Lock()
		defer c.seq.mu.Unlock()
		if c.seq.state != stateOpen || c.seq.promise != uint64(l.Epoch) || c.seq.start != uint64(l.Start) {
			return fmt.Errorf("sequencer is %s at %d from %d, the layout at %d from %d", c.seq.state, c.seq.promise, c.seq.start, l.Epoch, l.Start)
		}
		return nil
	})
	return l
}

// put places an entry at a position at some units, as if clients had written it. kind is as in an index word.
func (c *cluster) put(l *layout.Layout, p layout.Position, s wire.State, a layout.Attempt, units ...layout.UnitID) {
	place, err := l.Locate(p)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, id := range units {
		e := &pb.Entry{Address: uint64(place.Address), State: uint32(s)}
		if s == wire.Written || s == wire.Durable {
			e.Attempt, e.Page = uint64(a), page(l.Log, p, a)
		}
		u := c.units[id]
		u.mu.Lock()
		u.entries[e.Address] = e
		u.mu.Unlock()
	}
}

// held is what a unit holds, by address: the attempt, and what it is.
func (c *cluster) held(id layout.UnitID) map[uint64]string {
	u := c.units[id]
	u.mu.Lock()
	defer u.mu.Unlock()
	h := map[uint64]string{}
	for a, e := range u.entries {
		k, err := kindOf(wire.State(e.State))
		if err != nil {
			c.t.Fatal(err)
		}
		h[a] = fmt.Sprintf("%v %d", k, e.Attempt)
	}
	return h
}

// record is what the store holds of an epoch.
func (c *cluster) record(e layout.Epoch) (r layout.Record) {
	c.server.store.fsm.view(func(s *layout.State) { r, _ = s.Record(e) })
	return r
}

func (c *cluster) reconfigure() (*layout.Layout, error) {
	m, err := c.client().Reconfigure(context.Background(), &pb.ReconfigureRequest{Reason: "test"})
	if err != nil {
		return nil, err
	}
	return pbconv.ToLayout(m)
}

func TestBootstrapWipesAndOpensEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		got := c.start().open(1)

		want := c.template.Next(1, 0)
		want.Log = got.Log
		if got.Log.IsZero() || !reflect.DeepEqual(got, want) {
			t.Errorf("layout is\n%+v, want\n%+v", got, want)
		}
		for id, u := range c.units {
			if u.wipes != 1 || len(u.entries) != 0 {
				t.Errorf("unit %d was wiped %d times and holds %d entries", id, u.wipes, len(u.entries))
			}
		}
		if r := c.record(1); r.Verdict != layout.Active || r.Base != 0 || r.Owner == 0 {
			t.Errorf("record is %+v", r)
		}
		if err := c.server.Health(); err != nil {
			t.Errorf("health: %v", err)
		}
	})
}

func TestR17ReconcileGivesEveryMemberTheWinners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2) // complete
		c.put(l, 2, wire.Written, 101, 1)    // stopped at the head
		c.put(l, 4, wire.Junk, 0, 1)         // a fill that stopped at the head
		c.put(l, 6, wire.Trimmed, 0, 2)      // a trim that reached the tail alone
		c.put(l, 6, wire.Durable, 102, 1)
		c.units[2].unaware = true       // else it would be repaired before
		c.put(l, 8, wire.Corrupt, 0, 2) // rotten at the tail
		c.put(l, 8, wire.Durable, 103, 1)
		c.put(l, 1, wire.Durable, 104, 4) // at the tail alone: the head restarted
		c.put(l, 9, wire.Written, 105, 3)

		next, err := c.reconfigure()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.open(2); got.Epoch != 2 || got.Start != 10 || !reflect.DeepEqual(got, next) {
			t.Errorf("epoch %d starts at %d, want 2 at 10 (rule R20)", got.Epoch, got.Start)
		}
		first := map[uint64]string{0: "entry 100", 1: "entry 101", 2: "junk 0", 3: "trimmed 0", 4: "entry 103"}
		second := map[uint64]string{0: "entry 104", 4: "entry 105"}
		for id, want := range map[layout.UnitID]map[uint64]string{1: first, 2: first, 3: second, 4: second} {
			if got := c.held(id); !reflect.DeepEqual(got, want) {
				t.Errorf("unit %d holds %v, want %v", id, got, want)
			}
			if c.units[id].wipes != 1 {
				t.Errorf("unit %d, a member of the base, was wiped", id)
			}
		}
		if got, want := c.units[2].received, []uint64{1, 2, 4}; !reflect.DeepEqual(got, want) {
			t.Errorf("unit 2 was sent %v, want %v", got, want)
		}
	})
}
