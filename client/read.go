package client

import (
	"context"
	"sync/atomic"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
)

// Read returns the payload of the entry at p. If p was handed out and nothing is there, Read waits HoleTimeout and then fills it. It fails
// with ErrUnwritten (p was not handed out yet), ErrJunk, ErrTrimmed, ErrCorrupt, ErrUnavailable, ErrClosed, or ctx's error; and with
// ErrBatch if the entry is a batch of records, which ReadEntry returns.
//
// An entry larger than a page is read at its first position; at its others a *FragmentError says which that is. It is
// ErrJunk at all of them if one of its fragments never came (what else stands there is read as what it is), and
// ErrTrimmed if one of them was trimmed.
func (l *Log) Read(ctx context.Context, p layout.Position) ([]byte, error) {
	e, err := l.ReadEntry(ctx, p)
	if err == nil && e.Records != nil {
		err = at(p, ErrBatch)
	}
	return e.Payload, err
}

// ReadEntry returns the entry at p: a payload, or the records of a batch. Its errors are those of Read, but for ErrBatch, and a
// *MalformedError.
func (l *Log) ReadEntry(ctx context.Context, p layout.Position) (e Entry, err error) {
	if err := l.enter(); err != nil {
		return Entry{}, err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opRead, began, err) }()
	r := reading{l: l, p: p}
	return r.whole(ctx)
}

// reading reads one page: what it has seen over its tries.
type reading struct {
	l      *Log
	p      layout.Position
	permit *atomic.Pointer[permit] // nil: it may fill p. Else only if the permit there is for p
	never  bool                    // it neither waits nor fills: a hole is errHole
	hole   time.Time               // since when p was seen to be a hole; zero: not yet
	long   bool                    // the hole is one of a larger entry on its way
	asked  bool                    // whether it is was looked up
	looks  int                     // at an entry that is not decided yet
	epoch  layout.Epoch            // in which it looked last
}

// enter is run for one who has not entered the log.
func (r *reading) enter(ctx context.Context) (entry, error) {
	if err := r.l.enter(); err != nil {
		return entry{}, err
	}
	defer r.l.exit()
	return r.run(ctx)
}

// whole gives the entry that begins at p.
func (r *reading) whole(ctx context.Context) (Entry, error) {
	e, err := r.run(ctx)
	switch {
	case err != nil:
		return Entry{}, err
	case e.frag.Count != 0:
		return r.l.readLarge(ctx, r.p, &e)
	}
	return makeEntry(r.p, 1, EntryID(e.header.Attempt), e.isBatch(), e.payload())
}

// run gives the page that stands at p; its errors are those of Read.
func (r *reading) run(ctx context.Context) (entry, error) {
	return try(ctx, r.l, func(v *view) (entry, error) {
		r.epoch = v.epoch()
		return r.read(ctx, v)
	})
}

// read looks at the tail until it says something that a reader may return (rule R11).
func (r *reading) read(ctx context.Context, v *view) (entry, error) {
	l := r.l
	place, err := v.layout.Locate(r.p)
	if err != nil {
		return entry{}, at(r.p, ErrUnwritten)
	}
	f, err := l.frames.get()
	if err != nil {
		return entry{}, err
	}
	defer l.put(f)
	for {
		tail, found, err := r.tail(ctx, v, place, f)
		if err != nil {
			return entry{}, err
		}
		if found != nil {
			return *found, nil
		}
		spot := spot{tail, place.Address, r.p}
		e, err := l.inspect(ctx, v, spot, f)
		if err != nil {
			return entry{}, err
		}
		switch decided := e.durable || !v.flash() || mutant.R11; {
		case e.kind == entryPage && decided:
			v.sawEntry(r.p, &e)
			return e, nil
		case e.kind == entryJunk && decided:
			if !r.hole.IsZero() { // another client filled it while this one waited
				l.patience.filling(l.o.HoleTimeout, time.Now())
			}
			return entry{}, at(r.p, ErrJunk)
		case e.kind == entryTrimmed:
			return entry{}, r.trimmed(ctx, v, spot, &e, f)
		case e.kind == entryCorrupt:
			return r.elsewhere(ctx, v, place, e.word, f)
		case e.kind == entryNone:
			err = r.missing(ctx, v, place, f)
		default:
			err = r.undecided(ctx, v)
		}
		if err != nil {
			return entry{}, err
		}
	}
}

// undecided waits a little for the unit, and then helps (rule R10).
func (r *reading) undecided(ctx context.Context, v *view) error {
	r.looks++
	if r.looks%12 != 0 || r.never { // the unit will see it by itself
		return sleep.For(ctx, min(time.Millisecond, time.Duration(r.looks)*50*time.Microsecond))
	}
	return r.l.fillIn(ctx, v, r.p)
}

// missing deals with a tail that has nothing at p. Nil: look again.
func (r *reading) missing(ctx context.Context, v *view, place layout.Place, f *frame) error {
	l := r.l
	if handed, err := l.below(ctx, v, r.p, f); err != nil {
		return err
	} else if !handed {
		// Rule R12: conclusive only if every other replica shows the epoch after the tail answered.
		if err := l.chainShowsEpoch(ctx, v, place.Chain, f); err != nil {
			return err
		}
		return at(r.p, ErrUnwritten)
	}
	if r.hole.IsZero() {
		r.hole = time.Now()
		l.m.holes.Inc()
	}
	left, err := r.patience()
	if err != nil {
		return err
	}
	if len(place.Chain.Units) > 1 {
		head, err := v.unit(ctx, place.Chain.Head())
		if err != nil {
			return err
		}
		// The head has an entry: whoever put it there is on his way down the chain, or gone. Give
		// him the time of a few round trips before going with him.
		if w, err := l.readWord(ctx, head, place.Address, f); err != nil {
			return err
		} else if classify(w, v.layout.Geometry.Generation(place.Address), v.epoch()) == foundEntry {
			left = min(left, time.Millisecond-time.Since(r.hole))
		}
	}
	if left <= 0 && !r.asked && !r.given() {
		r.asked = true
		if r.long, err = l.onItsWay(ctx, r.p); r.long || err != nil {
			return err
		}
	}
	if left > 0 {
		return sleep.For(ctx, min(left, time.Millisecond))
	}
	return l.fillIn(ctx, v, r.p)
}

// patience is how long r has to wait still before it may fill its hole.
func (r *reading) patience() (time.Duration, error) {
	from := r.hole
	if r.never {
		return 0, at(r.p, errHole)
	}
	if r.permit != nil {
		may := r.permit.Load()
		if may == nil || may.position != r.p {
			return time.Millisecond, nil // not its turn
		}
		if may.now {
			return 0, nil
		}
		if may.since.After(from) {
			from = may.since
		}
	}
	return time.Until(from.Add(r.l.holeTimeout(r.long))), nil
}

// given tells whether p is known to be given up.
func (r *reading) given() bool {
	if r.permit == nil {
		return false
	}
	may := r.permit.Load()
	return may != nil && may.position == r.p && may.now
}

func (l *Log) readWord(ctx context.Context, s *unitSession, a layout.Address, f *frame) (wire.Word, error) {
	f.b.Reset()
	f.b.Read(f.word(0), s.word(a))
	if err := s.check(f.do(ctx, s.reads)); err != nil {
		return 0, err
	}
	return wire.Word(f.value(0)), nil
}

// elsewhere serves an entry, value or junk, whose copy at the tail is corrupt from another replica; the tail is repaired meanwhile. Rule R11 allows that if it is
// durable there and the tail shows the same entry in the same epoch. The tail's copy cannot be compared any more; but that it was
// published there means that every replica before it holds that very entry (rule R2), and that the
// same word still stands there afterwards, under the same epoch, means that it is still so.
func (r *reading) elsewhere(ctx context.Context, v *view, place layout.Place, word wire.Word, f *frame) (entry, error) {
	l := r.l
	tail, err := v.unit(ctx, place.Chain.Tail())
	if err != nil {
		return entry{}, err
	}
	for i := len(place.Chain.Units) - 2; i >= 0; i-- {
		s, err := v.unit(ctx, place.Chain.Units[i])
		if err != nil {
			return entry{}, err
		}
		where := spot{s, place.Address, r.p}
		e, err := l.inspect(ctx, v, where, f)
		if err != nil {
			return entry{}, err
		}
		// A trim needs no more: it is final. Junk is an entry like a page (rule R11).
		if e.kind == entryTrimmed {
			return entry{}, r.trimmed(ctx, v, where, &e, f)
		}
		if (e.kind != entryPage && e.kind != entryJunk) || !e.durable {
			continue
		}
		w, err := l.readWord(ctx, tail, place.Address, f)
		if err == nil && w != word {
			err = &sessionError{tail.who, errStale}
		}
		if err == nil {
			err = l.showsEpoch(ctx, v, tail, f)
		}
		if err == nil && e.kind == entryJunk {
			err = at(r.p, ErrJunk)
		}
		return e, err
	}
	return entry{}, l.foundCorrupt(r.p)
}
