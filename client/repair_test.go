package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/client"
	"corfu/internal/control"
	"corfu/internal/devcluster"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit/flash"
)

// control is the control plane of unit id.
func (c *cluster) control(id int) pb.UnitServiceClient {
	c.t.Helper()
	conn, err := control.Dial(c.Units[id-1].ControlAddr())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return pb.NewUnitServiceClient(conn)
}

func (c *cluster) state(id int) *pb.UnitStateReply {
	c.t.Helper()
	s, err := c.control(id).State(within(c.t), &pb.UnitStateRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// scrub makes unit id verify all its pages, and returns once it has.
func (c *cluster) scrub(id int) *pb.ScrubStatus {
	c.t.Helper()
	began, err := c.control(id).Scrub(within(c.t), &pb.ScrubRequest{Rate: 1 << 30})
	if err != nil {
		c.t.Fatal(err)
	}
	var s *pb.ScrubStatus
	until(c.t, "the scrub of a unit", func() bool {
		s = c.state(id).Scrub
		return s.Pass == began.Pass && !s.Running
	})
	return s
}

// until waits for a condition.
var until = client.Until

// segment gives file and offset of an address in the directory of unit id.
func (c *cluster) segment(id int, a, perFile int) (string, int64) {
	return filepath.Join(c.UnitDir(layout.UnitID(id)), fmt.Sprintf("seg-%012x", a/perFile)), int64(a%perFile) * 4096
}

// spoil flips bits of the payload at address a of unit id, on flash.
func (c *cluster) spoil(id, a int) {
	c.t.Helper()
	path, off := c.segment(id, a, 64)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, off+70); err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ 0x5a}, off+70)
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		c.t.Fatal(err)
	}
}

// page is what unit id has on flash at address a.
func (c *cluster) page(id, a int) []byte {
	c.t.Helper()
	path, off := c.segment(id, a, 64)
	f, err := os.Open(path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	if _, err := f.ReadAt(b, off); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// healed waits until no unit knows of a CORRUPT copy.
func (c *cluster) healed() {
	c.t.Helper()
	until(c.t, "the repair of all copies", func() bool {
		for id := range c.Units {
			if c.state(id+1).Corrupt > 0 {
				return false
			}
		}
		return true
	})
}

// twoUnits is one chain of two with small segments, and twice as many entries as a window holds.
func twoUnits(t *testing.T) (*cluster, *client.Log) {
	c, l, _ := sickCluster(t, 9)
	return c, l
}

// R2, R11, and what docs/protocol.md says of repairs: copies whose bits flip, in the window and below, at the head and at the tail, are
// found by a scrub and are again what the other replica has. Whoever reads meanwhile gets what was written.
func TestScrubFindsAndRepairsFlippedBits(t *testing.T) {
	c, l := twoUnits(t)
	entries := 2 * smallGeometry.Window
	spoilt := map[int][]int{1: {0, 100, entries - 3}, 2: {1, 101, 200, entries - 2}}
	for id, as := range spoilt {
		for _, a := range as {
			c.spoil(id, a)
		}
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			for _, i := range []int{0, 1, 100, 101, 200, entries - 3, entries - 2} {
				if b, err := l.Read(within(t), layout.Position(i)); err != nil || !bytes.Equal(b, payloadOf(i)) {
					done <- fmt.Errorf("position %d: %q, %v", i, b, err)
					return
				}
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	for id, as := range spoilt {
		// A read may have found some before, and have them repaired.
		s := c.scrub(id)
		if s.Pages != uint64(entries) || s.Bytes != s.Pages*4096 || s.Corrupt > uint64(len(as)) || s.Next != s.End {
			t.Errorf("scrub of unit %d: %v", id, s)
		}
	}
	c.healed()
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for a := range entries {
		if !bytes.Equal(c.page(1, a), c.page(2, a)) {
			t.Fatalf("the replicas differ at %d", a)
		}
	}
	for i := range entries {
		wantEntry(t, l, i)
	}
	for id := range spoilt {
		if s := c.scrub(id); s.Corrupt != 0 {
			t.Errorf("second scrub of unit %d: %v", id, s)
		}
	}
}

// A cold read that does not verify makes the unit know, and so leads to a repair without any scrub; a whole segment that is gone, too.
func TestReadLeadsToRepair(t *testing.T) {
	c, l := twoUnits(t)
	c.spoil(2, 3)
	wantEntry(t, l, 3)
	until(t, "the repair", func() bool { return bytes.Equal(c.page(1, 3), c.page(2, 3)) })
	c.healed()
	wantEntry(t, l, 3)
}

// What is damaged while the unit is down is found and repaired after it came back, in the next epoch.
func TestDamageWhileStoppedIsRepaired(t *testing.T) {
	c, l := twoUnits(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	entries := 2 * smallGeometry.Window
	for _, a := range []int{2, 77, entries - 10} {
		c.spoil(2, a)
	}
	path, _ := c.segment(1, 64*3, 64)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again := start(t, devcluster.Options{Dir: filepath.Dir(c.UnitDir(1)), Device: c.dev, Flash: flash.Options{SegmentPages: 64}})
	l = again.open(client.Options{})
	if s := again.scrub(1); s.Corrupt != 64 {
		t.Errorf("scrub of unit 1: %v", s)
	}
	again.scrub(2)
	again.healed()
	for a := range entries {
		if !bytes.Equal(again.page(1, a), again.page(2, a)) {
			t.Fatalf("the replicas differ at %d", a)
		}
		wantEntry(t, l, a)
	}
}

// Both copies damaged: the position stays CORRUPT, is never served, and is reported; trimming it ends that.
func TestDamageEverywhereIsReported(t *testing.T) {
	c, l := twoUnits(t)
	c.spoil(1, 9)
	c.spoil(2, 9)
	c.scrub(1)
	c.scrub(2)
	until(t, "an unhealthy layout server", func() bool { return c.Layouts[0].Health() != nil })
	if err := c.Layouts[0].Health(); !strings.Contains(err.Error(), "corrupt") {
		t.Error(err)
	}
	if err := c.Ready(); err != nil {
		t.Errorf("a lost entry is a matter of status and alerts, and a member is not ready: %v", err)
	}
	if b, err := l.Read(within(t), 9); !errors.Is(err, client.ErrCorrupt) {
		t.Fatalf("read: %q, %v", b, err)
	}
	wantEntry(t, l, 8)
	if a, b := c.state(1), c.state(2); a.Corrupt != 1 || b.Corrupt != 1 {
		t.Errorf("corrupt copies: %d and %d", a.Corrupt, b.Corrupt)
	}
	if err := l.Trim(within(t), 9); err != nil {
		t.Fatal(err)
	}
	c.healed()
	until(t, "a healthy layout server", func() bool { return c.Layouts[0].Health() == nil })
	if _, err := l.Read(within(t), 9); !errors.Is(err, client.ErrTrimmed) {
		t.Fatal(err)
	}
}

// A trim that reached one replica alone reaches the other with the repair: trimmed wins.
func TestRepairTakesOverATrim(t *testing.T) {
	c, l := twoUnits(t)
	if err := l.Trim(within(t), 9); err != nil {
		t.Fatal(err)
	}
	c.spoilHeader(2, 9)
	c.scrub(2)
	c.healed()
	if _, err := l.Read(within(t), 9); !errors.Is(err, client.ErrTrimmed) {
		t.Fatal(err)
	}
	if s := c.scrub(2); s.Corrupt != 0 {
		t.Error(s)
	}
}

// spoilHeader makes a mark, which has no payload, not verify.
func (c *cluster) spoilHeader(id, a int) {
	c.t.Helper()
	path, off := c.segment(id, a, 64)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, off+40); err != nil {
		c.t.Fatal(err)
	}
}

// R10, R17: nothing is carried across epochs. A repair of an epoch that is over is refused, and one that a seal overtakes is made
// in the next epoch.
func TestRepairStaysInItsEpoch(t *testing.T) {
	c, l := twoUnits(t)
	ctx := within(t)
	before, err := c.Reconfigure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.control(1).Fetch(ctx, &pb.FetchRequest{Log: before.Log[:], Epoch: uint64(before.Epoch), Address: 5})
	if err != nil || wire.State(e.State) != wire.Durable {
		t.Fatal(e, err)
	}
	now, err := c.Reconfigure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"repair": second(c.control(2).Repair(ctx, &pb.RepairRequest{Log: before.Log[:], Epoch: uint64(before.Epoch), Entry: e})),
		"fetch":  second(c.control(1).Fetch(ctx, &pb.FetchRequest{Log: before.Log[:], Epoch: uint64(before.Epoch), Address: 5})),
	} {
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s of an epoch that is over: %v", what, err)
		}
	}
	if err := second(c.control(2).Repair(ctx, &pb.RepairRequest{Log: now.Log[:], Epoch: uint64(now.Epoch), Entry: e})); status.Code(err) != codes.AlreadyExists {
		t.Errorf("repair of a sound copy: %v", err)
	}
	for a := 10; a < 60; a++ {
		c.spoil(2, a)
	}
	c.scrub(2)
	for range 3 { // some repairs are made before, some between, some after
		if _, err := c.Reconfigure(ctx); err != nil {
			t.Fatal(err)
		}
	}
	c.healed()
	for a := range 64 {
		if !bytes.Equal(c.page(1, a), c.page(2, a)) {
			t.Fatalf("the replicas differ at %d", a)
		}
		wantEntry(t, l, a)
	}
}

func second[T any](_ T, err error) error { return err }
