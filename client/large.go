package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
)

// large is what appends of more than a page share.
//
// Their fragments have attempts of their own, which are taken in the order of the positions: by one goroutine, entry after entry. So the
// lowest fragment that is not
// published yet always has an attempt, or gets one as soon as a lower one is durable. Were attempts shared with other
// appends, or taken in any order, then those that wait for the window could hold all that the one needs which would move it.
type large struct {
	room      chan struct{}   // bounds the appends, and so the memory of their payloads
	placed    stage[*tearing] // entries that have positions, in the order of these
	fragments attempts
}

const (
	largeAtOnce     = 8  // appends of more than a page in flight, each up to 1 MiB
	fragmentsAtOnce = 64 // their pages in flight, as far as there are staging slots for them
)

func (g *large) setup(l *Log) {
	g.room = make(chan struct{}, largeAtOnce)
	g.fragments.setup(l, fragmentsAtOnce)
	g.placed.setup(l.starter, func(_ context.Context, ready []*tearing) {
		for _, t := range ready {
			t.placed <- t.publish()
		}
	})
}

// acquire takes a place in one of the channels.
func (l *Log) acquire(ctx context.Context, places chan<- struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return ErrClosed
	}
}

func (l *Log) appendLarge(ctx context.Context, flags wire.PageFlags, payload []byte) (layout.Position, error) {
	if err := l.beginLarge(ctx, payload); err != nil {
		return 0, err
	}
	defer l.endLarge()
	return l.runLarge(l.tear(ctx, flags, payload))
}

func (l *Log) appendLargeAsync(ctx context.Context, flags wire.PageFlags, payload []byte, done func(layout.Position, error)) error {
	if err := l.beginLarge(ctx, payload); err != nil {
		return err
	}
	t := l.tear(ctx, flags, append([]byte(nil), payload...)) // it has its place in the order of the calls
	go func() {
		p, err := l.runLarge(t)
		l.endLarge() // before the call, which may call into the log again
		l.pipeline.callbacks.add(callback{done, p, err})
	}()
	return nil
}

// beginLarge enters the log and takes room for one more.
func (l *Log) beginLarge(ctx context.Context, payload []byte) error {
	if err := l.enter(); err != nil {
		return err
	}
	var err error
	if n := l.MaxPayload(); len(payload) > n {
		err = fmt.Errorf("%d bytes: %w: at most %d", len(payload), ErrTooLarge, n)
	} else if l.full() {
		err = ErrFull
	} else {
		err = l.acquire(ctx, l.large.room)
	}
	if err != nil {
		l.exit()
		l.m.calls.refused(opAppend, err)
		return err
	}
	l.appending.Add(1)
	return nil
}

func (l *Log) endLarge() {
	<-l.large.room
	l.ends()
}

// runLarge appends the payload of t, which waits for its positions, and under new positions each time that it was torn.
func (l *Log) runLarge(t *tearing) (layout.Position, error) {
	start := time.Now()
	p, err := l.untilWhole(t)
	l.m.calls.ended(opAppend, start, err)
	return p, err
}

func (l *Log) untilWhole(t *tearing) (layout.Position, error) {
	ctx := t.ctx
	var b backoff
	for {
		out, err := t.result()
		switch out {
		case outDone:
			return t.first, nil
		case outUnknown:
			return 0, l.unknown(t.first, t.frag.Entry, t.view().epoch(), err)
		case outLost:
			err = sleep.For(ctx, b.step()) // readers that are in such a hurry will be again
		default:
			err = l.retry(ctx, t.view(), err, &b)
		}
		if err != nil {
			return 0, err
		}
		t = l.tear(ctx, t.flags, t.payload)
	}
}

// tearing is one try to append a payload as fragments at consecutive positions. The whole is in
// the log if all of them are. If one of them is not (rule R9 for each), it never will be, whatever became of the
// others: the try is torn, and readers take all of it for junk.
type tearing struct {
	l       *Log
	ctx     context.Context
	payload []byte
	flags   wire.PageFlags // of the entry
	frag    wire.Fragment  // of fragment 0
	parts   int            // bytes of the payload in each fragment but the last

	placed chan error // what kept fragments from being begun, once all that are going to be were

	mu    sync.Mutex
	v     *view // of its positions; nil: it has none
	first layout.Position
	over  bool // its caller went before it had any

	torn    atomic.Bool // one of the positions is lost: no use in publishing more
	wait    sync.WaitGroup
	begun   []*attempt        // by fragment; nil: it was not begun
	uses    []uint64          // of begun
	holding []<-chan struct{} // where each gives its staging slot back
	ends    []ending          // what became of each fragment. One that was never begun has outNothing and no error
	endOnce []atomic.Bool
}

// tear has the payload wait for positions.
func (l *Log) tear(ctx context.Context, flags wire.PageFlags, payload []byte) *tearing {
	parts := l.current().layout.Geometry.MaxPayload() - wire.FragmentSize
	t := l.newTearing(ctx, flags, payload, parts)
	l.pipeline.tokens.add(want{t: t})
	return t
}

func (l *Log) newTearing(ctx context.Context, flags wire.PageFlags, payload []byte, parts int) *tearing {
	n := (len(payload) + parts - 1) / parts
	t := &tearing{l: l, ctx: ctx, flags: flags, payload: payload, parts: parts, frag: wire.Fragment{Length: len(payload), Count: n}, placed: make(chan error, 1),
		begun: make([]*attempt, n), uses: make([]uint64, n), holding: make([]<-chan struct{}, n), ends: make([]ending, n), endOnce: make([]atomic.Bool, n)}
	for i := range t.ends {
		t.ends[i].out = outNothing
	}
	return t
}

// given takes the positions from first on, all that it needs, and has them published. Nobody's positions are filled.
func (t *tearing) given(v *view, first layout.Position) {
	t.mu.Lock()
	over := t.over
	t.v, t.first = v, first
	t.mu.Unlock()
	if over {
		holes := make([]layout.Position, t.frag.Count)
		for i := range holes {
			holes[i] = first + layout.Position(i)
		}
		t.l.fillLater(holes)
		return
	}
	t.l.large.placed.add(t)
}

// gone tells whether nobody waits for it.
func (t *tearing) gone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// view is that of its positions, or the current one if it has none.
func (t *tearing) view() *view {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.v != nil {
		return t.v
	}
	return t.l.current()
}

// result waits for what the try came to.
func (t *tearing) result() (outcome, error) {
	var cause error
	select {
	case cause = <-t.placed:
	case <-t.ctx.Done():
		t.mu.Lock()
		t.over = t.v == nil
		over := t.over
		t.mu.Unlock()
		if over {
			select {
			case cause = <-t.placed: // it was refused
				return outNothing, cause
			default:
				return outNothing, t.l.pipeline.notPlaced(t.ctx.Err())
			}
		}
		cause = <-t.placed // soon: its time is over for publish, too
	}
	stop := context.AfterFunc(t.ctx, t.quit)
	t.wait.Wait()
	stop()
	return t.verdict(cause)
}

// quit lets go of the fragments that are on their way.
func (t *tearing) quit() {
	for i, a := range t.begun {
		if a == nil {
			continue
		}
		if err := a.quit(t.uses[i], t.ctx.Err()); err != nil {
			t.ended(i, ending{outUnknown, err})
		}
	}
}

// publish begins all fragments, lowest position first, until one of them is lost.
func (t *tearing) publish() error {
	ctx := t.ctx
	for i := range t.ends {
		if t.torn.Load() {
			return nil
		}
		a, err := t.load(i)
		if err != nil {
			return err
		}
		t.begun[i], t.uses[i] = a, a.join(t, i)
		t.wait.Add(1)
		t.v.publishers[a.place.Stripe].head.add(a)
	}
	return ctx.Err()
}

// load takes an attempt and a staging slot for fragment i.
func (t *tearing) load(i int) (*attempt, error) {
	a, err := t.l.large.fragments.get(t.ctx)
	if err != nil {
		return nil, err
	}
	if err = a.take(t.ctx, t.v, t.first+layout.Position(i)); err == nil {
		t.holding[i], err = t.slot(t.ctx)
	}
	if err != nil {
		a.recycle(false)
		return nil, err
	}
	f := t.frag
	if f.Number = i; i == 0 {
		f.Entry, t.frag.Entry = a.id, a.id
	}
	a.loadFragment(f, t.payload[i*t.parts:min((i+1)*t.parts, len(t.payload))])
	a.flags |= t.flags
	return a, nil
}

// ended notes what became of fragment i, for the first time that it is told.
func (t *tearing) ended(i int, e ending) {
	if t.endOnce[i].Swap(true) {
		return
	}
	<-t.holding[i]
	switch t.ends[i] = e; e.out {
	case outDone:
		t.l.m.fragments.Inc()
	case outLost:
		t.l.m.casLost.Inc()
	}
	if e.out != outDone {
		t.torn.Store(true)
	}
	t.wait.Done()
}

// slot waits for a staging slot, one that nobody but fragments may have or one of all, and gives where it goes back to.
func (t *tearing) slot(ctx context.Context) (<-chan struct{}, error) {
	select {
	case t.v.spare <- struct{}{}:
		return t.v.spare, nil
	case t.v.gate <- struct{}{}:
		return t.v.gate, nil
	case <-t.v.replaced:
		return nil, errStale
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fragment publishes what was loaded, alone.
func (a *attempt) fragment(ctx context.Context) (outcome, error) {
	out, err := a.publish(ctx, a.view)
	return a.concludeFragment(ctx, ending{out, err})
}

// concludeFragment finds out what became of a fragment if that is not known, from what its first try came to, and gives the attempt back.
func (a *attempt) concludeFragment(ctx context.Context, e ending) (outcome, error) {
	v := a.view
	out, err := a.afterCompany(ctx, e)
	out, err = a.known(ctx, v, out, err)
	a.recycle(out == outUnknown)
	return out, err
}

// verdict joins what became of the fragments; cause is what kept some of them from being begun. A fragment that was
// lost, or not published, decides: no reader will ever find the entry whole, so that even those whose outcome is unknown
// make no difference to it.
func (t *tearing) verdict(cause error) (outcome, error) {
	lost, unknown := false, false
	var holes []layout.Position
	var doubt error // why an outcome is unknown
	for i, e := range t.ends {
		switch e.out {
		case outLost:
			lost = true
		case outUnknown:
			unknown, doubt = true, e.err
		case outNothing:
			holes = append(holes, t.first+layout.Position(i))
			if e.err != nil && (cause == nil || transient(cause)) {
				cause = e.err
			}
		}
	}
	switch {
	case !lost && len(holes) == 0 && !unknown:
		return outDone, nil
	case !lost && len(holes) == 0:
		return outUnknown, doubt
	}
	t.l.m.torn.Inc()
	t.l.fillLater(holes)
	if cause != nil {
		return outNothing, cause
	}
	return outLost, nil
}

// fillLater makes junk of positions that nothing will be published at, in the background, so that no reader has to wait for
// them. In a newer epoch those that were not handed out again are left to whoever gets them.
func (l *Log) fillLater(holes []layout.Position) {
	if len(holes) == 0 || l.closed.Load() {
		return
	}
	l.background(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, 2*l.o.OpTimeout)
		defer cancel()
		for _, p := range holes {
			if l.handedOut(ctx, p) != nil || l.fill(ctx, p) != nil {
				return
			}
		}
	})
}
