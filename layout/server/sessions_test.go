package server

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// resize asks for another max_sessions.
func resize(n uint32) *pb.ReconfigureRequest { return &pb.ReconfigureRequest{MaxSessions: n} }

// TestAnotherMaxSessions: an epoch brings it, up and down, to every unit, which took the memory before the log was sealed; it stays in the
// epochs that follow, and asked for again nothing happens. The configuration says what it was at first, and still counts.
func TestAnotherMaxSessions(t *testing.T) {
	c := newCluster(t)
	l := c.start().open(1)
	if got, err := c.ask(&pb.ReconfigureRequest{MaxSessions: 99, DryRun: true}); err != nil || got.Geometry.MaxSessions != 99 || got.Epoch != 2 {
		t.Errorf("a dry run gives %+v, %v", got, err)
	}
	for _, n := range []int{512, 7, l.Geometry.MaxSessions} {
		got, err := c.ask(resize(uint32(n)))
		if err != nil {
			t.Fatal(err)
		}
		want := l.Next(got.Epoch, got.Start)
		want.Geometry.MaxSessions = n
		if got.Epoch != l.Epoch+1 || !reflect.DeepEqual(got, want) {
			t.Errorf("layout is\n%+v, want\n%+v", got, want)
		}
		for id, u := range c.units {
			u.mu.Lock()
			if u.sessions != uint32(n) || !slices.Contains(u.holds, uint32(n)) || u.wipes != 1 {
				t.Errorf("unit %d: max_sessions %d, memory for %v, %d wipes; want %d", id, u.sessions, u.holds, u.wipes, n)
			}
			u.mu.Unlock()
		}
		c.again(resize(uint32(n)))
		if l, err = c.reconfigure(); err != nil || l.Geometry.MaxSessions != n {
			t.Errorf("the next epoch has %+v, %v", l, err)
		}
	}
	c.stop()
	c.start().active("the layout after a restart", func(x *layout.Layout) bool { return x.Geometry == l.Geometry })
	if d := c.status().Differences; len(d) > 0 {
		t.Errorf("differences: %v", d)
	}
}

// TestAnotherMaxSessionsIsRefused where the memory is not there, a unit is of the release before, or the value makes no sense: at once, with one
// line that says which unit and why. No epoch is made, and nobody is sealed.
func TestAnotherMaxSessionsIsRefused(t *testing.T) {
	c := newCluster(t)
	l := c.start().open(1)
	refused := func(n uint32, want ...string) {
		t.Helper()
		_, err := c.client().Reconfigure(context.Background(), resize(n))
		if status.Code(err) != codes.FailedPrecondition {
			t.Fatalf("%d: %v", n, err)
		}
		for _, w := range want {
			if text := err.Error(); !strings.Contains(text, w) || strings.Contains(text, "\n") {
				t.Errorf("%d: %q, want %q in one line", n, text, w)
			}
		}
		c.active("epoch 1 still", func(x *layout.Layout) bool { return reflect.DeepEqual(x, l) })
	}
	refused(4097, "max sessions is 4097: must be 1 to 4096")
	c.units[2].setHook(func(call string, n layout.Epoch) error {
		if call == "reserve" && n != 0 {
			return status.Error(codes.ResourceExhausted, "no memory for another max_sessions: 512 takes 1 bytes")
		}
		if call == "seal" {
			t.Error("it was sealed")
		}
		return nil
	})
	refused(512, "unit 2: no memory for another max_sessions: 512 takes 1 bytes")
	for _, id := range []layout.UnitID{1, 3, 4} {
		u := c.units[id]
		u.mu.Lock()
		if want := []uint32{512, 0}; !reflect.DeepEqual(u.holds, want) {
			t.Errorf("unit %d was asked for %v, want %v", id, u.holds, want)
		}
		u.mu.Unlock()
	}
	c.units[3].mu.Lock()
	c.units[3].older = true
	c.units[3].mu.Unlock()
	refused(512, "unit 3 is of a release that does not know another max_sessions: upgrade it")
}

// TestAnotherMaxSessionsThatFailsLate: the memory was there before the seal and is gone. The next epoch has the old value, nobody is blamed and
// left out, and the caller is told.
func TestAnotherMaxSessionsThatFailsLate(t *testing.T) {
	c := newCluster(t)
	l := c.start().open(1)
	c.units[2].setHook(func(call string, e layout.Epoch) error {
		if call == "reconcile" && e == 2 {
			return status.Error(codes.ResourceExhausted, "no memory for another max_sessions")
		}
		return nil
	})
	_, err := c.client().Reconfigure(context.Background(), resize(512))
	if want := "unit 2: reconcile: not possible: "; status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	got := c.active("the next epoch", func(l *layout.Layout) bool { return l.Epoch > 1 })
	if want := l.Next(3, got.Start); !reflect.DeepEqual(got, want) {
		t.Errorf("layout is\n%+v, want\n%+v", got, want)
	}
}
