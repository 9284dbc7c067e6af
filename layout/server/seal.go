package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/messages"
	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// A seal goes to each member by two ways: as a message over the fabric where a connection stands, and over the control plane where none
// does, or where that has not answered after hedge. So one of the networks may be broken. A member that hears it twice answers
// the same (rule R14 lets it: unit.CheckSeal, seq.CheckSeal).

// hedge is how long the fabric has to answer alone: a seal takes less, unless much is to be flushed, and then the second one waits at the
// unit for the first.
const hedge = 20 * time.Millisecond

// cutOffTimeout bounds the seal of a member that has failed as far as the control plane can see.
const cutOffTimeout = 2 * time.Second

// errRefused: the member answered, and will not.
var errRefused = errors.New("refused")

// seal aborts what is undecided below the epoch, then seals all members at once, and checks that they are enough.
func (r *reconfiguration) seal(ctx context.Context) error {
	var begin layout.Command = layout.AbortBelow{Epoch: r.epoch}
	if r.names {
		begin = layout.Begin{Epoch: r.epoch}
	}
	if _, err := r.store.apply(begin); err != nil {
		return err
	}
	r.seals = layout.Seals{}
	var serve, join []*member
	for _, m := range r.parts {
		if m.standby {
			join = append(join, m)
		} else {
			serve = append(serve, m)
		}
	}
	// Those that join go first: the log goes on meanwhile, and one that refuses costs it nothing. One that hangs costs little: it has nothing to
	// flush, and where somebody died his chain waits.
	if err := r.sealAll(ctx, join, r.cfg.hangTimeout()); err != nil {
		return err
	}
	r.cutOff()
	if err := r.sealAll(ctx, append(serve, r.leaving...), r.cfg.CallTimeout); err != nil {
		return err
	}
	if err := r.judgeSeals(); err != nil {
		return err
	}
	if err := r.store.past(r.accepted).checkNeeded(r.seals, r.givenUp); err != nil {
		return err
	}
	if mutant.R16 {
		return nil
	}
	if err := layout.SealedEnough(r.base, r.seals, r.givenUp); err != nil {
		return err
	}
	return layout.SoundEnough(r.base, r.seals, r.givenUp)
}

// sealAll seals members at once. Every member of the new epoch has to be sealed, since it is to be reconciled; of the base rule R16 asks
// for less.
func (r *reconfiguration) sealAll(ctx context.Context, list []*member, patience time.Duration) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	each(list, func(m *member) {
		began := time.Now()
		s, err := r.sealMember(ctx, m)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && !slices.Contains(r.parts, m):
			r.log.Info("not sealed, and not needed", "member", m.name, "err", err)
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", m.name, r.accuse(whole, m, taskSeal, began, err)))
		case m.unit != 0:
			r.seals[m.unit], m.start = s, s.Store.Start
		}
	})
	return errors.Join(errs...)
}

// cutOff seals those that failed and are left out, if the fabric still reaches them: they would serve clients of the old epoch until
// these hear of the new one. Nobody waits for it, and nothing is asked of them: their seals do not count for rule R16, since
// their entries cannot be listed.
func (r *reconfiguration) cutOff() {
	for _, m := range r.failed {
		c := m.fabric.current()
		if c == nil {
			continue
		}
		m.fabric.opens.Go(func() {
			ctx, cancel := context.WithTimeout(m.fabric.ctx, cutOffTimeout)
			defer cancel()
			if _, err := r.sealOverFabric(ctx, m, c); err != nil {
				r.log.Info("left out, and not sealed", "member", m.name, "err", err)
				return
			}
			r.metrics.sealed.WithLabelValues(wayFabric).Inc()
			r.log.Info("left out, and sealed over the fabric", "member", m.name, "epoch", uint64(r.epoch))
		})
	}
}

// The ways of a seal, as the metrics name them.
const (
	wayFabric  = "fabric"
	wayControl = "control"
)

// sealMember asks by both ways.
func (r *reconfiguration) sealMember(ctx context.Context, m *member) (layout.Seal, error) {
	ways := []way{{wayControl, func(ctx context.Context) (layout.Seal, error) { return r.sealOverControl(ctx, m) }}}
	if c := m.fabric.current(); c != nil {
		over := way{wayFabric, func(ctx context.Context) (layout.Seal, error) { return r.sealOverFabric(ctx, m, c) }}
		ways = append([]way{over}, ways...)
	}
	s, by, err := firstAnswer(ctx, ways)
	if err == nil {
		r.metrics.sealed.WithLabelValues(by).Inc()
	}
	return s, err
}

// way is one of several to the same answer.
type way struct {
	name string
	ask  func(context.Context) (layout.Seal, error)
}

// firstAnswer begins with the first way, goes on to the next when one fails or is silent for hedge, and gives the first answer, a refusal
// included, and who gave it.
func firstAnswer(ctx context.Context, ways []way) (layout.Seal, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		by   string
		seal layout.Seal
		err  error
	}
	answers := make(chan answer, len(ways))
	begun, ended := 0, 0
	begin := func() {
		w := ways[begun]
		begun++
		go func() {
			s, err := w.ask(ctx)
			answers <- answer{w.name, s, err}
		}()
	}
	begin()
	t := time.NewTimer(hedge)
	defer t.Stop()
	var errs []error
	for {
		select {
		case a := <-answers:
			if a.err == nil || answered(a.err) {
				return a.seal, a.by, a.err
			}
			errs = append(errs, fmt.Errorf("by the %s: %w", a.by, a.err))
			if ended++; ended == len(ways) {
				return layout.Seal{}, "", errors.Join(errs...)
			}
			if begun == ended {
				begin()
			}
		case <-t.C:
			if begun < len(ways) {
				begin()
			}
		}
	}
}

// answered tells whether an error is the member's answer, so that the other way would bring no better one.
func answered(err error) bool {
	if errors.Is(err, errRefused) {
		return true
	}
	s, ok := status.FromError(err)
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Unimplemented:
		return false
	}
	return ok
}

func (r *reconfiguration) sealOverControl(ctx context.Context, m *member) (layout.Seal, error) {
	q := &pb.SealRequest{Log: r.shape.Log[:], Epoch: uint64(r.epoch), Base: uint64(r.baseEpoch()), BaseId: uint64(r.baseRecord.ID)}
	if m.unit == 0 {
		_, err := m.sequencer().Seal(ctx, q)
		return layout.Seal{}, err
	}
	a, err := m.units().Seal(ctx, q)
	if err != nil {
		return layout.Seal{}, err
	}
	return layout.Seal{Unit: m.unit, Intact: layout.Epoch(a.IntactEpoch), Watermark: layout.Address(a.Watermark),
		End: layout.Address(a.End), TrimmedBelow: layout.Address(a.TrimmedBelow),
		Corrupt: addresses(a.Corrupt), MoreCorrupt: a.MoreCorrupt, Store: pbconv.ToStoreState(a.Store)}, nil
}

func (r *reconfiguration) sealOverFabric(ctx context.Context, m *member, c *messages.Conn) (layout.Seal, error) {
	a, store, err := c.Seal(ctx, r.shape.Log, r.epoch, r.baseRecord)
	if err != nil {
		return layout.Seal{}, err
	}
	switch a.Status {
	case wire.StatusOK:
		return layout.Seal{Unit: m.unit, Intact: a.Intact, Watermark: a.Watermark, End: a.End, TrimmedBelow: a.TrimmedBelow, Store: store}, nil
	case wire.StatusPromised:
		return layout.Seal{}, fmt.Errorf("%w: epoch %d was promised", errRefused, a.Promise)
	case wire.StatusOtherLog:
		return layout.Seal{}, fmt.Errorf("%w: it holds another log", errRefused)
	}
	return layout.Seal{}, fmt.Errorf("status %v", a.Status) // the control plane has the member's own words
}
