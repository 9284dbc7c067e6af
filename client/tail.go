package client

import (
	"context"
	"fmt"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
)

// Tail is the first position that is not handed out: everything acknowledged before the call is below it.
func (l *Log) Tail(ctx context.Context) (p layout.Position, err error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opTail, began, err) }()
	return l.tail(ctx)
}

func (l *Log) tail(ctx context.Context) (layout.Position, error) {
	f, err := l.frames.get()
	if err != nil {
		return 0, err
	}
	defer func() { l.put(f) }()
	return try(ctx, l, func(v *view) (layout.Position, error) {
		p, err := l.sequencerNext(ctx, v, f)
		if err != nil {
			return 0, err
		}
		// Rule R12: conclusive only if every replica of a chain shows the epoch afterwards. Another chain each time.
		chains := v.layout.Last().Chains
		return p, l.chainShowsEpoch(ctx, v, chains[int(v.turn.Add(1))%len(chains)], f)
	})
}

// sequencerNext reads the sequencer's word.
func (l *Log) sequencerNext(ctx context.Context, v *view, f *frame) (layout.Position, error) {
	s, err := v.seq.get(ctx)
	if err != nil {
		return 0, err
	}
	f.b.Reset()
	f.b.Read(f.word(0), s.word)
	if err := s.check(f.do(ctx, s.pipe)); err != nil {
		return 0, err
	}
	p, err := s.next(v, f.value(0))
	if err == nil {
		v.saw(p)
	}
	return p, err
}

// below tells whether p is known to be handed out; the sequencer is asked if need be. One that
// does not answer knows nothing of p.
func (l *Log) below(ctx context.Context, v *view, p layout.Position, f *frame) (bool, error) {
	if uint64(p) < v.tail.Load() {
		return true, nil
	}
	next, err := l.sequencerNext(ctx, v, f)
	if err != nil {
		if ctx.Err() != nil || v.retired() || !transient(err) {
			return false, err
		}
		return false, nil
	}
	return p < next, nil
}

// chainShowsEpoch reads the epoch word of every replica, and fails with errStale if one shows another epoch than v's.
func (l *Log) chainShowsEpoch(ctx context.Context, v *view, c layout.Chain, f *frame) error {
	if mutant.R12 {
		return nil
	}
	for _, id := range c.Units {
		s, err := v.unit(ctx, id)
		if err != nil {
			return err
		}
		if err := l.showsEpoch(ctx, v, s, f); err != nil {
			return err
		}
	}
	return nil
}

// showsEpoch fails with errStale unless the unit serves v's epoch now.
func (l *Log) showsEpoch(ctx context.Context, v *view, s *unitSession, f *frame) error {
	f.b.Reset()
	f.b.Read(f.word(0), s.index)
	if err := s.check(f.do(ctx, s.reads)); err != nil {
		return err
	}
	if layout.Epoch(f.value(0)) != v.epoch() {
		s.fail(errStale)
		return &sessionError{s.who, errStale}
	}
	return nil
}

// SlowTail is the first position above all entries, by asking every unit. It needs no sequencer. Positions that were
// handed out and not written yet may lie above it.
func (l *Log) SlowTail(ctx context.Context) (p layout.Position, err error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opSlowTail, began, err) }()
	return try(ctx, l, func(v *view) (layout.Position, error) { return l.slowTail(ctx, v) })
}

func (l *Log) slowTail(ctx context.Context, v *view) (layout.Position, error) {
	f, err := l.frames.get()
	if err != nil {
		return 0, err
	}
	defer l.put(f)
	var tail layout.Position
	for _, u := range v.layout.Units {
		s, err := v.unit(ctx, u.ID)
		if err != nil {
			return 0, err
		}
		req := s.requests.add()
		m, err := s.ask(ctx, f, req, wire.MaxAddr{Request: req.id}.Append(nil))
		if err != nil {
			req.drop()
			return 0, err
		}
		if m.Status != wire.StatusOK && m.Status != wire.StatusFull && m.Status != wire.StatusIO { // a window that stands still has an end, too
			return 0, fmt.Errorf("client: %s: status %v", s.who, m.Status)
		}
		if m.Value == 0 {
			continue
		}
		if p, ok := v.layout.PositionAt(u.ID, layout.Address(m.Value-1)); ok {
			tail = max(tail, p+1)
		}
	}
	// Rule R12, for all chains: an entry may have come after its unit answered, but none was acknowledged before the
	// call and missed, if all units still serve the epoch.
	for _, c := range v.layout.Last().Chains {
		if err := l.chainShowsEpoch(ctx, v, c, f); err != nil {
			return 0, err
		}
	}
	return tail, nil
}
