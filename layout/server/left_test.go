package server

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// leftBehind is a cluster in which unit 5 took the place of unit 1, and holds the entry at address 0
// as unit 2 does.
func leftBehind(t *testing.T) (*cluster, *layout.Layout) {
	t.Helper()
	c := withSpare(t)
	l := c.start().open(1)
	c.put(l, 0, wire.Durable, 100, 1, 2)
	for _, u := range []layout.UnitID{1, 2, 3, 4} {
		c.units[u].mu.Lock()
		c.units[u].watermark = 1
		c.units[u].mu.Unlock()
	}
	c.units[1].die()
	c.active("unit 5 holds what unit 1 held", func(l *layout.Layout) bool {
		return l.IsMember(5) && !l.IsMember(1) && len(l.Behind()) == 0
	})
	c.units[5] = c.spare
	if h := c.held(5); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
		t.Fatalf("unit 5 holds %v", h)
	}
	return c, l
}

var entry100 = map[uint64]string{0: "entry 100"}

// TestUnitThatLeftRestoresWhatAllMembersLost: a unit that was left out, and stands by, has the only
// sound copy. It is asked as soon as it answers.
func TestUnitThatLeftRestoresWhatAllMembersLost(t *testing.T) {
	c, l := leftBehind(t)
	c.put(l, 0, wire.Corrupt, 0, 2, 5)
	await(t, "no member can restore it", func() error {
		if n := testutil.ToFloat64(c.server.manager.metrics.lost); n != 2 {
			return fmt.Errorf("%v copies are lost", n)
		}
		return nil
	})
	c.units[1].restart()
	c.wantHeld(map[layout.UnitID]map[uint64]string{1: entry100, 2: entry100, 5: entry100})
	await(t, "nothing is lost", func() error {
		if n := testutil.ToFloat64(c.server.manager.metrics.lost); n != 0 {
			return fmt.Errorf("%v copies are lost", n)
		}
		return nil
	})
}

// TestUnitThatLeftIsNotWipedBeforeOthersHaveWhatItHolds: it is to join another chain, and the
// members of its own have not found out yet that their copies are damaged.
func TestUnitThatLeftIsNotWipedBeforeOthersHaveWhatItHolds(t *testing.T) {
	c, l := leftBehind(t)
	for _, u := range []layout.UnitID{2, 5} {
		c.units[u].mu.Lock()
		c.units[u].unaware = true
		c.units[u].mu.Unlock()
	}
	c.put(l, 0, wire.Corrupt, 0, 2, 5)
	c.units[1].restart()
	c.units[4].die()
	c.active("unit 1 in the place of unit 4", func(l *layout.Layout) bool { return l.IsMember(1) && !l.IsMember(4) })
	c.wantHeld(map[layout.UnitID]map[uint64]string{2: entry100, 5: entry100})
	if c.units[1].wipes != 2 {
		t.Errorf("unit 1 was wiped %d times; want once as new, and once for the other chain", c.units[1].wipes)
	}
}

// TestUnitWithTheOnlySoundCopyIsWipedByAnOperatorsWordAlone: the members cannot take its copy, since
// they have forgotten what was trimmed.
func TestUnitWithTheOnlySoundCopyIsWipedByAnOperatorsWordAlone(t *testing.T) {
	c, l := leftBehind(t)
	for _, u := range []layout.UnitID{2, 5} {
		c.units[u].setHook(func(call string, _ layout.Epoch) error {
			if call == "repair" {
				return status.Error(codes.OutOfRange, "the unit does not know what was trimmed")
			}
			return nil
		})
	}
	c.put(l, 0, wire.Corrupt, 0, 2, 5)
	var asked atomic.Int64
	c.units[1].setHook(func(call string, _ layout.Epoch) error {
		if call == "fetch" {
			asked.Add(1)
		}
		return nil
	})
	c.units[1].restart()
	c.units[4].die()
	got := c.active("a chain without unit 4", func(l *layout.Layout) bool { return !l.IsMember(4) })
	await(t, "unit 1 is asked again and again", func() error {
		if n := asked.Load(); n < 10 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if wipes, entries := c.units[1].watched(); got.IsMember(1) || wipes != 1 || entries != 1 {
		t.Errorf("member: %v, wiped %d times, holds %d entries", got.IsMember(1), wipes, entries)
	}
	add := []*pb.Unit{{Id: 1, Control: c.units[1].addr}}
	if _, err := c.ask(&pb.ReconfigureRequest{Add: add, AcceptLoss: true}); err != nil {
		t.Fatal(err)
	}
	c.active("unit 1 in the place of unit 4", func(l *layout.Layout) bool { return l.IsMember(1) })
	if wipes, _ := c.units[1].watched(); wipes != 2 {
		t.Errorf("wiped %d times; want once more", wipes)
	}
}
