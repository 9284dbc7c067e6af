package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// view is one layout and what was opened under it. It is replaced as a whole by a newer
// one; its epoch never changes, and an operation that holds a view acts in that epoch only (rule R8).
type view struct {
	layout *layout.Layout
	units  map[layout.UnitID]*link[unitSession]
	seq    *link[seqSession]

	publishers []*publisher // of the chains that take new entries, by stripe

	// gate bounds the attempts that have a token to three quarters of the staging slots that a session has over all
	// chains: an attempt that waits for a slot with its token in hand is a hole to everybody else, and is filled.
	gate chan struct{}

	// spare are the slots that the gate leaves: fragments take from both. So they go on even if all that passed the gate
	// wait for the window, which waits for them.
	spare chan struct{}

	durable sync.Map      // by layout.UnitID: the layout.Address below which the unit said that all is durable there
	breaks  atomic.Uint64 // sessions with units that broke
	whole   atomic.Uint64 // breaks+1 when all chains that take new entries had their sessions; 0: they never had

	tail     atomic.Uint64 // first position not known to be handed out in this epoch
	turn     atomic.Uint32 // which chain Tail looks at
	replaced chan struct{} // closed when a newer view is in use
}

func (v *view) epoch() layout.Epoch { return v.layout.Epoch }

func (v *view) flash() bool { return v.layout.Durability == layout.Flash }

// saw notes that all positions below p are handed out.
func (v *view) saw(p layout.Position) {
	for {
		old := v.tail.Load()
		if uint64(p) <= old || v.tail.CompareAndSwap(old, uint64(p)) {
			return
		}
	}
}

// sawEntry notes that the positions of the entry at p are handed out: those of a larger one were
// taken at once.
func (v *view) sawEntry(p layout.Position, e *entry) {
	if e.frag.Count != 0 && e.header.Epoch == v.epoch() {
		v.saw(e.frag.First(p) + layout.Position(e.frag.Count))
	}
}

func (v *view) openRequest(c layout.ClientID) *pb.OpenSessionRequest {
	return &pb.OpenSessionRequest{Log: v.layout.Log[:], Epoch: uint64(v.layout.Epoch), Client: uint32(c)}
}

// unit gives a session with unit id.
func (v *view) unit(ctx context.Context, id layout.UnitID) (*unitSession, error) {
	return v.units[id].get(ctx)
}

func (v *view) retired() bool {
	select {
	case <-v.replaced:
		return true
	default:
		return false
	}
}

func (l *Log) newView(lay *layout.Layout) *view {
	v := &view{layout: lay, units: make(map[layout.UnitID]*link[unitSession], len(lay.Units)), replaced: make(chan struct{})}
	slots := lay.Geometry.SessionSlots * len(lay.Last().Chains)
	v.gate = make(chan struct{}, max(1, slots*3/4))
	v.spare = make(chan struct{}, max(1, slots-slots*3/4))
	v.tail.Store(uint64(lay.Start))
	for _, u := range lay.Units {
		v.units[u.ID] = newLink(fmt.Sprintf("unit %d", u.ID), v.replaced,
			func(s *unitSession) bool { return s.alive() }, l.background,
			func(ctx context.Context, dial dialling) (*unitSession, error) {
				s, err := l.openUnit(ctx, v, u, dial)
				if err != nil {
					return nil, l.failedOpen(u.Control, err)
				}
				return s, l.adopt(v, &s.session)
			})
	}
	v.seq = newLink("sequencer", v.replaced,
		func(s *seqSession) bool { return s.alive() }, l.background,
		func(ctx context.Context, dial dialling) (*seqSession, error) {
			s, err := l.openSequencer(ctx, v, dial)
			if err != nil {
				return nil, l.failedOpen(lay.Sequencer.Control, err)
			}
			return s, l.adopt(v, &s.session)
		})
	for _, c := range lay.Last().Chains {
		v.publishers = append(v.publishers, newPublisher(l, v, c.Units))
	}
	return v
}

func (l *Log) failedOpen(addr string, err error) error {
	l.m.connErrors.Inc()
	l.log.Debug("no session", "with", addr, "cause", err)
	return err
}

// adopt takes a new session under the watchdog and Close, unless its view is out of use already.
func (l *Log) adopt(v *view, s *session) error {
	l.mu.Lock()
	l.sessions[s] = v
	ended := l.ended
	l.mu.Unlock()
	if ended || v.retired() {
		s.fail(ErrClosed)
		return errStale
	}
	return nil
}

func (l *Log) current() *view { return l.view.Load() }

// install makes lay the layout in use, if it is newer than what is in use (rule R8).
// Sessions of the older view end: whoever holds them finds out what became of its operations (rule R9).
func (l *Log) install(lay *layout.Layout) error {
	l.mu.Lock()
	old := l.view.Load()
	if old != nil && lay.Log != old.layout.Log {
		l.mu.Unlock()
		return fmt.Errorf("client: the layout service now serves log %v, not %v", lay.Log, old.layout.Log)
	}
	if old != nil && lay.Epoch <= old.layout.Epoch {
		l.mu.Unlock()
		return nil
	}
	if old != nil && !lay.Geometry.Follows(old.layout.Geometry) {
		l.mu.Unlock()
		return errors.New("client: the geometry of the log changed: open it anew")
	}
	l.view.Store(l.newView(lay))
	var ending []*session
	if old != nil {
		close(old.replaced)
		for s, v := range l.sessions {
			if v == old {
				ending = append(ending, s)
			}
		}
	}
	l.mu.Unlock()
	l.m.epoch.Set(float64(lay.Epoch))
	l.log.Info("layout", "epoch", lay.Epoch, "units", len(lay.Units), "start", lay.Start, "durability", lay.Durability)
	for _, s := range ending {
		s.fail(errStale)
	}
	return nil
}

// refreshing is one question to the layout servers; all who want to know share it.
type refreshing struct {
	done chan struct{}
	err  error
}

// refresh asks for the layout, and returns once the answer is in use or a newer view than v is.
func (l *Log) refresh(ctx context.Context, v *view) error {
	if v.retired() {
		return nil
	}
	l.mu.Lock()
	r := l.refreshing
	if r == nil {
		r = &refreshing{done: make(chan struct{})}
		l.refreshing = r
		l.background(func(bg context.Context) {
			r.err = l.getLayout(bg)
			l.mu.Lock()
			l.refreshing = nil
			l.mu.Unlock()
			close(r.done)
		})
	}
	l.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-v.replaced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retry prepares another try of an operation that failed with err under v: nil means try again, with the view
// that is current then. It returns err itself if trying again is no cure.
func (l *Log) retry(ctx context.Context, v *view, err error, b *backoff) error {
	if l.closed.Load() {
		return ErrClosed
	}
	if !transient(err) {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			return l.because(err)
		}
		return err
	}
	if gone := l.lostDevice(); gone != nil {
		return fmt.Errorf("%w: %w: a new process opens the one that is there now (%w)", ErrUnavailable, gone, err)
	}
	if l.foreign(v, err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	l.m.retries.Inc()
	rerr := l.refresh(ctx, v)
	if !v.retired() {
		t := time.NewTimer(b.step())
		defer t.Stop()
		select {
		case <-t.C:
		case <-v.replaced:
		case <-ctx.Done():
		case <-l.ctx.Done():
			return ErrClosed
		}
	}
	if v.retired() {
		// How long it was in vain under the old layout says nothing of the new one. Clients often have it before its members do, who
		// then refuse the first attempt, and would wait for as long as the backoff grew while a member that died was waited for.
		*b = backoff{}
	}
	if ctx.Err() != nil {
		if rerr != nil && ctx.Err() != rerr {
			err = errors.Join(err, rerr)
		}
		return l.because(fmt.Errorf("%w: %w (last: %w)", ErrUnavailable, ctx.Err(), err))
	}
	return nil
}

// because adds to the error of an operation whose time is over what is wrong with the cluster, if the layout service knows that
// it cannot be mended: ErrUnavailable then, and why.
func (l *Log) because(err error) error {
	if why := l.trouble.Load(); why != nil && *why != "" {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, *why, err)
	}
	var known *waitingError
	if errors.As(err, &known) {
		return err
	}
	if v := l.current(); v != nil {
		if why := v.obstacle(); why != "" {
			return fmt.Errorf("%w: %s: %w", ErrUnavailable, why, err)
		}
	}
	return err
}

// try runs fn with the current view, and again with a fresh one, until it succeeds or fails for good.
func try[T any](ctx context.Context, l *Log, fn func(*view) (T, error)) (T, error) {
	var b backoff
	for {
		v := l.current()
		x, err := fn(v)
		if err == nil {
			return x, nil
		}
		if err = l.retry(ctx, v, err, &b); err != nil {
			var zero T
			return zero, err
		}
	}
}
