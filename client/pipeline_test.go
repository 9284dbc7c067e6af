package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/internal/devcluster"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// hold keeps what is appended in the queue until the function that it returns is called.
func (r *rig) hold(l *Log) (release func()) {
	released := make(chan struct{})
	tokens := &l.pipeline.tokens
	work := tokens.work
	tokens.work = func(ctx context.Context, ready []want) {
		<-released
		work(ctx, ready)
	}
	return func() { close(released) }
}

// inCompany has sessions stand, and each append from now on go by way of the pipeline.
func (r *rig) inCompany(l *Log) {
	r.t.Helper()
	if _, err := l.Append(r.ctx, []byte("first")); err != nil {
		r.t.Fatal(err)
	}
	l.appending.Add(1) // nobody is alone
}

// asyncEnds collects what became of appends of AppendAsync, by their number.
type asyncEnds struct {
	sync.WaitGroup
	mu  sync.Mutex
	at  map[int]layout.Position
	err map[int]error
}

func (r *rig) async(l *Log, e *asyncEnds, ctx context.Context, i int, payload []byte) {
	r.t.Helper()
	e.Add(1)
	if err := l.AppendAsync(ctx, payload, func(p layout.Position, err error) {
		defer e.Done()
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.at == nil {
			e.at, e.err = map[int]layout.Position{}, map[int]error{}
		}
		if _, twice := e.at[i]; twice {
			r.t.Errorf("append %d ended twice", i)
		}
		e.at[i], e.err[i] = p, err
	}); err != nil {
		r.t.Fatal(err)
	}
}

// queued is how many appends wait for a position.
func (l *Log) queued() int {
	s := &l.pipeline.tokens
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready)
}

// Appends that wait together take their positions with one FETCH_ADD, in the order of the calls, and travel as lists. Sizes do not matter.
func TestAppendsInCompanyTakeOneToken(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l := r.open()
		if _, err := l.Append(r.ctx, []byte("first")); err != nil { // sessions stand
			t.Fatal(err)
		}
		pipe := l.current().seq.cur.Load().pipe
		release := r.hold(l)
		var e asyncEnds
		n := cap(l.current().gate)
		large := n / 2
		for i := range n {
			payload := []byte(fmt.Sprint(i))
			if i == large {
				payload = largeOf(3)
			}
			r.async(l, &e, r.ctx, i, payload)
		}
		before := pipe.posted.Load()
		release()
		e.Wait()
		want := layout.Position(1)
		for i := range n {
			if e.err[i] != nil || e.at[i] != want {
				t.Errorf("append %d at %d, %v; want %d", i, e.at[i], e.err[i], want)
			}
			if want++; i == large {
				want += 2
			}
		}
		if got := pipe.posted.Load() - before; got > 2 { // of what came before the queue was held, and of the rest
			t.Errorf("%d requests to the sequencer for %d appends", got, n)
		}
	})
}

// An entry that loses its position leaves its group and takes a later one; the others keep theirs (rules R2, R9).
func TestR9OneOfAGroupLosesItsPosition(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		if _, err := l.Append(r.ctx, []byte("first")); err != nil {
			t.Fatal(err)
		}
		for _, p := range []layout.Position{2, 5} {
			if err := other.fill(r.ctx, p); err != nil { // junk where nothing was handed out yet
				t.Fatal(err)
			}
		}
		release := r.hold(l)
		var e asyncEnds
		n := cap(l.current().gate)
		for i := range n {
			r.async(l, &e, r.ctx, i, fmt.Appendf(nil, "entry %d", i))
		}
		release()
		e.Wait()
		late := 0
		for i := range n {
			if e.err[i] != nil {
				t.Errorf("append %d: %v", i, e.err[i])
			}
			if e.at[i] != layout.Position(i+1) {
				late++
			}
			r.wantRead(other, e.at[i], fmt.Sprintf("entry %d", i))
		}
		for _, p := range []layout.Position{2, 5} {
			if _, err := other.Read(r.ctx, p); !errors.Is(err, ErrJunk) {
				t.Errorf("read %d: %v, want junk", p, err)
			}
			for i, w := range r.words(other, p) { // the entry went nowhere behind the head that refused it
				if !strings.Contains(strings.ToUpper(w), "JUNK") {
					t.Errorf("replica %d holds %s at %d, want junk", i, w, p)
				}
			}
		}
		if late != 2 {
			t.Errorf("%d entries are not where their turn was, want the two whose positions were taken", late)
		}
		if got := testutil.ToFloat64(l.m.casLost); got != 2 {
			t.Errorf("%v positions lost, want 2", got)
		}
	})
}

// A group that the epoch's end meets: each of its entries is in the log once, or not at all if it says so (rules R8, R9).
func TestR9GroupsThroughSeals(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		var e asyncEnds
		const n = 600
		for i := range n {
			r.async(l, &e, r.ctx, i, fmt.Appendf(nil, "entry %d of the groups", i))
			if i%150 == 75 {
				if _, err := r.Reconfigure(r.ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		e.Wait()
		seen := map[string][]layout.Position{}
		tail, err := other.Tail(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for x, err := range other.ReadRange(r.ctx, 0, tail) {
			if err != nil {
				t.Fatal(err)
			}
			seen[string(x.Payload)] = append(seen[string(x.Payload)], x.Position)
		}
		for i := range n {
			payload := fmt.Sprintf("entry %d of the groups", i)
			if e.err[i] != nil || !slices.Equal(seen[payload], []layout.Position{e.at[i]}) {
				t.Errorf("append %d: acknowledged at %d, %v; found at %v", i, e.at[i], e.err[i], seen[payload])
			}
		}
	})
}

// An append whose time ends in the queue has no position: it is not in the log, and says so at once. The others go on.
func TestAppendWhoseTimeEndsInTheQueue(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	if _, err := l.Append(r.ctx, []byte("first")); err != nil {
		t.Fatal(err)
	}
	release := r.hold(l)
	var e asyncEnds
	r.async(l, &e, r.ctx, 0, []byte("the first"))
	Until(t, "the first to be taken", func() bool { return l.queued() == 0 })
	ctx, cancel := context.WithCancel(r.ctx)
	r.async(l, &e, ctx, 1, []byte("given up"))
	r.async(l, &e, ctx, 2, largeOf(3))
	r.async(l, &e, r.ctx, 3, []byte("kept"))
	failed := make(chan error)
	for _, payload := range [][]byte{[]byte("given up, too"), largeOf(2)} {
		go func() {
			_, err := l.Append(ctx, payload)
			failed <- err
		}()
	}
	Until(t, "all to be queued", func() bool { return l.queued() == 5 })
	cancel()
	for range 2 {
		if err := <-failed; !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknown) {
			t.Errorf("append: %v, want the context's error alone", err)
		}
	}
	Until(t, "the asynchronous ones to end", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.err) == 2
	})
	release()
	e.Wait()
	for _, i := range []int{1, 2} {
		if !errors.Is(e.err[i], context.Canceled) || errors.Is(e.err[i], ErrUnknown) {
			t.Errorf("append %d: %v, want the context's error alone", i, e.err[i])
		}
	}
	if e.err[0] != nil || e.err[3] != nil || e.at[0] != 1 || e.at[3] != 2 {
		t.Errorf("those that were kept: %v at %v", e.err, e.at)
	}
	if tail, err := l.Tail(r.ctx); err != nil || tail != 3 {
		t.Errorf("tail %d, %v; want 3: no positions for those that were given up", tail, err)
	}
}

// An append whose time ends on its way is told that its outcome is unknown, and where it would stand; its position is decided all the same.
func TestAppendWhoseTimeEndsOnItsWay(t *testing.T) {
	r := newRig(t, layout.Flash)
	l, other := r.open(), r.open()
	r.inCompany(l)
	ctx, cancel := context.WithCancel(r.ctx)
	v := l.current()
	s := v.units[v.layout.Segments[0].Chains[0].Head()].cur.Load()
	var slots []int
	for len(s.slots.free) > 0 { // it waits for a slot with its position in hand
		slots = append(slots, <-s.slots.free)
	}
	failed := make(chan error)
	go func() {
		_, err := l.Append(ctx, []byte("on its way"))
		failed <- err
	}()
	Until(t, "the append to have a position", func() bool { return v.tail.Load() == 2 })
	cancel()
	var unknown *UnknownError
	if err := <-failed; !errors.As(err, &unknown) || unknown.Position != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("append: %v, want unknown at 1", err)
	}
	for _, i := range slots {
		s.slots.free <- i
	}
	r.wantRead(other, 1, "on its way")
}

// done may append and close; it is called once for each append, also where Close cuts them off.
func TestCallbacksMayCallBack(t *testing.T) {
	r := newRig(t, layout.Memory)
	l, err := Open(r.ctx, Options{LayoutServers: []string{r.LayoutAddr()}, Device: r.dev, MaxOutstanding: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan error, 1)
	var after sync.WaitGroup
	after.Add(1)
	if err := l.AppendAsync(r.ctx, []byte("a"), func(_ layout.Position, err error) {
		if err != nil {
			t.Error(err)
		}
		for i := range 20 { // more than may be outstanding
			if _, err := l.Append(r.ctx, fmt.Appendf(nil, "inside %d", i)); err != nil {
				t.Error(err)
			}
			after.Add(1)
			if err := l.AppendAsync(r.ctx, []byte("async inside"), func(_ layout.Position, err error) {
				if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrUnknown) {
					t.Error(err)
				}
				after.Done()
			}); err != nil {
				t.Error(err)
			}
		}
		closed <- l.Close()
		after.Done()
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	after.Wait()
}

// A stage's work gets everything once, in order, and all that is ready at a time; its goroutine ends when there is nothing left.
func TestStageTakesWhatIsReady(t *testing.T) {
	var running sync.WaitGroup
	gate := make(chan struct{})
	var got [][]int
	var s stage[int]
	s.setup(func(f func(context.Context)) func() { return func() { running.Go(func() { f(context.Background()) }) } }, func(_ context.Context, ready []int) {
		got = append(got, slices.Clone(ready))
		<-gate
	})
	s.add(1)
	Until(t, "work to begin", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.ready) == 0 })
	s.add(2)
	s.add()
	s.add(3, 4)
	close(gate)
	running.Wait()
	s.add(5)
	running.Wait()
	if want := [][]int{{1}, {2, 3, 4}, {5}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// An older unit knows no runs of doorbells: it is rung for each address.
func TestDoorbellsForAnOlderUnit(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	if _, err := l.Append(r.ctx, []byte("first")); err != nil {
		t.Fatal(err)
	}
	for _, k := range l.current().units {
		if s := k.cur.Load(); s != nil {
			s.bellRun = 1
		}
	}
	release := r.hold(l)
	var e asyncEnds
	const n = 60
	for i := range n {
		r.async(l, &e, r.ctx, i, []byte(strings.Repeat("x", i)))
	}
	release()
	e.Wait()
	for i := range n {
		if e.err[i] != nil || e.at[i] != layout.Position(i+1) {
			t.Errorf("append %d at %d, %v", i, e.at[i], e.err[i])
		}
	}
}

// A sequencer whose word went back, to where other chains were in use, gives positions that the chains of today do not hold. Nothing is published
// at them: their entries stand elsewhere (rules R2, R20).
func TestR20PositionsOfAnOlderSegment(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := rigOf(t, devcluster.Options{Chains: 2, Spares: 2, Durability: d})
		l, other := r.open(), r.open()
		for i := range 3 { // an odd number: the next segment begins with the other chain
			if _, err := l.Append(r.ctx, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		spares := l.current().layout.Spares
		lay, err := r.Change(r.ctx, &pb.ReconfigureRequest{Chain: []uint32{uint32(spares[0].ID), uint32(spares[1].ID)}})
		if err != nil {
			t.Fatal(err)
		}
		start := lay.Segments[len(lay.Segments)-1].Start
		if len(lay.Segments) != 2 || start%2 == 0 {
			t.Fatalf("segments %+v, want a turned one", lay.Segments)
		}
		for _, x := range []*Log{l, other} {
			Until(t, "the new layout", func() bool { return x.current().epoch() == lay.Epoch })
		}
		seq, err := l.current().seq.get(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		release := r.hold(l)
		var e asyncEnds
		r.async(l, &e, r.ctx, 0, []byte("a page"))
		r.async(l, &e, r.ctx, 1, largeOf(2))
		Until(t, "all that are not taken to be queued", func() bool { return l.queued() > 0 })
		f, err := l.frames.get()
		if err != nil {
			t.Fatal(err)
		}
		f.b.Reset()
		f.b.FetchAdd(seq.word, -uint64(start-2)) // any client can do that
		if err := f.do(r.ctx, seq.pipe); err != nil {
			t.Fatal(err)
		}
		l.put(f)
		release()
		e.Wait()
		for i := range 2 {
			if e.err[i] != nil || e.at[i] < start {
				t.Errorf("append %d at %d, %v; want a position from %d on", i, e.at[i], e.err[i], start)
			}
		}
		r.wantRead(other, e.at[0], "a page")
		for i := range 3 {
			r.wantRead(other, layout.Position(i), fmt.Sprint(i))
		}
	})
}

// An append whose time ends while its attempt waits for a client id, with a position taken for it, ends at once; the position is filled.
func TestAppendWhoseTimeEndsBeforeItsID(t *testing.T) {
	r := newRig(t, layout.Flash)
	l, other := r.open(), r.open()
	r.inCompany(l)
	l.ids.Load().n.Store(maxCounter) // used up
	l.renew <- struct{}{}            // and the layout servers do not answer
	ctx, cancel := context.WithCancel(r.ctx)
	failed := make(chan error)
	go func() {
		_, err := l.Append(ctx, []byte("given up"))
		failed <- err
	}()
	Until(t, "the position to be taken", func() bool { return l.current().tail.Load() == 2 })
	cancel()
	select {
	case err := <-failed:
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknown) {
			t.Errorf("append: %v, want the context's error alone", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the append waits on")
	}
	<-l.renew
	if p, err := l.Append(r.ctx, []byte("second")); err != nil || p != 2 {
		t.Errorf("append: %d, %v; want 2", p, err)
	}
	if _, err := other.Read(r.ctx, 1); !errors.Is(err, ErrJunk) {
		t.Errorf("read 1: %v, want junk", err)
	}
}

// A unit that acknowledges a page as corrupt is counted and logged, as where a reader meets one.
func TestCorruptAcknowledgementIsCounted(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	if _, err := l.Append(r.ctx, []byte("first")); err != nil {
		t.Fatal(err)
	}
	a, err := l.attempts.get(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.take(r.ctx, l.current(), 0); err != nil {
		t.Fatal(err)
	}
	a.expectAcks(l.current(), 1)
	a.join(nil, 0)
	a.published()
	a.acked(wire.Corrupt)
	out, err := a.afterCompany(r.ctx, <-a.result)
	if out != outUnknown || !errors.Is(err, ErrCorrupt) {
		t.Errorf("outcome %d, %v; want unknown, and corrupt", out, err)
	}
	if got := testutil.ToFloat64(l.m.corrupt); got != 1 {
		t.Errorf("%v corrupt copies counted, want 1", got)
	}
	a.recycle(false)
}
