package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/clusterstatus"
)

// A member may answer every heartbeat and still be of no use: its disk takes no promise, or none of the pages that it lacks. No epoch can be made
// with it, and so it counts as failed after as long as one that is silent: what it answers instead makes no difference to those who wait. One whose
// disk takes none of the pages that clients publish counts as failed after stuckAfter.

const (
	// restMin and restMax are for how long a spare is let alone that refused, twice as long each time: what it refuses would cost the log an
	// attempt. One that was started anew is tried at once.
	restMin = 10 * time.Second
	restMax = time.Hour
)

// task is what a member has to do for an epoch.
type task string

const (
	taskSeal      task = "be sealed"
	taskList      task = "list its entries" // as a source (rule R17)
	taskReconcile task = "be reconciled"
	taskActivate  task = "be activated"
	taskFlush     task = "write to flash" // what clients published
	taskFabric    task = "be reached over the fabric"
)

// stuckMin is how long flash may leave a page waiting at least: disks have pauses, and who is left out has to be copied to anew.
const stuckMin = 5 * time.Second

// stuckAfter is after how long a unit whose flash takes nothing counts as one that refuses.
func (c Config) stuckAfter() time.Duration { return max(stuckMin, graceFactor*c.FailAfter) }

// refusal is what a member answered in place of doing its task: the last error, and for how long it was so. The zero value: it does
// what is asked. The manager owns it.
type refusal struct {
	count int // one after the other
	task  task
	err   string
	since time.Time // when the first of them was asked for
	last  time.Time
}

// note counts an error that the member gave to what was asked of it at began.
func (f *refusal) note(t task, began, now time.Time, err error) {
	if f.count == 0 {
		f.since = began
	}
	f.count++
	f.task, f.last, f.err = t, now, clusterstatus.Brief(err.Error())
}

// failed tells whether the member counts as failed: it refused twice, or once for as long as one may take that hangs.
func (f *refusal) failed(now time.Time, failAfter time.Duration) bool {
	enough := f.count > 1 || (f.count == 1 && f.task == taskFabric) || (f.count == 1 && f.last.Sub(f.since) > hangFactor*failAfter)
	return enough && now.Sub(f.since) >= failAfter
}

// rests tells whether a spare or standby refused lately.
func (f *refusal) rests(now time.Time) bool {
	if f.count == 0 {
		return false
	}
	rest := restMin
	for n := 1; n < f.count && rest < restMax; n++ {
		rest *= 2
	}
	return now.Sub(f.last) < min(rest, restMax)
}

// source tells whether what the member holds can be had (rule R17): so its seal counts for rule R16.
func (f *refusal) source() bool {
	return f.count == 0 || f.task == taskReconcile || f.task == taskActivate || f.task == taskFabric
}

// idle reports whether the member does what an epoch asks of it all the same: to make one with it changes nothing.
func (f *refusal) idle() bool { return f.task == taskFlush || f.task == taskFabric }

func (f *refusal) String() string { return fmt.Sprintf("it cannot %s: %s", f.task, f.err) }

// refuses tells whether the log goes without the member, or waits for it, because it refuses.
func (m *member) refuses(now time.Time, failAfter time.Duration) bool {
	if m.standby {
		return m.refusal.rests(now)
	}
	return m.refusal.failed(now, failAfter)
}

// shownReport is the report as Status shows it: of one that refuses it says so.
func (m *member) shownReport(failAfter time.Duration) report {
	r := m.report
	if r.err == "" {
		r.err = m.past
	}
	if r.err == "" && m.refuses(time.Now(), failAfter) {
		r.err = m.refusal.String()
	}
	return r
}

// lost tells whether the member is of no use as a source: it is silent, or cannot be sealed or read.
func (m *member) lost(now time.Time, failAfter time.Duration) bool {
	return m.pulse.failed || (m.refuses(now, failAfter) && !m.refusal.source())
}

// ownFault tells whether an error is the member's own answer. Silence is for the heartbeats to notice. A promise that was given
// to somebody else is mended by a higher epoch, and two entries at one position are a reason to stop, not to go on without one of them.
func ownFault(err error) bool {
	if errors.Is(err, errRefused) {
		return false
	}
	switch status.Code(err) {
	case codes.OK, codes.Canceled, codes.Unavailable, codes.FailedPrecondition, codes.DataLoss:
		return false
	}
	return true
}

// blame is who refused what in an attempt.
type blame struct {
	member *member
	task   task
	began  time.Time
	err    error
}

// accuse notes that a member refused, unless the attempt was over before: then the error is its end. It gives the error back.
func (r *reconfiguration) accuse(ctx context.Context, m *member, t task, began time.Time, err error) error {
	if r.change.MaxSessions != 0 && t == taskReconcile && status.Code(err) == codes.ResourceExhausted {
		// What was asked for does not fit there: the epoch is made without it, and the member is as good as before.
		return fmt.Errorf("%w: %w", errImpossible, err)
	}
	stalled := errors.Is(context.Cause(ctx), errStalled)
	if stalled {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil && (stalled || (ctx.Err() == nil && ownFault(err))) {
		r.blameMu.Lock()
		defer r.blameMu.Unlock()
		r.blamed = append(r.blamed, blame{m, t, began, err})
	}
	return err
}

// nobody is accused: a copy in the background that fails stops no epoch.
func nobody(_ *member, _ task, err error) error { return err }

// blame counts who refused in an attempt, and forgets what members refused before that have done it now.
func (m *manager) blame(r *reconfiguration, active bool) {
	accused := func(x *member) bool {
		return slices.ContainsFunc(r.blamed, func(b blame) bool { return b.member == x })
	}
	for _, x := range r.parts {
		_, sealed := r.seals[x.unit]
		if (active || (sealed && x.refusal.task == taskSeal)) && !accused(x) {
			x.refusal = refusal{}
		}
	}
	for _, b := range r.blamed {
		m.note(b)
	}
}

// flash notes that a unit's flash does not take what clients published there. It answers its heartbeats, and all appends of its chains wait.
// Once it was left out it rests, as any that refused.
func (m *manager) flash(x *member, r report) {
	switch {
	case r.stuck >= m.cfg.stuckAfter():
		why := r.stuckWhy
		if why == "" {
			why = "a write does not end"
		}
		if x.refusal.task != taskFlush {
			x.refusal = refusal{}
			m.note(blame{x, taskFlush, time.Now().Add(-r.stuck), errors.New(why)})
		}
		x.refusal.last = time.Now()
	case x.refusal.task == taskFlush && !x.standby:
		x.refusal = refusal{}
	}
}

// note counts one refusal, and says so once it is too much.
func (m *manager) note(b blame) {
	x := b.member
	was := x.refuses(time.Now(), m.cfg.FailAfter)
	if x.refusal.note(b.task, b.began, time.Now(), b.err); !was && x.refuses(time.Now(), m.cfg.FailAfter) {
		m.log.Error("REFUSES: a member answers and cannot be used: mend it, and start it again", "member", x.name, "task", string(b.task), "err", b.err)
	}
}
