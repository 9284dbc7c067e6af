package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"corfu/layout"
)

// ReadRange iterates over the entries in [from, to) in order. It skips junk, and positions that Trim gave up. Where TrimPrefix did, it yields
// a *TrimmedError that says which, and stops: begin again at its To to go on behind them. An entry larger than a page is given at its first position, whole, even if it ends behind the range; one that begins
// before the range is skipped, and so is what remains of one that is torn. An error (of Read) is the last that it gives; ErrUnwritten if the range reaches beyond the tail.
func (l *Log) ReadRange(ctx context.Context, from, to layout.Position, options ...ReadOption) iter.Seq2[Entry, error] {
	o := readOptionsOf(options)
	return func(yield func(Entry, error) bool) {
		for from := from; from < to; {
			next, skipped := to, false
			s := spanning{l: l}
			give := o.trimmed(&next, &skipped, yield)
			if !(l.span(ctx, &s, from, to, give) && l.rest(ctx, &s, give)) && !skipped {
				return
			}
			from = next
		}
	}
}

// Follow is ReadRange without an end: at the tail it waits for more, until ctx ends, which is the last error that it gives. While it
// waits the units say when there is more: it sends nothing then, neither to them nor to the sequencer. Units of a release that does
// not say so are polled, up to 20 ms apart. An entry is yielded once a reader may have it, acknowledged or not: under durability flash
// when the last unit of its chain has it on flash, under memory when that unit has seen it, which takes up to 2 ms where its writer does not
// know yet that somebody follows. A hole is waited for, and filled, once something behind it can be read.
//
// If from lies above the tail, or the tail of a new epoch lies below what was given already, it yields a *BeyondTailError and stops: the log has lost
// what stood there, or from is of another log.
func (l *Log) Follow(ctx context.Context, from layout.Position, options ...ReadOption) iter.Seq2[Entry, error] {
	o := readOptionsOf(options)
	return func(yield func(Entry, error) bool) {
		f := l.newFollower()
		defer f.leave()
		s := spanning{l: l} // a larger entry may come in over several rounds
		for from := from; ; {
			to, err := f.next(ctx, from)
			var beyond *BeyondTailError
			switch {
			case errors.As(err, &beyond):
				yield(Entry{Position: from}, err)
				return
			case err != nil:
				yield(Entry{}, err)
				return
			}
			back := false // an epoch ended, and the next one has not handed out yet what the one before had
			next, skipped := to, false
			if !l.span(ctx, &s, from, to, o.trimmed(&next, &skipped, func(e Entry, err error) bool {
				if back = errors.Is(err, ErrUnwritten); back {
					next = e.Position
					return false
				}
				return yield(e, err)
			})) && !back && !skipped {
				return
			}
			if back {
				f.leave() // what was said was of that epoch
				if err := f.pause(ctx); err != nil {
					yield(Entry{}, err)
					return
				}
			}
			from = next
		}
	}
}

// span reads [from, to) with read-ahead. It reports whether to go on. If the range ends inside an entry that begins in it, or in
// a range that s read before, s keeps what there is of it.
func (l *Log) span(ctx context.Context, s *spanning, from, to layout.Position, yield func(Entry, error) bool) bool {
	h := l.ahead(ctx, from, to)
	defer h.stop()
	for h.at < to {
		p := h.at
		first := p
		if s.part != nil {
			first = s.part.first
		}
		e, ok, err := s.take(p, h.next(s.permit(p)))
		switch {
		case isPrefixTrimmed(err):
			err = l.trimmedRange(ctx, first, p)
			p = first
		case errors.Is(err, ErrMalformed):
			p = first
		}
		if err != nil {
			yield(Entry{Position: p}, err)
			return false
		}
		if ok && !yield(e, nil) {
			return false
		}
	}
	return true
}

// rest reads what is missing of the entry that s keeps, if any. It reports whether to go on.
func (l *Log) rest(ctx context.Context, s *spanning, yield func(Entry, error) bool) bool {
	if s.part == nil {
		return true
	}
	switch err := l.gather(ctx, s.part); {
	case err == nil:
		e, err := s.part.entry()
		return yield(e, err) && err == nil
	case errors.Is(err, ErrJunk):
		return true
	case errors.Is(err, ErrTrimmed):
		to, err := l.trimPoint(ctx, s.part.first)
		if err == nil && to > s.part.first {
			err = &TrimmedError{From: s.part.first, To: to}
		}
		if err == nil { // some of its positions were trimmed one by one
			return true
		}
		yield(Entry{Position: s.part.first}, err)
		return false
	default:
		yield(Entry{Position: s.part.first}, err)
		return false
	}
}

// spanning makes entries of the pages of a range.
type spanning struct {
	l       *Log
	part    *assembly       // larger entry whose fragments are coming in; nil: none
	given   layout.Position // positions below are those of a torn entry:
	givenIn layout.Epoch    // the holes among them were given up if this epoch is the current one
}

// permit says how long to wait for p: a larger entry has the hole time-out for each of its fragments.
func (s *spanning) permit(p layout.Position) permit {
	if s.part != nil {
		return permit{since: time.Now()}
	}
	return permit{now: p < s.given && s.l.current().epoch() == s.givenIn}
}

// take takes what stands at p; ok says that it completes an entry.
func (s *spanning) take(p layout.Position, r pageAt) (e Entry, ok bool, err error) {
	if s.part != nil {
		if r.err == nil && s.part.add(p, &r.entry) {
			if !s.part.whole() {
				return e, false, nil
			}
			e, err = s.part.entry()
			s.part = nil
			return e, true, err
		}
		s.given, s.givenIn, s.part = s.part.position(s.part.frag.Count), s.part.epoch, nil
	}
	switch {
	case isPrefixTrimmed(r.err):
		return e, false, r.err
	case errors.Is(r.err, ErrJunk), errors.Is(r.err, ErrTrimmed):
		return e, false, nil
	case r.err != nil:
		return e, false, r.err
	case r.entry.frag.Count != 0:
		s.part = assemble(p, &r.entry) // nil: a fragment whose first one is not there, or before the range
		return e, false, nil
	}
	e, err = makeEntry(p, 1, EntryID(r.entry.header.Attempt), r.entry.isBatch(), r.entry.payload())
	return e, true, err
}
