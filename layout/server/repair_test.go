package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// corrupt lists the addresses with a CORRUPT copy, in order. mu is held.
func (u *fakeUnit) corrupt() (all []uint64) {
	if u.unaware {
		return nil
	}
	for _, a := range slices.Sorted(maps.Keys(u.entries)) {
		if wire.State(u.entries[a].State) == wire.Corrupt {
			all = append(all, a)
		}
	}
	return all
}

func (u *fakeUnit) Corrupt(_ context.Context, r *pb.CorruptRequest) (*pb.CorruptReply, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := slices.DeleteFunc(u.corrupt(), func(a uint64) bool { return a < r.From })
	return &pb.CorruptReply{Addresses: list[:min(len(list), int(r.Max))]}, nil
}

func (u *fakeUnit) Fetch(_ context.Context, r *pb.FetchRequest) (*pb.Entry, error) {
	if err := u.enter("fetch", r.Epoch); err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	if r.Start != 0 {
		if err := u.checkStart(r.Start); err != nil {
			return nil, err
		}
		if e := u.entries[r.Address]; e != nil && wire.State(e.State) == wire.Durable {
			if _, err := wire.VerifyPage(e.Page, layout.LogID(u.log), layout.Position(r.Position)); err == nil {
				return &pb.Entry{Address: e.Address, State: e.State, Attempt: e.Attempt, Page: e.Page}, nil
			}
		}
		return &pb.Entry{Address: r.Address}, nil
	}
	if u.state != stateOpen || u.promise != r.Epoch {
		return nil, refuse("not open in %d", r.Epoch)
	}
	u.unaware = false // it looks
	if e := u.entries[r.Address]; e != nil {
		return &pb.Entry{Address: e.Address, State: e.State, Attempt: e.Attempt, Page: e.Page}, nil
	}
	return &pb.Entry{Address: r.Address}, nil
}

func (u *fakeUnit) Repair(_ context.Context, r *pb.RepairRequest) (*pb.RepairReply, error) {
	if err := u.enter("repair", r.Epoch); err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	if u.state != stateOpen || u.promise != r.Epoch {
		return nil, refuse("not open in %d", r.Epoch)
	}
	u.entries[r.Entry.Address] = r.Entry
	return &pb.RepairReply{}, nil
}

func (c *cluster) wantHeld(want map[layout.UnitID]map[uint64]string) {
	c.t.Helper()
	await(c.t, "the repair", func() error {
		for id, h := range want {
			if got := c.held(id); !reflect.DeepEqual(got, h) {
				return errors.New("not yet")
			}
		}
		return nil
	})
}

// R17 decides what a CORRUPT copy becomes, in the epoch in force: an entry, junk, and a trim over everything; at head and tail.
func TestR17CorruptCopiesAreRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 2)
		c.put(l, 2, wire.DurableJunk, 0, 1)
		c.put(l, 4, wire.Trimmed, 0, 1)
		c.put(l, 1, wire.Durable, 104, 3)
		c.put(l, 2, wire.Corrupt, 0, 2)
		c.put(l, 4, wire.Corrupt, 0, 2)
		c.put(l, 0, wire.Corrupt, 0, 1)
		c.put(l, 1, wire.Corrupt, 0, 4)
		first := map[uint64]string{0: "entry 100", 1: "junk 0", 2: "trimmed 0"}
		second := map[uint64]string{0: "entry 104"}
		c.wantHeld(map[layout.UnitID]map[uint64]string{1: first, 2: first, 3: second, 4: second})
		if err := c.server.Health(); err != nil {
			t.Error(err)
		}
	})
}

// R5: what a source sends and does not verify is not spread, and what is not durable there is not taken; it is tried again, ever
// more rarely, until it works.
func TestBadSourcesAreNotSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		var fetches atomic.Int64
		c.units[1].setHook(func(call string, _ layout.Epoch) error {
			if call == "fetch" {
				fetches.Add(1)
			}
			return nil
		})
		c.put(l, 0, wire.Durable, 100, 1)
		c.put(l, 2, wire.Written, 101, 1)
		c.units[1].mu.Lock()
		c.units[1].entries[0].Page[70] ^= 1
		c.units[1].mu.Unlock()
		began := time.Now()
		c.put(l, 0, wire.Corrupt, 0, 2)
		c.put(l, 2, wire.Corrupt, 0, 2)
		await(t, "the second try", func() error {
			if fetches.Load() < 4 {
				return errors.New("not yet")
			}
			return nil
		})
		if took := time.Since(began); took < repairFirst {
			t.Errorf("two tries of two addresses within %v", took)
		}
		if got, want := c.held(2), map[uint64]string{0: "corrupt 0", 1: "corrupt 0"}; !reflect.DeepEqual(got, want) {
			t.Errorf("unit 2 holds %v, want %v", got, want)
		}
		c.put(l, 0, wire.Durable, 100, 1)
		c.put(l, 2, wire.Durable, 101, 1)
		c.wantHeld(map[layout.UnitID]map[uint64]string{2: {0: "entry 100", 1: "entry 101"}})
	})
}

// What no member can restore is counted and makes the server unhealthy, until it is gone; so is a copy that is another entry.
func TestLostCopiesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.start().open(1)
		lost := func(unit string) (n uint32) {
			m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range m.Members {
				if x.Name == unit {
					n = x.Lost
				}
			}
			return n
		}
		c.units[4].setHook(func(call string, _ layout.Epoch) error {
			if call == "repair" {
				return status.Error(codes.DataLoss, "another entry")
			}
			return nil
		})
		c.put(l, 0, wire.Corrupt, 0, 1, 2)
		c.put(l, 1, wire.Durable, 7, 3)
		c.put(l, 1, wire.Corrupt, 0, 4)
		await(t, "lost copies", func() error {
			if lost("unit 1") != 1 || lost("unit 2") != 1 || lost("unit 3") != 0 || lost("unit 4") != 1 || c.server.Health() == nil {
				return errors.New("not yet")
			}
			return nil
		})
		c.put(l, 0, wire.Trimmed, 0, 1, 2)
		c.put(l, 1, wire.Trimmed, 0, 3, 4)
		await(t, "health", func() error { return c.server.Health() })
	})
}

// A unit that is no member any more has no copies that anybody misses.
func TestLostCopiesOfAUnitThatLeftAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares, c.cfg.FailAfter = nil, patient
		l := c.start().open(1)
		c.put(l, 0, wire.Corrupt, 0, 1, 2)
		await(t, "both are lost", func() error {
			if n := c.server.manager.repairer.lost(0); n != 2 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		if _, err := c.ask(&pb.ReconfigureRequest{Remove: []uint32{1}}); err != nil {
			t.Fatal(err)
		}
		c.put(l, 0, wire.Trimmed, 0, 2) // what the error tells the operator to do
		await(t, "health", func() error { return c.server.Health() })
		if n := testutil.ToFloat64(c.server.metrics.lost); n != 0 {
			t.Errorf("corfu_layout_lost_copies is %v", n)
		}
	})
}
