package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/layout"
	"corfu/rdma"
)

// trouble is why there is no session with a member, or that one is being opened. It is replaced as
// a whole.
type trouble struct {
	since    time.Time // of the first attempt that did not succeed
	addr     string    // that was dialled last over the fabric; "": it did not come that far
	provider string
	fabric   bool  // it is the fabric's, as far as this side can see
	dialling bool  // an attempt is under way
	err      error // of the last attempt that failed; nil: it is the first
}

// String names the address that is tried and what came of it.
func (t *trouble) String() string {
	where := "its control address"
	if t.addr != "" {
		where = fmt.Sprintf("its fabric address %s (%s)", t.addr, t.provider)
	}
	for_ := time.Since(t.since).Round(10 * time.Millisecond)
	if t.err == nil {
		return fmt.Sprintf("no answer from %s for %v", where, for_)
	}
	return fmt.Sprintf("no session for %v, at %s: %v", for_, where, t.err)
}

// waitingError is an operation whose time ended while a session was being opened. It is
// ErrUnavailable and the context's error.
type waitingError struct {
	who   string
	about *trouble // nil: the attempt has just begun
	err   error
}

func (e *waitingError) Error() string {
	if e.about == nil {
		return fmt.Sprintf("%s: no session yet: %v", e.who, e.err)
	}
	return fmt.Sprintf("%s: %v: %v", e.who, e.about, e.err)
}

// Unwrap returns ErrUnavailable and the context's error.
func (e *waitingError) Unwrap() []error { return []error{ErrUnavailable, e.err} }

// dialling is told of the address before it is dialled.
type dialling func(addr, provider string)

// ready returns once there is a session with every unit of the chains that take new entries. A
// position is taken only then: one that is taken while its chain cannot be reached is a hole that
// nobody can fill. Where all sessions stand, it costs two loads.
func (v *view) ready(ctx context.Context) error {
	breaks := v.breaks.Load()
	if v.whole.Load() == breaks+1 {
		return nil
	}
	var missing []layout.UnitID
	for _, c := range v.layout.Last().Chains {
		for _, id := range c.Units {
			if s := v.units[id].cur.Load(); s == nil || !s.alive() {
				missing = append(missing, id)
			}
		}
	}
	if err := v.openAll(ctx, missing); err != nil {
		return err
	}
	v.whole.Store(breaks + 1)
	return nil
}

// openAll opens sessions with units, all at once.
func (v *view) openAll(ctx context.Context, ids []layout.UnitID) error {
	if len(ids) == 1 {
		_, err := v.unit(ctx, ids[0])
		return err
	}
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { _, errs[i] = v.unit(ctx, id) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// obstacle says which member of the view cannot be reached; "": all can, as far as this client
// tried.
func (v *view) obstacle() string {
	now := time.Now()
	if t := v.seq.trouble.Load(); t != nil && now.Sub(t.since) > noticed {
		return fmt.Sprintf("sequencer: %v", t)
	}
	for _, u := range v.layout.Units {
		k := v.units[u.ID]
		if t := k.trouble.Load(); t != nil && now.Sub(t.since) > noticed {
			return fmt.Sprintf("unit %d: %v", u.ID, t)
		}
		if s := k.cur.Load(); s != nil && s.alive() {
			if d := s.standstill(now); d > noticed {
				return fmt.Sprintf("unit %d: nothing came over the fabric from %s (%s) for %v", u.ID, s.fabric, s.provider, d.Round(10*time.Millisecond))
			}
		}
	}
	if s := v.seq.cur.Load(); s != nil && s.alive() {
		if d := s.standstill(now); d > noticed {
			return fmt.Sprintf("sequencer: nothing came over the fabric from %s (%s) for %v", s.fabric, s.provider, d.Round(10*time.Millisecond))
		}
	}
	return ""
}

// noticed is how long a member may take before it is named as one that cannot be reached.
const noticed = 300 * time.Millisecond

// foreign reports that a member speaks another fabric than this client, which no new attempt cures:
// the sequencer at once, and a unit that the layout servers had time to leave out.
func (l *Log) foreign(v *view, err error) bool {
	var other *rdma.ProviderError
	if !errors.As(err, &other) {
		return false
	}
	var s *sessionError
	if errors.As(err, &s) && s.who == v.seq.who {
		return true
	}
	for _, k := range v.units {
		if t := k.trouble.Load(); t != nil && errors.As(t.err, &other) && time.Since(t.since) > foreignPatience {
			return true
		}
	}
	return false
}

// foreignPatience is how long a unit may speak another fabric than the others before an operation
// that needs it fails.
const foreignPatience = 700 * time.Millisecond

// explain adds to a bare error of a context which member cannot be reached, if any.
func (l *Log) explain(err error) error {
	var known *waitingError
	if (!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)) || errors.As(err, &known) {
		return err
	}
	if why := l.current().obstacle(); why != "" {
		return fmt.Errorf("%s: %w", why, err)
	}
	return err
}

// mortal is a device that can be removed from the machine.
type mortal interface {
	Gone() <-chan struct{}
	GoneErr() error
}

// watchDevice notes that the device was removed. Whatever needs it fails from then on. The removal
// waits in the kernel until this process ends (rdma/verbs).
func (l *Log) watchDevice(ctx context.Context) {
	d, ok := l.dev.(mortal)
	if !ok {
		return
	}
	select {
	case <-ctx.Done():
	case <-d.Gone():
		l.log.Error("the fabric device is gone: the removal waits until this process ends, and a new one opens the device that is there then", "cause", d.GoneErr())
	}
}

// lostDevice returns why the device is of no more use, or nil.
func (l *Log) lostDevice() error {
	if d, ok := l.dev.(mortal); ok {
		return d.GoneErr()
	}
	return nil
}
