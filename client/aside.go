package client

import (
	"context"
	"errors"
	"time"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// A reader may be served by another replica than the tail if the entry is durable there and at the
// tail, in the same epoch (rule R11). Where the fabric does not carry to the tail, the tail itself
// says over the control plane below which address everything is durable with it: a word that stays
// true as long as the epoch lasts, and after it, since what is durable at the tail no epoch loses
// (rules R16, R17).

// errAside: the position cannot be served without the tail.
var errAside = errors.New("not known to be durable at the tail")

// tailPatience is how long a reader waits for a session with the tail before it looks elsewhere.
const tailPatience = 250 * time.Millisecond

// durableTimeout bounds the question to a tail.
const durableTimeout = time.Second

// tail returns a session with the tail of the place, or what another replica serves in its stead.
// Exactly one of session, found and err is set.
func (r *reading) tail(ctx context.Context, v *view, place layout.Place, f *frame) (s *unitSession, found *entry, err error) {
	id := place.Chain.Tail()
	k := v.units[id]
	if s := k.cur.Load(); s != nil && k.alive(s) {
		return s, nil, nil
	}
	if len(place.Chain.Units) > 1 {
		if t := k.trouble.Load(); t == nil || time.Since(t.since) < tailPatience {
			bounded, cancel := context.WithTimeout(ctx, tailPatience)
			s, err := k.get(bounded)
			cancel()
			if err == nil || ctx.Err() != nil {
				return s, nil, err
			}
		}
		if e, err := r.aside(ctx, v, place, f); !errors.Is(err, errAside) {
			return nil, e, err
		}
	}
	s, err = k.get(ctx)
	return s, nil, err
}

// aside serves an entry from another replica than the tail. Its error is errAside if it may not.
func (r *reading) aside(ctx context.Context, v *view, place layout.Place, f *frame) (*entry, error) {
	if !v.flash() || !r.l.durableAt(ctx, v, place.Chain.Tail(), place.Address) {
		return nil, errAside
	}
	for i := len(place.Chain.Units) - 2; i >= 0; i-- {
		k := v.units[place.Chain.Units[i]]
		bounded, cancel := context.WithTimeout(ctx, tailPatience)
		s, err := k.get(bounded)
		cancel()
		if err != nil {
			continue
		}
		where := spot{s, place.Address, r.p}
		e, err := r.l.inspect(ctx, v, where, f)
		if err != nil {
			return nil, err
		}
		switch {
		case e.kind == entryTrimmed:
			return nil, r.trimmed(ctx, v, where, &e, f) // that is final, and needs no more
		case e.kind == entryJunk && e.durable:
			return nil, at(r.p, ErrJunk)
		case e.kind == entryPage && e.durable:
			r.l.m.aside.Inc()
			return &e, nil
		}
	}
	return nil, errAside
}

// durableAt asks a unit over the control plane whether an address is durable there in the view's
// epoch, unless it said so before.
func (l *Log) durableAt(ctx context.Context, v *view, id layout.UnitID, a layout.Address) bool {
	if w, ok := v.durable.Load(id); ok && a < w.(layout.Address) {
		return true
	}
	u, ok := v.layout.Unit(id)
	if !ok {
		return false
	}
	cc, err := l.control.get(u.Control)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, durableTimeout)
	defer cancel()
	m, err := pb.NewUnitServiceClient(cc).Durable(ctx, &pb.DurableRequest{Log: v.layout.Log[:], Epoch: uint64(v.epoch())})
	if err != nil {
		return false
	}
	w := layout.Address(m.Watermark)
	v.durable.Store(id, w)
	return a < w
}
