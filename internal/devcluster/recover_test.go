package devcluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/client"
	"corfu/internal/control"
	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
)

// bereft is a cluster whose layout servers lose their directories.
type bereft struct {
	*devcluster.Cluster
	t       *testing.T
	ctx     context.Context
	dev     rdma.Device
	dir     string
	entries int
	client  uint32 // the highest client id that was handed out
}

const lostEntries = 40

func startLost(t *testing.T, o devcluster.Options) *bereft {
	t.Helper()
	if inLab {
		t.Skip("a layout store is built over gRPC: tcp shows it")
	}
	x := &bereft{t: t, ctx: testContext(t), dev: openDevice(t), dir: t.TempDir()}
	o.Device, o.Dir, o.FailAfter, o.Election = x.dev, x.dir, 2*time.Second, time.Second
	c, err := devcluster.Start(x.ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	x.Cluster = c
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	x.append(lostEntries)
	return x
}

// append appends n more entries, by a new client.
func (x *bereft) append(n int) {
	x.t.Helper()
	log := openLog(x.t, x.ctx, x.Cluster, x.dev)
	defer log.Close()
	for range n {
		p, err := log.Append(x.ctx, fmt.Appendf(nil, "entry %d", x.entries))
		if err != nil {
			x.t.Fatal(err)
		}
		if uint64(p) != uint64(x.entries) {
			x.t.Fatalf("entry %d stands at %d", x.entries, p)
		}
		x.entries++
	}
	id, err := ask(x, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.NewClientIDReply, error) {
		return c.NewClientID(ctx, &pb.NewClientIDRequest{})
	})
	if err != nil {
		x.t.Fatal(err)
	}
	if id.Client <= x.client {
		x.t.Fatalf("client id %d was handed out again, %d was the highest", id.Client, x.client)
	}
	x.client = id.Client
}

// whole reads every entry that was acknowledged.
func (x *bereft) whole() {
	x.t.Helper()
	log := openLog(x.t, x.ctx, x.Cluster, x.dev)
	defer log.Close()
	for p := range x.entries {
		e, err := log.Read(x.ctx, layout.Position(p))
		if err != nil || string(e) != fmt.Sprintf("entry %d", p) {
			x.t.Fatalf("position %d: %q, %v", p, e, err)
		}
	}
}

// layoutDir is where layout server i+1 keeps its store.
func (x *bereft) layoutDir(i int) string {
	name := "layout"
	if i > 0 {
		name += fmt.Sprintf("-%d", i+1)
	}
	return filepath.Join(x.dir, name)
}

// stopLayouts stops all layout servers, and empties their directories.
func (x *bereft) stopLayouts() {
	x.t.Helper()
	for i := range x.Layouts {
		if err := x.StopLayout(i); err != nil {
			x.t.Fatal(err)
		}
		if err := os.RemoveAll(x.layoutDir(i)); err != nil {
			x.t.Fatal(err)
		}
	}
}

func (x *bereft) startLayouts() {
	x.t.Helper()
	for i := range x.Layouts {
		if err := x.StartLayout(x.ctx, i); err != nil {
			x.t.Fatal(err)
		}
	}
}

// empty replaces the store of a unit that is stopped.
func (x *bereft) empty(u layout.UnitID) {
	x.t.Helper()
	if err := os.RemoveAll(x.UnitDir(u)); err != nil {
		x.t.Fatal(err)
	}
}

func (x *bereft) kill(u layout.UnitID) {
	x.t.Helper()
	if err := x.KillUnit(u); err != nil {
		x.t.Fatal(err)
	}
}

func (x *bereft) restart(u layout.UnitID) {
	x.t.Helper()
	if err := x.RestartUnit(x.ctx, u); err != nil {
		x.t.Fatal(err)
	}
}

// ask calls the leader of the layout servers.
func ask[T any](x *bereft, call func(context.Context, pb.LayoutServiceClient) (T, error)) (T, error) {
	return control.Ask(x.ctx, control.NewLayouts(x.LayoutAddrs(), dialer(x.t)), call)
}

// waits until the log waits with a text that has all of these in it.
func (x *bereft) waits(texts ...string) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("the log waits with %q", texts), func() error {
		s, err := ask(x, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.StatusReply, error) {
			return c.Status(ctx, &pb.StatusRequest{})
		})
		if err != nil {
			return err
		}
		if s.Layout != nil {
			x.t.Fatalf("the store has epoch %d", s.Layout.Epoch)
		}
		for _, text := range texts {
			if !strings.Contains(s.Phase, text) {
				return fmt.Errorf("phase %q", s.Phase)
			}
		}
		return nil
	})
}

// recover asks as an operator does, until it is refused for no other reason than want; "": until it
// is done.
func (x *bereft) recover(q *pb.RecoverRequest, want string) (r *pb.RecoverReply) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("recover %v", q), func() (err error) {
		r, err = ask(x, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.RecoverReply, error) {
			return c.Recover(ctx, q)
		})
		switch {
		case err != nil:
			return err
		case want == "" && q.Execute && !r.Done, !strings.Contains(r.Refused, want):
			return errors.New(r.Refused)
		}
		return nil
	})
	return r
}

// served waits until the log is in a newer epoch than e, and takes entries.
func (x *bereft) served(e layout.Epoch) *layout.Layout {
	x.t.Helper()
	var l *layout.Layout
	eventually(x.t, fmt.Sprintf("an epoch above %d", e), func() error {
		log, err := client.Open(x.ctx, client.Options{LayoutServers: x.LayoutAddrs(), Device: x.dev})
		if err != nil {
			return err
		}
		defer log.Close()
		if l = log.Layout(); l.Epoch <= e {
			return fmt.Errorf("epoch %d", l.Epoch)
		}
		return nil
	})
	x.append(5)
	x.whole()
	return l
}

// TestR25LostLayoutStoreIsBuiltByItself: all units hold the newest epoch, and no later one can have
// been active.
func TestR25LostLayoutStoreIsBuiltByItself(t *testing.T) {
	for name, o := range map[string]struct {
		devcluster.Options
		restart bool
	}{
		"units running":                  {Options: devcluster.Options{Chains: 1}},
		"units restarted, and a spare":   {Options: devcluster.Options{Chains: 2, Spares: 1}, restart: true},
		"three layout servers, all lost": {Options: devcluster.Options{Chains: 1, LayoutServers: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			x := startLost(t, o.Options)
			before, err := x.Reconfigure(x.ctx)
			if err != nil {
				t.Fatal(err)
			}
			x.append(5)
			x.stopLayouts()
			if o.restart {
				for u := range x.Units {
					x.kill(layout.UnitID(u + 1))
					x.restart(layout.UnitID(u + 1))
				}
			}
			x.startLayouts()
			after := x.served(before.Epoch)
			if after.Log != before.Log || len(after.Units) != len(before.Units) {
				t.Errorf("it goes on with log %v of units %v", after.Log, after.Units)
			}
			_, err = ask(x, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.RecoverReply, error) {
				return c.Recover(ctx, &pb.RecoverRequest{Execute: true})
			})
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("recover of a store that has an epoch: %v", err)
			}
		})
	}
}

// TestR25MemberThatIsMissingIsGivenUpByName: the log waits while a member does not answer. An
// operator's word gives it up, and what it holds is kept when it comes back (rule R27).
func TestR25MemberThatIsMissingIsGivenUpByName(t *testing.T) {
	x := startLost(t, devcluster.Options{Chains: 1})
	x.stopLayouts()
	x.kill(2)
	x.startLayouts()
	x.waits("corfu layout recover", "unit 2, a member of epoch 1", "does not answer")
	x.recover(&pb.RecoverRequest{Execute: true}, "--accept-loss 2")
	if r := x.recover(&pb.RecoverRequest{AcceptLoss: []uint32{2}}, ""); r.Done || !r.AcceptedLoss || r.Record.GetEpoch() != 1 {
		t.Errorf("a dry run: %v", r)
	}
	x.waits("unit 2, a member of epoch 1") // nothing was done yet
	x.recover(&pb.RecoverRequest{Execute: true, AcceptLoss: []uint32{2}}, "")
	l := x.served(1)
	if l.IsMember(2) {
		t.Errorf("epoch %d has unit 2", l.Epoch)
	}
	x.restart(2)
	for range 2 { // whatever epochs are made, it is no member, and keeps what it holds
		l, err := x.Reconfigure(x.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if l.IsMember(2) {
			t.Errorf("epoch %d has unit 2, which may hold what was given up", l.Epoch)
		}
	}
	x.whole()
}

// TestR25EmptiedMemberIsNoProof: unit 2, the tail, may have been all that a newer epoch had.
func TestR25EmptiedMemberIsNoProof(t *testing.T) {
	x := startLost(t, devcluster.Options{Chains: 1})
	x.stopLayouts()
	x.kill(2)
	x.empty(2)
	x.restart(2)
	x.startLayouts()
	x.waits("unit 2, a member of epoch 1", "its store is empty")
	x.recover(&pb.RecoverRequest{Execute: true}, "its store is empty")
	x.recover(&pb.RecoverRequest{Execute: true, AcceptLoss: []uint32{2}}, "")
	x.served(1)
}

// TestR25PromiseBeyondTheNewestEpochIsNoProof: an operator may say that the epoch came to nothing.
func TestR25PromiseBeyondTheNewestEpochIsNoProof(t *testing.T) {
	x := startLost(t, devcluster.Options{Chains: 1})
	x.stopLayouts()
	k := seal(x, 1, 9)
	x.startLayouts()
	x.waits("unit 1 promised epoch 9")
	if r := x.recover(&pb.RecoverRequest{}, ""); len(r.Unsure) != 1 || r.Attempted != 9 || r.Record.GetId() != k {
		t.Errorf("a dry run: %v", r)
	}
	x.recover(&pb.RecoverRequest{Execute: true}, "")
	x.served(9)
}

// TestR25NothingIsBuiltBesideAnotherLayoutServer: it may lead the log.
func TestR25NothingIsBuiltBesideAnotherLayoutServer(t *testing.T) {
	x := startLost(t, devcluster.Options{Chains: 1})
	x.stopLayouts()
	ctx, stop := context.WithCancel(x.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_, _ = unitOf(x, 1).State(ctx, &pb.UnitStateRequest{Asker: 4711})
			time.Sleep(50 * time.Millisecond)
		}
	}()
	x.startLayouts()
	x.waits("another layout server, at 127.0.0.1, asked unit 1")
	x.recover(&pb.RecoverRequest{Execute: true}, "another layout server")
	stop()
	<-ended
	x.served(1)
}
