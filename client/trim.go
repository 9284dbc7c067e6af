package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"corfu/internal/wire"
	"corfu/layout"
)

// Trim gives up position p for good, at all replicas. A hole is filled first. If a fragment of a larger entry stands at p,
// whole or torn, then all of them go, and p last: begun again after an error, Trim goes on. Idempotent. It fails
// with ErrUnwritten if p was never handed out.
func (l *Log) Trim(ctx context.Context, p layout.Position) (err error) {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opTrim, began, err) }()
	if err := l.handedOut(ctx, p); err != nil {
		return err
	}
	others, err := l.fragmentsBeside(ctx, p)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(trimsAtOnce)
	for _, q := range others {
		g.Go(func() error { return l.trim(gctx, q) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return l.trim(ctx, p)
}

// trimsAtOnce is how many fragments of an entry are trimmed at the same time: a unit makes trims that arrive together durable by one write.
const trimsAtOnce = 16

// trim gives up one page, at the head first (docs/model, trim): if the tail gave it up first, a reader might see that, and see the
// value again if a seal did not reach the tail.
func (l *Log) trim(ctx context.Context, p layout.Position) error {
	_, err := try(ctx, l, func(v *view) (struct{}, error) {
		place, err := v.layout.Locate(p)
		if err != nil {
			return struct{}{}, err
		}
		if err := l.decideDown(ctx, v, place, p); err != nil {
			return struct{}{}, err
		}
		for _, id := range place.Chain.Units {
			err := l.trimAt(ctx, v, id, wire.Trim{Address: place.Address})
			if errors.Is(err, errTooNew) {
				if err = l.decide(ctx, v, p); err == nil { // durable everywhere: now it can be given up
					err = l.trimAt(ctx, v, id, wire.Trim{Address: place.Address})
				}
			}
			if err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}

// decideDown makes sure that the whole chain has something at p: behind a head that has given its copy up nobody could
// complete it, and the window would stand still there for ever (rule R4). What the tail has, all before it have (rule R2).
func (l *Log) decideDown(ctx context.Context, v *view, place layout.Place, p layout.Position) error {
	s, err := v.unit(ctx, place.Chain.Tail())
	if err != nil {
		return err
	}
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	w, err := l.readWord(ctx, s, place.Address, f)
	l.put(f)
	if err != nil {
		return err
	}
	switch classify(w, v.layout.Geometry.Generation(place.Address), v.epoch()) {
	case foundEntry, foundPast:
		return nil
	}
	return l.decide(ctx, v, p)
}

// fragmentsBeside are the other positions, highest first, at which fragments of the same entry stand as at p.
func (l *Log) fragmentsBeside(ctx context.Context, p layout.Position) ([]layout.Position, error) {
	var may atomic.Pointer[permit]
	may.Store(&permit{position: p, now: true})
	r := reading{l: l, p: p, permit: &may}
	e, err := r.run(ctx)
	if err != nil || e.frag.Count == 0 {
		return nil, besidesContent(err)
	}
	var ps []layout.Position
	first := e.frag.First(p)
	for q := first + layout.Position(e.frag.Count-1); ; q-- {
		if q != p {
			r := reading{l: l, p: q, never: true}
			other, err := r.run(ctx)
			if err = besidesContent(err); err != nil {
				return nil, err
			}
			if other.frag.Entry == e.frag.Entry {
				ps = append(ps, q)
			}
		}
		if q == first {
			return ps, nil
		}
	}
}

// besidesContent is err, unless it only says that no value stands at the position.
func besidesContent(err error) error {
	for _, e := range []error{ErrJunk, ErrTrimmed, ErrUnwritten, ErrCorrupt, errHole} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// TrimPrefix gives up all positions below p for good. Holes below it are filled first. A larger entry that begins
// below p is trimmed as a whole for its readers; its fragments from p on take space until a later prefix passes them. Idempotent. It
// fails with ErrUnwritten if not all of them were handed out.
func (l *Log) TrimPrefix(ctx context.Context, p layout.Position) (err error) {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opTrimPrefix, began, err) }()
	if p == 0 {
		return nil
	}
	if err := l.handedOut(ctx, p-1); err != nil {
		return err
	}
	_, err = try(ctx, l, func(v *view) (struct{}, error) {
		bounds := prefixBounds(v.layout, p)
		for _, b := range bounds { // as for a single trim: see decideDown
			if !b.tail {
				continue
			}
			if err := l.decideBelow(ctx, v, b); err != nil {
				return struct{}{}, err
			}
		}
		for _, b := range bounds {
			if err := l.trimBelow(ctx, v, b); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}

// bound says that a unit's addresses below end belong to positions of a prefix.
type bound struct {
	unit layout.UnitID
	end  layout.Address
	tail bool // of the chain that it was made for
}

// prefixBounds gives, for each chain that has positions below p, the first address on its units whose position is not below p, in the
// order in which the units may give them up: lower segments first, and head first in each chain. Addresses grow with positions on
// each unit, through all segments, and no segment names a unit twice.
func prefixBounds(l *layout.Layout, p layout.Position) (bs []bound) {
	for i, s := range l.Segments {
		stop := p
		if i+1 < len(l.Segments) {
			stop = min(p, l.Segments[i+1].Start)
		}
		if stop <= s.Start {
			break
		}
		count, n := uint64(stop-s.Start), uint64(len(s.Chains))
		for j, c := range s.Chains {
			rows := count / n
			if count%n > uint64(j) {
				rows++
			}
			if rows == 0 {
				continue
			}
			for k, u := range c.Units {
				bs = append(bs, bound{u, c.Base + layout.Address(rows), k == len(c.Units)-1})
			}
		}
	}
	return bs
}

// trimBelow trims a prefix of one unit. If the unit will not, something below is not decided: that is done first.
func (l *Log) trimBelow(ctx context.Context, v *view, b bound) error {
	msg := wire.Trim{Prefix: true, Address: b.end}
	err := l.trimAt(ctx, v, b.unit, msg)
	if !errors.Is(err, errTooNew) {
		return err
	}
	if err := l.decideBelow(ctx, v, b); err != nil {
		return err
	}
	if err := l.trimAt(ctx, v, b.unit, msg); !errors.Is(err, errTooNew) {
		return err
	}
	return &sessionError{fmt.Sprintf("unit %d", b.unit), errTooNew}
}

// decideBelow fills what is not durable below the bound, lowest first: all of it lies in the window or, where the
// window has not reached, above it.
func (l *Log) decideBelow(ctx context.Context, v *view, b bound) error {
	s, err := v.unit(ctx, b.unit)
	if err != nil {
		return err
	}
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	var open []layout.Address
	var above layout.Address
	err = s.scan(ctx, f, func(a layout.Address, w wire.Word) {
		if above = max(above, a+1); a < b.end && !w.State().Terminal() {
			open = append(open, a)
		}
	})
	if err != nil {
		return err
	}
	for a := above; a < b.end; a++ {
		open = append(open, a)
	}
	for _, a := range open {
		p, ok := v.layout.PositionAt(b.unit, a)
		if !ok {
			continue // no position lives there
		}
		if err := l.decide(ctx, v, p); err != nil {
			return err
		}
	}
	return nil
}

// decide fills p and waits until it is on flash everywhere, whatever the layout's durability: no unit gives up an
// entry before (rule R4).
func (l *Log) decide(ctx context.Context, v *view, p layout.Position) error {
	if err := l.fillIn(ctx, v, p); err != nil || v.flash() {
		return err
	}
	place, err := v.layout.Locate(p)
	if err != nil {
		return err
	}
	return l.awaitDurable(ctx, v, place, p)
}

// errTooNew: the unit has not decided yet what is to be given up.
var errTooNew = errors.New("not decided yet")

// trimAt asks one unit. errTooNew: something is not decided there.
func (l *Log) trimAt(ctx context.Context, v *view, id layout.UnitID, m wire.Trim) error {
	s, err := v.unit(ctx, id)
	if err != nil {
		return err
	}
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	req := s.requests.add()
	m.Request = req.id
	r, err := s.ask(ctx, f, req, m.Append(nil))
	if err != nil {
		req.drop()
		return err
	}
	return l.trimAnswered(ctx, v, s, f, m.Address, r.Status)
}

// trimAnswered says what the unit's answer to a trim means.
func (l *Log) trimAnswered(ctx context.Context, v *view, s *unitSession, f *frame, a layout.Address, status wire.Status) error {
	switch status {
	case wire.StatusOK:
		return nil
	case wire.StatusTooNew:
		return errTooNew
	}
	// A unit that was sealed while the question was on its way takes no trims in this epoch; in the next one it does.
	if err := l.showsEpoch(ctx, v, s, f); err != nil {
		return err
	}
	return fmt.Errorf("client: %s: trim of address %d: status %v", s.who, a, status)
}
