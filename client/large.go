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
// Their fragments have attempts of their own, which are taken in the order of the positions: whoever has the turn takes
// his positions and then an attempt for each, and only then the next one has it. So the lowest fragment that is not
// published yet always has an attempt, or gets one as soon as a lower one is durable. Were attempts shared with other
// appends, or taken in any order, then those that wait for the window could hold all that the one needs which would move it.
type large struct {
	room      chan struct{} // bounds the appends, and so the memory of their payloads
	turn      chan struct{} // held from taking positions until the last of them has an attempt
	fragments attempts
}

const (
	largeAtOnce     = 8  // appends of more than a page in flight, each up to 1 MiB
	fragmentsAtOnce = 64 // their pages in flight, as far as there are staging slots for them
)

func (g *large) setup(l *Log) {
	g.room, g.turn = make(chan struct{}, largeAtOnce), make(chan struct{}, 1)
	g.fragments.setup(l, fragmentsAtOnce)
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
	return l.runLarge(ctx, flags, payload, nil)
}

func (l *Log) appendLargeAsync(ctx context.Context, flags wire.PageFlags, payload []byte, done func(layout.Position, error)) error {
	if err := l.beginLarge(ctx, payload); err != nil {
		return err
	}
	own := append([]byte(nil), payload...)
	turn := l.takeTurn()
	go func() {
		p, err := l.runLarge(ctx, flags, own, turn)
		l.endLarge() // before done, which may call into the log again
		done(p, err)
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
	}
	return err
}

func (l *Log) endLarge() {
	<-l.large.room
	l.exit()
}

// runLarge appends the payload, under new positions each time that an attempt was torn.
func (l *Log) runLarge(ctx context.Context, flags wire.PageFlags, payload []byte, turn *turn) (layout.Position, error) {
	start := time.Now()
	defer turn.pass()
	p, err := l.untilWhole(ctx, flags, payload, turn)
	l.m.calls.ended(opAppend, start, err)
	return p, err
}

func (l *Log) untilWhole(ctx context.Context, flags wire.PageFlags, payload []byte, turn *turn) (layout.Position, error) {
	var b backoff
	for {
		v := l.current()
		t, out, err := l.tryLarge(ctx, v, flags, payload, turn)
		switch out {
		case outDone:
			return t.first, nil
		case outUnknown:
			return 0, l.unknown(t.first, t.frag.Entry, v.epoch(), err)
		case outLost:
			err = sleep.For(ctx, b.step()) // readers that are in such a hurry will be again
		default:
			err = l.retry(ctx, v, err, &b)
		}
		if err != nil {
			return 0, err
		}
	}
}

// tearing is one try to append a payload as fragments at consecutive positions.
type tearing struct {
	l     *Log
	v     *view
	first layout.Position
	flags wire.PageFlags // of the entry
	frag  wire.Fragment  // of fragment 0
	parts int            // bytes of the payload in each fragment but the last

	torn atomic.Bool // one of the positions is lost: no use in publishing more
	wait sync.WaitGroup
	ends []ending // of each fragment
}

// ending is what became of a fragment. One that was never begun has outNothing and no error.
type ending struct {
	out outcome
	err error
}

// tryLarge takes positions and publishes the fragments there, many at once, each as an append of its own. The whole is in
// the log if all of them are. If one of them is not (rule R9 for each), it never will be, whatever became of the
// others: the attempt is torn, and readers take all of it for junk.
func (l *Log) tryLarge(ctx context.Context, v *view, flags wire.PageFlags, payload []byte, turn *turn) (*tearing, outcome, error) {
	parts := v.layout.Geometry.MaxPayload() - wire.FragmentSize
	n := (len(payload) + parts - 1) / parts
	t := &tearing{l: l, v: v, flags: flags, parts: parts, frag: wire.Fragment{Length: len(payload), Count: n}, ends: make([]ending, n)}
	for i := range t.ends {
		t.ends[i].out = outNothing
	}
	if err := turn.await(ctx); err != nil {
		return t, outNothing, err
	}
	if err := l.acquire(ctx, l.large.turn); err != nil {
		return t, outNothing, err
	}
	err := t.tokens(ctx)
	if err == nil {
		turn.pass()
	}
	if err != nil {
		<-l.large.turn
		return t, outNothing, err
	}
	err = t.publish(ctx, payload)
	<-l.large.turn
	t.wait.Wait()
	out, cause := t.verdict(err)
	return t, out, cause
}

// tokens takes the positions, all with one FETCH_ADD.
func (t *tearing) tokens(ctx context.Context) error {
	l, v := t.l, t.v
	if err := v.ready(ctx); err != nil {
		return err
	}
	if err := v.takes(ctx, t.flags); err != nil {
		return err
	}
	if err := l.ownID(ctx); err != nil {
		return err
	}
	s, err := v.seq.get(ctx)
	if err != nil {
		return err
	}
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	f.b.Reset()
	i := f.b.FetchAdd(s.word, uint64(t.frag.Count))
	if err := s.check(f.do(ctx, s.pipe)); err != nil {
		return err // tokens that were taken become holes
	}
	if t.first, err = s.next(v, f.b.Old(i)); err != nil {
		return err
	}
	l.m.tokens.Add(float64(t.frag.Count))
	v.saw(t.first + layout.Position(t.frag.Count))
	return nil
}

// publish begins all fragments, lowest position first, until one of them is lost.
func (t *tearing) publish(ctx context.Context, payload []byte) error {
	for i := range t.ends {
		if t.torn.Load() {
			return nil
		}
		a, err := t.l.large.fragments.get(ctx)
		if err != nil {
			return err
		}
		err = a.take(ctx, t.v, t.first+layout.Position(i))
		var slot <-chan struct{}
		if err == nil {
			slot, err = t.slot(ctx)
		}
		if err != nil {
			a.recycle(false)
			return err
		}
		f := t.frag
		if f.Number = i; i == 0 {
			f.Entry, t.frag.Entry = a.id, a.id
		}
		a.loadFragment(f, payload[i*t.parts:min((i+1)*t.parts, len(payload))])
		a.flags |= t.flags
		t.wait.Go(func() {
			out, err := a.fragment(ctx, t.v)
			<-slot
			if out != outDone {
				t.torn.Store(true)
			}
			t.ends[i] = ending{out, err}
		})
	}
	return nil
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

// fragment publishes what was loaded, finds out what became of it if that is not known, and gives the attempt back.
func (a *attempt) fragment(ctx context.Context, v *view) (outcome, error) {
	out, err := a.publish(ctx, v)
	out, err = a.known(ctx, v, out, err)
	switch out {
	case outUnknown:
		a.recycle(true)
		return out, err
	case outDone:
		a.l.m.fragments.Inc()
	case outLost:
		a.l.m.casLost.Inc()
	}
	a.recycle(false)
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
	t.fill(holes)
	if cause != nil {
		return outNothing, cause
	}
	return outLost, nil
}

// fill makes junk of positions that nothing will be published at, in the background, so that no reader has to wait for
// them. In a newer epoch those that were not handed out again are left to whoever gets them.
func (t *tearing) fill(holes []layout.Position) {
	l := t.l
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
