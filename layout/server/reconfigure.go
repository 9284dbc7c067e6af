package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"corfu/internal/mutant"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// phase of a reconfiguration, as Status and the metrics name it.
type phase string

const (
	phaseReserve   phase = "reserve" // memory for another max_sessions, while the log goes on
	phaseSeal      phase = "seal"
	phasePropose   phase = "propose"
	phaseReconcile phase = "reconcile"
	phaseDecide    phase = "decide"
	phaseActivate  phase = "activate"
)

// abortTimeout bounds the abort of an epoch that failed while the server stops.
const abortTimeout = 2 * time.Second

// reconfiguration is one attempt to make one epoch ACTIVE (DESIGN section 7; docs/protocol.md).
type reconfiguration struct {
	cfg     Config
	log     *slog.Logger
	store   *store
	metrics *metrics
	members *members
	change  layout.Change
	copied  []copied
	drained []layout.UnitID // of change.Lost: leave only if others take over all that they hold
	owner   layout.Owner
	enter   func(layout.Epoch, phase) // tells Status

	givenUp  []layout.UnitID // with what they may hold
	accepted []layout.UnitID // whose stores are taken as they are, or may be wiped, since an operator says so (rule R27)
	names    bool            // the record has an id and names stores (rule R21)
	vouch    *voucher        // of what units hold that are to be wiped

	base       *layout.Layout   // latest ACTIVE; nil at bootstrap (epoch 0, which has no members)
	baseRecord layout.RecordRef // its record
	shape      *layout.Layout   // members of the new epoch
	epoch      layout.Epoch
	seals      layout.Seals
	layout     *layout.Layout   // what is proposed
	record     layout.RecordRef // its record
	took       []*pb.PhaseStatus

	parts   []*member // have to be sealed: the units that stay and those that join, and the sequencer that goes on
	leaving []*member // are sealed if they answer: units that are sources still, the sequencer before
	failed  []*member // do not answer by the control plane, or cannot be sealed

	blameMu sync.Mutex
	blamed  []blame
}

// run goes through all phases. It returns the layout once its verdict is ACTIVE; members that could not be activated then
// are left to the manager. On failure the epoch is ABORTED, unless another verdict came first.
func (r *reconfiguration) run(ctx context.Context) (*layout.Layout, error) {
	if err := r.pick(); err != nil {
		return nil, err
	}
	if err := r.cast(); err != nil {
		return nil, err
	}
	begin := time.Now()
	err := r.guarded(ctx)
	if err != nil {
		err = fmt.Errorf("epoch %d: %w", r.epoch, err)
		if r.verdict() != layout.Active {
			r.abort()
			return nil, err
		}
		// The verdict was on its way when its outcome got lost: it is ACTIVE, and that is all there is to know.
		r.log.Warn("the epoch is active in spite of an error", "epoch", uint64(r.epoch), "err", err)
	}
	if err := r.timed(phaseActivate, func() error { return r.activate(ctx) }); err != nil {
		r.log.Warn("not everywhere active yet", "epoch", uint64(r.epoch), "err", err)
	}
	r.metrics.whole.Observe(time.Since(begin).Seconds())
	r.log.Info("epoch is active", "epoch", uint64(r.epoch), "start", uint64(r.layout.Start), "took", time.Since(begin))
	return r.layout, nil
}

// guarded runs the steps while every member that has to take part answers: one that hangs must not hold up the others for the time that
// an honest call may take.
func (r *reconfiguration) guarded(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var guards sync.WaitGroup
	for _, m := range r.parts {
		guards.Go(func() {
			for heard := time.Now(); sleep.For(ctx, r.cfg.Poll) == nil; {
				bounded, done := context.WithTimeout(ctx, r.cfg.stateTimeout())
				answer := m.poll(bounded, r.shape, 0)
				done()
				if answer.state != stateUnreachable {
					heard = time.Now()
				} else if silent := time.Since(heard); silent > hangFactor*r.cfg.FailAfter && ctx.Err() == nil {
					cancel(fmt.Errorf("%s: no answer for %v: %s", m.name, silent, answer.err))
				}
			}
		})
	}
	err := r.steps(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = errors.Join(err, cause)
	}
	cancel(nil)
	guards.Wait()
	return err
}

// hangFactor is by how much longer than FailAfter a member may be silent that is being sealed or reconciled: it has much to do.
const hangFactor = 4

// steps are the phases up to the ACTIVE verdict.
func (r *reconfiguration) steps(ctx context.Context) error {
	for _, s := range []struct {
		phase phase
		do    func(context.Context) error
	}{{phaseReserve, r.reserve}, {phaseSeal, r.seal}, {phasePropose, r.propose}, {phaseReconcile, r.reconcile}, {phaseDecide, r.decide}} {
		if s.phase == phaseReserve && r.change.MaxSessions == 0 {
			continue
		}
		if err := r.timed(s.phase, func() error { return s.do(ctx) }); err != nil {
			return fmt.Errorf("%s: %w", s.phase, err)
		}
	}
	return nil
}

func (r *reconfiguration) timed(p phase, do func() error) error {
	r.enter(r.epoch, p)
	begin := time.Now()
	err := do()
	r.took = append(r.took, &pb.PhaseStatus{Name: string(p), TookMs: uint64(time.Since(begin).Milliseconds())})
	r.metrics.phases.WithLabelValues(string(p)).Observe(time.Since(begin).Seconds())
	r.log.Debug("phase", "epoch", uint64(r.epoch), "phase", string(p), "took", time.Since(begin), "err", err)
	return err
}

// pick takes the epoch: above everything recorded and everything promised.
func (r *reconfiguration) pick() error {
	r.store.fsm.view(func(s *layout.State) {
		r.base = s.Active()
		if x, ok := s.Record(s.Latest()); ok && r.base != nil {
			r.baseRecord = x.Ref()
		}
		r.epoch = s.Highest() + 1
	})
	for _, m := range r.members.list {
		r.epoch = max(r.epoch, m.report.promise+1)
	}
	if base := r.baseEpoch(); base != r.shape.Epoch {
		return fmt.Errorf("the change is one of epoch %d, and %d is active", r.shape.Epoch, base)
	}
	if r.epoch > layout.MaxEpoch {
		return fmt.Errorf("no epoch is left above %d", r.epoch-1)
	}
	return nil
}

// cast sorts the members.
func (r *reconfiguration) cast() error {
	seq := r.shape.Sequencer.ID
	if r.change.Sequencer != 0 {
		seq = r.change.Sequencer
	}
	now := time.Now()
	for _, m := range r.members.list {
		lost := m.lost(now, r.cfg.FailAfter)
		switch {
		case m.unit == 0 && m.seq == seq:
			r.parts = append(r.parts, m)
		case m.unit == 0 && m.seq == r.shape.Sequencer.ID && lost:
			r.failed = append(r.failed, m)
		case m.unit == 0 && m.seq == r.shape.Sequencer.ID:
			r.leaving = append(r.leaving, m)
		case m.unit == 0:
		case contains(r.change.Lost, m.unit):
			if lost {
				r.failed = append(r.failed, m)
			} else {
				r.leaving = append(r.leaving, m)
			}
		case !m.standby || contains(r.change.Join, m.unit) || contains(r.change.Chain, m.unit):
			r.parts = append(r.parts, m)
		}
	}
	if len(r.parts) != len(r.shape.Units)-len(r.change.Lost)+len(r.change.Join)+len(r.change.Chain)+1 {
		return fmt.Errorf("a change that does not fit the members: %+v", r.change)
	}
	return nil
}

// propose writes the layout record.
func (r *reconfiguration) propose(context.Context) error {
	start, err := layout.StartAfter(r.base, r.seals)
	if err != nil {
		return err
	}
	if mutant.R20 && r.base != nil {
		start = r.base.Start
	}
	if err := r.settle(); err != nil {
		return err
	}
	if r.layout, err = r.shape.With(r.change, r.epoch, start); err != nil {
		return err
	}
	if err := r.mayWipe(); err != nil {
		return err
	}
	p := r.identify(layout.Propose{Owner: r.owner, Base: r.baseEpoch(), Layout: r.layout, Resized: r.resized()})
	r.record = layout.RecordRef{Epoch: r.epoch, ID: p.ID}
	_, err = r.store.apply(p)
	return err
}

// resized reports whether the layout's geometry is not the founding layout's.
func (r *reconfiguration) resized() (yes bool) {
	r.store.fsm.view(func(s *layout.State) { yes = r.layout.Geometry != s.Founding().Geometry })
	return yes
}

// errNotCopied: what was copied to a unit cannot be handed over before clients have filled a hole. Nothing is lost by trying again.
var errNotCopied = errors.New("not all is copied yet to who takes the place of a unit that leaves")

// settle leaves out what the seals do not allow.
func (r *reconfiguration) settle() error {
	n := len(r.change.Adopt)
	r.change.Adopt = slices.DeleteFunc(slices.Clone(r.change.Adopt), func(x layout.Range) bool {
		i := slices.IndexFunc(r.copied, func(c copied) bool { return c.Range == x })
		return i < 0 || !fits(r.copied[i], r.seals[x.Unit].End, r.shape.Geometry)
	})
	if len(r.change.Adopt) < n && len(r.drained) > 0 {
		return errNotCopied
	}
	return nil
}

// baseEpoch is 0 at bootstrap.
func (r *reconfiguration) baseEpoch() layout.Epoch {
	if r.base == nil {
		return 0
	}
	return r.base.Epoch
}

// reserve has every unit of the new epoch take the memory for another max_sessions, before anything is stopped for its sake. If one
// does not get it, the others give theirs back.
func (r *reconfiguration) reserve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CallTimeout)
	defer cancel()
	ask := func(ctx context.Context, sessions int) error {
		var mu sync.Mutex
		var errs []error
		each(r.parts, func(m *member) {
			if m.unit == 0 || m.standby {
				return
			}
			_, err := m.units().Reserve(ctx, &pb.ReserveRequest{Log: r.shape.Log[:], MaxSessions: uint32(sessions)})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %s", m.name, status.Convert(err).Message()))
			}
		})
		return errors.Join(errs...)
	}
	err := ask(ctx, r.change.MaxSessions)
	if err != nil {
		err = fmt.Errorf("%w: %w", errImpossible, err)
		undo, done := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.stateTimeout())
		defer done()
		if err := ask(undo, 0); err != nil {
			r.log.Warn("memory that is not needed is not given back yet", "err", err)
		}
	}
	return err
}

// decide makes the epoch ACTIVE. From here on it stands, whatever becomes of this server.
func (r *reconfiguration) decide(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if mutant.R18 && r.base != nil {
		_ = r.activate(ctx)
	}
	_, err := r.store.apply(layout.Decide{Epoch: r.epoch, Owner: r.owner, Verdict: layout.Active})
	return err
}

// activate opens the epoch everywhere, now that it is ACTIVE. One that hangs is left to the manager.
func (r *reconfiguration) activate(ctx context.Context) error {
	var errs []error
	openAll(ctx, r.parts, r.layout, r.record, r.cfg.hangTimeout(), func(m *member, began time.Time, err error) {
		if err := r.accuse(ctx, m, taskActivate, began, err); err != nil {
			errs = append(errs, err)
		}
	})
	return errors.Join(errs...)
}

func (r *reconfiguration) verdict() layout.Verdict {
	var v layout.Verdict
	r.store.fsm.view(func(s *layout.State) {
		if rec, ok := s.Record(r.epoch); ok {
			v = rec.Verdict
		}
	})
	return v
}

// abort says that nothing will come of the epoch. If it fails, the next attempt aborts it (rule R13).
func (r *reconfiguration) abort() {
	done := make(chan error, 1)
	go func() {
		_, err := r.store.apply(layout.Decide{Epoch: r.epoch, Owner: r.owner, Verdict: layout.Aborted})
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			r.log.Warn("abort", "epoch", uint64(r.epoch), "err", err)
		}
	case <-time.After(abortTimeout):
	}
}
