package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// A unit that left its chain, and is to join where it cannot keep its store, would be wiped. Before
// that every page that it holds is verified elsewhere: the members of the chains in which the
// positions live now read theirs, and what they turn out to have lost is repaired from the unit. A
// unit that has the only sound copy of something is not wiped.

// voucher verifies such pages while this server leads. One unit at a time: the members read all
// that it holds.
type voucher struct {
	cfg   Config
	log   *slog.Logger
	asker uint64

	// Of the manager.
	wanted map[layout.UnitID]layout.StartID // would join, and be wiped
	unkept map[layout.UnitID]layout.StartID // were to keep their stores, and could not
	epoch  layout.Epoch
	now    leftUnit // whose pages are being verified
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	sound map[layout.UnitID]vouched
}

// vouched says for which start of a unit, and by which members, all that it holds was verified.
type vouched struct {
	start layout.StartID
	by    []layout.UnitID
}

func newVoucher(cfg Config, asker uint64) *voucher {
	return &voucher{cfg: cfg, log: cfg.Logger, asker: asker, wanted: map[layout.UnitID]layout.StartID{}, unkept: map[layout.UnitID]layout.StartID{}, sound: map[layout.UnitID]vouched{}}
}

// errOnlyCopy: the unit has the only sound copy of an entry. It is repaired from there.
var errOnlyCopy = errors.New("no member has a sound copy")

// vouched reports whether all that a unit holds was verified at units that are members still.
func (v *voucher) vouched(u layout.UnitID, start layout.StartID, active *layout.Layout) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, ok := v.sound[u]
	return ok && x.start == start && !slices.ContainsFunc(x.by, func(u layout.UnitID) bool { return !active.IsMember(u) })
}

// mayRefill reports whether a spare may join, behind those that do already: if it is to be wiped,
// what it holds must have been verified elsewhere, unless an operator gave it up.
func (s *scene) mayRefill(c layout.Change, joined []layout.UnitID, m *member) bool {
	i := slices.IndexFunc(s.left, func(x leftUnit) bool { return x.m == m && x.start != 0 })
	if i < 0 || contains(s.past.accepted, m.unit) || s.vouch.vouched(m.unit, s.left[i].start, s.active) {
		return true
	}
	start := s.left[i].start
	if s.vouch.unkept[m.unit] != start {
		c.Join = append(slices.Clone(joined), m.unit)
		if next, err := s.shape.With(c, s.active.Epoch+1, s.active.Start); err == nil && sameChain(next, s.left[i].left) {
			return true // it keeps what it has
		}
	}
	s.vouch.wanted[m.unit] = start
	return false
}

// unvouched reports whether a spare joins nothing since what it holds was not verified elsewhere.
func (s *scene) unvouched(m *member) bool {
	i := slices.IndexFunc(s.left, func(x leftUnit) bool { return x.m == m && x.start != 0 })
	return i >= 0 && s.vouch.wanted[m.unit] == s.left[i].start && !s.vouch.vouched(m.unit, s.left[i].start, s.active)
}

// mayWipe fails if the unit, as it was sealed, must not be wiped yet.
func (v *voucher) mayWipe(u layout.UnitID, x layout.StoreState, left layout.LeftMember, active *layout.Layout) error {
	if left.Below <= left.From || !x.Entries || !left.Whole(x) || v.vouched(u, x.Start, active) {
		return nil
	}
	v.wanted[u], v.unkept[u] = x.Start, x.Start
	return fmt.Errorf("unit %d left its chain, and cannot keep its store: it is not wiped before all that it holds was verified elsewhere", u)
}

// follow verifies what the units hold that are to be wiped. The manager calls it in every round.
func (v *voucher) follow(ctx context.Context, active *layout.Layout, list []leftUnit, ms *members, st *store) {
	if active == nil {
		return
	}
	if v.stop != nil {
		select {
		case <-v.done:
			v.end()
		default:
			still := slices.ContainsFunc(list, func(x leftUnit) bool { return x.m == v.now.m && x.start == v.now.start })
			if still && v.epoch == active.Epoch {
				return
			}
			v.end()
		}
	}
	for _, x := range list {
		if x.start == 0 || v.wanted[x.m.unit] != x.start || v.vouched(x.m.unit, x.start, active) {
			continue
		}
		units := map[layout.UnitID]*member{}
		for _, m := range ms.list {
			if m.unit != 0 && !m.standby {
				units[m.unit] = m
			}
		}
		var base *layout.Layout
		st.fsm.view(func(s *layout.State) {
			if r, ok := s.Record(x.left.Base.Epoch); ok {
				base = r.Layout
			}
		})
		v.now, v.epoch = x, active.Epoch
		ctx, v.stop = context.WithCancel(control.Begin(ctx))
		v.done = make(chan struct{})
		go func() {
			defer close(v.done)
			v.run(ctx, active, units, x, base)
		}()
		return
	}
}

// end stops the work in hand.
func (v *voucher) end() {
	if v.stop != nil {
		v.stop()
		<-v.done
		v.stop = nil
	}
}

// forget ends all: this server leads no more.
func (v *voucher) forget() {
	v.end()
	clear(v.wanted)
	clear(v.unkept)
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.sound)
}

// run verifies all that a unit holds, again and again until that has worked.
func (v *voucher) run(ctx context.Context, active *layout.Layout, units map[layout.UnitID]*member, x leftUnit, base *layout.Layout) {
	log := v.log.With(control.LogKey, control.Operation(ctx), "unit", uint32(x.m.unit))
	log.Info("a unit that left is to be wiped: what it holds is verified elsewhere before", "from", uint64(x.left.From), "below", uint64(x.left.Below))
	c := &copier{base: active, epoch: active.Epoch, sources: units, accuse: nobody, progress: func() {}}
	pace := &pacer{rate: float64(v.cfg.RebuildRate), due: time.Now()}
	by, said := map[layout.UnitID]bool{}, ""
	for a := x.left.From; a < x.left.Below; {
		err := pace.wait(ctx)
		if err == nil && base == nil {
			base, err = v.known(ctx, x)
		}
		if err == nil {
			var to layout.Address
			if to, err = v.verify(ctx, c, x, base, a, by); err == nil {
				pace.sent(int(to-a) * active.Geometry.PageSize)
				a = to
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			log.Warn("a unit that left is not wiped, and joins nothing yet", "err", err)
		}
		if sleep.For(ctx, rebuildRetry) != nil {
			return
		}
	}
	log.Info("all that the unit holds was verified elsewhere: it may be wiped")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sound[x.m.unit] = vouched{x.start, slices.Sorted(maps.Keys(by))}
}

// known asks the unit for the layout by which its addresses are positions.
func (v *voucher) known(ctx context.Context, x leftUnit) (*layout.Layout, error) {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.CallTimeout)
	defer cancel()
	k, err := x.m.units().Known(ctx, &pb.KnownRequest{Asker: v.asker})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", x.m.name, err)
	}
	for _, m := range []*pb.Layout{k.ActiveLayout, k.Layout} {
		if m == nil {
			continue
		}
		l, err := pbconv.ToLayout(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x.m.name, err)
		}
		if p, ok := l.PositionAt(x.m.unit, x.left.From); ok && p == x.left.At {
			return l, nil
		}
	}
	return nil, fmt.Errorf("%s does not know the layout in which it was a member: give up what it holds (corfu unit add --accept-loss)", x.m.name)
}

// verify looks at a run of addresses from a on that live in one chain, and returns where it ends.
func (v *voucher) verify(ctx context.Context, c *copier, x leftUnit, base *layout.Layout, a layout.Address, by map[layout.UnitID]bool) (to layout.Address, err error) {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.StallTimeout)
	defer cancel()
	positions := map[layout.Address]layout.Position{}
	var place layout.Place
	for to = a; to < min(a+rebuildChunk, x.left.Below); to++ {
		p, mapped := base.PositionAt(x.m.unit, to)
		if !mapped {
			if to == a {
				return a + 1, nil
			}
			break
		}
		is, err := c.base.Locate(p)
		if err != nil {
			return a, err
		}
		if is.Address != to {
			return a, fmt.Errorf("position %d is at address %d and was at %d: %w", p, is.Address, to, errBadEntry)
		}
		if to > a && (is.Segment != place.Segment || is.Stripe != place.Stripe) {
			break
		}
		place = is
		positions[to] = p
	}
	var errs []error
	for _, u := range slices.Backward(place.Chain.Units) {
		if len(positions) == 0 {
			break
		}
		l, err := c.list(ctx, u, a, to, given{})
		errs = append(errs, err)
		for _, h := range l.Holdings {
			if h.Kind != layout.HoldsCorrupt {
				delete(positions, h.Address)
				by[u] = true
			}
		}
	}
	for _, lost := range slices.Sorted(maps.Keys(positions)) {
		e, err := x.fetch(ctx, c.base.Log, lost, positions[lost])
		if err != nil {
			return a, err
		}
		if e == nil {
			continue // it has nothing that the members lack
		}
		for _, u := range place.Chain.Units { // it takes note, so that it is repaired
			_, err := c.sources[u].units().Fetch(ctx, &pb.FetchRequest{Log: c.base.Log[:], Epoch: uint64(c.epoch), Address: uint64(lost)})
			errs = append(errs, err)
		}
		return a, errors.Join(append(errs, fmt.Errorf("position %d: %w but %s, which left", positions[lost], errOnlyCopy, x.m.name))...)
	}
	return to, nil
}
