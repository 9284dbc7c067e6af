package client

import (
	"context"
	"errors"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
)

// Trim gives up position p for good, at all replicas. A hole is filled first. Idempotent. It fails
// with ErrUnwritten if p was never handed out.
func (l *Log) Trim(ctx context.Context, p layout.Position) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	if err := l.handedOut(ctx, p); err != nil {
		return err
	}
	_, err := try(ctx, l, func(v *view) (struct{}, error) {
		place, err := v.layout.Locate(p)
		if err != nil {
			return struct{}{}, err
		}
		for _, id := range place.Chain.Units {
			err := l.trimAt(ctx, v, id, wire.Trim{Address: place.Address})
			if errors.Is(err, errTooNew) {
				if err = l.decide(ctx, v, p); err == nil { // decided and durable everywhere: now it can be given up
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

// TrimPrefix gives up all positions below p for good. Holes below it are filled first. Idempotent. It
// fails with ErrUnwritten if not all of them were handed out.
func (l *Log) TrimPrefix(ctx context.Context, p layout.Position) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	if p == 0 {
		return nil
	}
	if err := l.handedOut(ctx, p-1); err != nil {
		return err
	}
	_, err := try(ctx, l, func(v *view) (struct{}, error) {
		for _, b := range prefixBounds(v.layout, p) {
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
}

// prefixBounds gives, for each unit, the first address whose position is not below p. Addresses grow with
// positions on each unit, through all segments.
func prefixBounds(l *layout.Layout, p layout.Position) []bound {
	end := map[layout.UnitID]layout.Address{}
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
			for _, u := range c.Units {
				if rows > 0 {
					end[u] = max(end[u], c.Base+layout.Address(rows))
				}
			}
		}
	}
	var bs []bound
	for _, u := range l.Units {
		if e := end[u.ID]; e > 0 {
			bs = append(bs, bound{u.ID, e})
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
	switch r.Status {
	case wire.StatusOK:
		return nil
	case wire.StatusTooNew:
		return errTooNew
	}
	return fmt.Errorf("client: %s: trim of address %d: status %v", s.who, m.Address, r.Status)
}
