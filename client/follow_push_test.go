package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/rdma/tcp"
)

// following is a Follow under way.
type following struct {
	t       *testing.T
	l       *Log
	entries chan Entry
	ended   chan error
	cancel  context.CancelFunc
}

// follows follows the log from a position on, until the test ends.
func follows(t *testing.T, ctx context.Context, l *Log, from layout.Position) *following {
	ctx, cancel := context.WithCancel(ctx)
	f := &following{t, l, make(chan Entry), make(chan error, 1), cancel}
	go func() {
		for e, err := range l.Follow(ctx, from) {
			if err != nil {
				f.ended <- err
				break
			}
			select {
			case f.entries <- e:
			case <-ctx.Done():
			}
		}
		close(f.ended)
	}()
	t.Cleanup(func() {
		cancel()
		for range f.ended {
		}
	})
	return f
}

// want waits for the next entry.
func (f *following) want(p layout.Position, payload string) {
	f.t.Helper()
	select {
	case e := <-f.entries:
		if e.Position != p || string(e.Payload) != payload {
			f.t.Fatalf("Follow yields %.20q at %d; want %.20q at %d", e.Payload, e.Position, payload, p)
		}
	case err := <-f.ended:
		f.t.Fatalf("Follow ended before %.20q at %d: %v", payload, p, err)
	}
}

// asleep waits until a subscription stands at each tail of the epoch in use, none of which has anything
// to say: the Log sends nothing any more, but for what others than Follow do.
func asleep(t *testing.T, l *Log) {
	t.Helper()
	Until(t, "a follower that sleeps", func() bool {
		v := l.current()
		seg := v.layout.Segments[len(v.layout.Segments)-1]
		for _, c := range seg.Chains {
			s := v.units[c.Tail()].cur.Load()
			if s == nil || !s.alive() {
				return false
			}
			s.progress.mu.Lock()
			waits := s.progress.asked && !s.progress.sending && len(s.progress.waiting) > 0
			s.progress.mu.Unlock()
			if !waits {
				return false
			}
		}
		return true
	})
}

// asked counts the operations at the sequencer.
func asked(l *Log) uint64 {
	if s := l.current().seq.cur.Load(); s != nil {
		return s.pipe.posted.Load()
	}
	return 0
}

// chained starts a cluster of several chains.
func chained(t *testing.T, o devcluster.Options) (*rig, *Log, *Log) {
	t.Helper()
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close the device: %v", err)
		}
	})
	o.Device, o.Dir, o.Logger = dev, t.TempDir(), testLog()
	o.Geometry = layout.Geometry{PageSize: 4096, Window: 128, SessionSlots: 8, MaxSessions: 8}
	c, err := devcluster.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	r := &rig{c, t, dev, ctx}
	return r, r.open(), r.open()
}

func (r *rig) append(l *Log, payload string) layout.Position {
	r.t.Helper()
	p, err := l.Append(r.ctx, []byte(payload))
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// A follower asks the sequencer once, and then waits for the units to say that there is more: entries of
// any size reach it with no further question, and each message of a unit answers one of its own.
func TestFollowerIsTold(t *testing.T) {
	NotInLab(t, "who asks whom")
	Durabilities(t, func(t *testing.T, d layout.Durability) {
		r, l, reader := chained(t, devcluster.Options{Chains: 3, Replicas: 2, Durability: d})
		p := r.append(l, "first")
		f := follows(t, r.ctx, reader, 0)
		f.want(p, "first")
		asleep(t, reader)
		before, tails := asked(reader), testutil.ToFloat64(reader.m.calls.total[opTail][resOK])
		for i := range 100 {
			payload := fmt.Sprint("entry ", i)
			if i%10 == 9 {
				payload = string(bytes.Repeat([]byte{byte('a' + i%26)}, 3*l.PagePayload()))
			}
			f.want(r.append(l, payload), payload)
		}
		asleep(t, reader)
		if n := asked(reader) - before; n != 0 {
			t.Errorf("the sequencer was asked %d times while Follow waited", n)
		}
		if n := testutil.ToFloat64(reader.m.calls.total[opTail][resOK]) - tails; n != 0 {
			t.Errorf("%v calls of Tail while Follow waited", n)
		}
		if n := testutil.ToFloat64(reader.m.progress); n < 100 || n > 2*130 {
			t.Errorf("units said %v times how far they are; want about once for each of 130 pages", n)
		}
	})
}

// Several followers of one Log share what the units say, each from where it is.
func TestFollowersOfOneLog(t *testing.T) {
	NotInLab(t, "who asks whom")
	r, l, reader := chained(t, devcluster.Options{Chains: 2, Replicas: 1})
	p := r.append(l, "first")
	var all []*following
	for range 3 {
		all = append(all, follows(t, r.ctx, reader, p), follows(t, r.ctx, reader, p+1))
	}
	for i, f := range all {
		if i%2 == 0 {
			f.want(p, "first")
		}
	}
	asleep(t, reader)
	for i := range 20 {
		payload := fmt.Sprint("entry ", i)
		p := r.append(l, payload)
		for _, f := range all {
			f.want(p, payload)
		}
	}
}

// A follower goes on in the next epoch, and where a session broke within one.
func TestFollowerSubscribesAnew(t *testing.T) {
	NotInLab(t, "who asks whom")
	Durabilities(t, func(t *testing.T, d layout.Durability) {
		r, l, reader := chained(t, devcluster.Options{Chains: 2, Replicas: 2, Durability: d})
		f := follows(t, r.ctx, reader, 0)
		deliver := func(what string) {
			for i := range 4 {
				payload := fmt.Sprint(what, i)
				f.want(r.append(l, payload), payload)
			}
			asleep(t, reader)
		}
		deliver("at first")
		for i := range 3 {
			next, err := r.Reconfigure(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			Until(t, "the new epoch", func() bool { return reader.current().epoch() >= next.Epoch })
			deliver(fmt.Sprint("in a new epoch ", i))
			Break(reader)
			deliver(fmt.Sprint("after a break ", i))
		}
	})
}

// A unit is killed, and another epoch goes on without it: the follower hears from the new tail.
func TestFollowerOutlivesATail(t *testing.T) {
	NotInLab(t, "who asks whom")
	r, l, reader := chained(t, devcluster.Options{Chains: 2, Replicas: 2, MinReplicas: 1, FailAfter: 300 * time.Millisecond})
	f := follows(t, r.ctx, reader, 0)
	f.want(r.append(l, "before"), "before")
	asleep(t, reader)
	tail := reader.current().layout.Segments[0].Chains[0].Tail()
	epoch := reader.current().epoch()
	if err := r.KillUnit(tail); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		payload := fmt.Sprint("after ", i)
		f.want(r.append(l, payload), payload)
	}
	if reader.current().epoch() == epoch {
		t.Error("entries came, and the epoch did not end")
	}
}

// A hole in front of what the units say is filled, in a chain of its own and beside others; so are several.
func TestFollowerFillsAHole(t *testing.T) {
	NotInLab(t, "who asks whom")
	for _, chains := range []int{1, 3} {
		t.Run(fmt.Sprint(chains, " chains"), func(t *testing.T) {
			r, l, reader := chained(t, devcluster.Options{Chains: chains, Replicas: 2})
			f := follows(t, r.ctx, reader, 0)
			f.want(r.append(l, "before"), "before")
			asleep(t, reader)
			for i := range 3 {
				lost, _ := r.half(l, "never published", false)
				defer lost.recycle(false)
				payload := fmt.Sprint("behind ", i)
				p := r.append(l, payload)
				f.want(p, payload)
				if _, err := l.Read(r.ctx, lost.pos); !errors.Is(err, ErrJunk) || p != lost.pos+1 {
					t.Errorf("the position before %d: %v; want junk", p, err)
				}
			}
			if n := testutil.ToFloat64(reader.m.fills); n != 3 {
				t.Errorf("%v holes were filled; want 3", n)
			}
		})
	}
}

// A hole behind which the follower began is none of its business: it hears of what is in front of it.
func TestFollowerBeginsBehindAHole(t *testing.T) {
	NotInLab(t, "who asks whom")
	r, l, _ := chained(t, devcluster.Options{Chains: 2, Replicas: 2})
	reader, err := Open(r.ctx, Options{LayoutServers: []string{r.LayoutAddr()}, Device: r.dev, Logger: testLog(), HoleTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	r.append(l, "before")
	for range 2 { // one in each chain
		lost, _ := r.half(l, "never published", false)
		defer lost.recycle(false)
	}
	tail, err := reader.Tail(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	f := follows(t, r.ctx, reader, tail)
	asleep(t, reader)
	for i := range 10 {
		payload := fmt.Sprint("behind ", i)
		f.want(r.append(l, payload), payload)
	}
	f.cancel()
	<-f.ended
}

// A trim overtakes a follower that hears from units, and that is slow: it is told which positions it did not get.
func TestSlowFollowerIsOvertakenByATrim(t *testing.T) {
	NotInLab(t, "who asks whom")
	r, l, reader := chained(t, devcluster.Options{Chains: 2, Replicas: 1})
	f := follows(t, r.ctx, reader, 0)
	asleep(t, reader)
	const n, cut = 600, 500 // several windows
	first := r.append(l, "entry")
	for range n - 1 {
		r.append(l, "entry")
	}
	if err := l.TrimPrefix(r.ctx, cut); err != nil {
		t.Fatal(err)
	}
	next := first // what was read ahead may be given still
	for {
		select {
		case e := <-f.entries:
			if next = e.Position + 1; next > cut {
				t.Fatalf("position %d was given, and no error before", e.Position)
			}
			continue
		case err := <-f.ended:
			var told *TrimmedError
			if !errors.As(err, &told) || told.From != next || told.To != cut {
				t.Errorf("behind position %d: %v; want the positions up to %d", next, err, cut-1)
			}
		}
		return
	}
}

// Units of the release before do not say how far they are: the follower looks at the tail.
func TestFollowerOfUnitsThatSayNothing(t *testing.T) {
	NotInLab(t, "what a unit does not offer")
	r, l, reader := chained(t, devcluster.Options{Chains: 2, Replicas: 1})
	p := r.append(l, "first")
	f := follows(t, r.ctx, reader, p)
	f.want(p, "first")
	asleep(t, reader)
	f.cancel()
	<-f.ended
	ForgetProgress(reader)
	tails := testutil.ToFloat64(reader.m.calls.total[opTail][resOK])
	f = follows(t, r.ctx, reader, p+1)
	for i := range 10 {
		payload := fmt.Sprint("entry ", i)
		f.want(r.append(l, payload), payload)
	}
	if n := testutil.ToFloat64(reader.m.calls.total[opTail][resOK]) - tails; n < 10 {
		t.Errorf("%v calls of Tail for ten entries", n)
	}
}

// Close and the context end a follower that sleeps.
func TestSleepingFollowerEnds(t *testing.T) {
	NotInLab(t, "who asks whom")
	r, l, reader := chained(t, devcluster.Options{Chains: 2, Replicas: 1})
	f := follows(t, r.ctx, l, 0)
	asleep(t, l)
	f.cancel()
	if err := <-f.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("with its context Follow ends with %v", err)
	}
	f = follows(t, r.ctx, reader, 0)
	asleep(t, reader)
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	if err := <-f.ended; !errors.Is(err, ErrClosed) {
		t.Errorf("with its Log Follow ends with %v", err)
	}
}

// Positions and addresses of a segment that does not begin at 0, with bases that differ.
func TestFollowerMapsAddresses(t *testing.T) {
	g := layout.Geometry{PageSize: 4096, Window: 128, SessionSlots: 8, MaxSessions: 8}
	lay := &layout.Layout{Geometry: g, Segments: []layout.Segment{
		{Chains: []layout.Chain{{Units: []layout.UnitID{1}}, {Units: []layout.UnitID{2}}}},
		{Start: 7, Chains: []layout.Chain{{Base: 4, Units: []layout.UnitID{2}}, {Base: 4, Units: []layout.UnitID{1}}, {Base: 0, Units: []layout.UnitID{3}}}},
	}}
	f := follower{view: &view{layout: lay}, last: lay.Segments[1]}
	for p := layout.Position(0); p < 40; p++ {
		for i := range f.last.Chains {
			q := max(p, 7) // the first position of chain i at or behind p
			for int(q-7)%3 != i {
				q++
			}
			place, err := lay.Locate(q)
			if err != nil {
				t.Fatal(err)
			}
			if a := f.address(i, p); a != place.Address {
				t.Errorf("chain %d from position %d on: address %d; want %d", i, p, a, place.Address)
			}
			if got := f.position(i, place.Address); got != q {
				t.Errorf("chain %d: address %d is position %d; want %d", i, place.Address, got, q)
			}
		}
	}
	if p := f.position(0, 1); p != 7 {
		t.Errorf("an address below the segment is position %d; want its first, 7", p)
	}
	if p := f.position(2, 1<<63); p > layout.MaxPosition*4 {
		t.Errorf("an address that does not exist is position %d", p)
	}
}
