package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/layout"
)

// TrimmedError is ErrTrimmed of an iterator: what it would have given next was given up by
// TrimPrefix. Begin again at To to go on without it, or give SkipTrimmed.
type TrimmedError struct {
	From layout.Position // first position that was not given to the caller
	To   layout.Position // first position from From on that no prefix trim has passed
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("positions %d to %d: %v", e.From, e.To-1, ErrTrimmed)
}

// Unwrap returns ErrTrimmed.
func (e *TrimmedError) Unwrap() error { return ErrTrimmed }

// BeyondTailError is ErrBeyondTail with the end of the log.
type BeyondTailError struct {
	Position layout.Position // that was asked for
	Tail     layout.Position // first position that is not handed out
	Epoch    layout.Epoch    // in which that is the tail
}

func (e *BeyondTailError) Error() string {
	return fmt.Sprintf("position %d: %v, which is at %d in epoch %d: what stood there before was lost, or it is a position of another log", e.Position, ErrBeyondTail, e.Tail, e.Epoch)
}

// Unwrap returns ErrBeyondTail.
func (e *BeyondTailError) Unwrap() error { return ErrBeyondTail }

// ReadOption says how ReadRange, Follow and Records read.
type ReadOption func(*readOptions)

type readOptions struct {
	skip bool                // where a prefix was trimmed, go on behind it
	told func(*TrimmedError) // of that; nil: nobody
}

// SkipTrimmed makes an iterator go on behind positions that TrimPrefix gave up, where it would end with a *TrimmedError. told, if it is not
// nil, is called each time, from the iterator's goroutine, with what was not read.
func SkipTrimmed(told func(*TrimmedError)) ReadOption {
	return func(o *readOptions) { o.skip, o.told = true, told }
}

func readOptionsOf(options []ReadOption) (o readOptions) {
	for _, set := range options {
		set(&o)
	}
	return o
}

// trimmed is yield, but for a *TrimmedError that is to be skipped: it ends the iteration, notes that in skipped, and in next where the
// next one begins.
func (o readOptions) trimmed(next *Position, skipped *bool, yield func(Entry, error) bool) func(Entry, error) bool {
	if !o.skip {
		return yield
	}
	return func(e Entry, err error) bool {
		var t *TrimmedError
		if !errors.As(err, &t) {
			return yield(e, err)
		}
		if o.told != nil {
			o.told(t)
		}
		*next, *skipped = t.To, true
		return false
	}
}

// FirstPosition returns the first position that no prefix trim has passed: 0 until TrimPrefix was called. A reader of the whole log begins
// there. What stands at it may be anything, a hole among them; it is the tail if all was trimmed. It costs a question to one unit of each chain.
func (l *Log) FirstPosition(ctx context.Context) (p Position, err error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opFirstPosition, began, err) }()
	return l.trimPoint(ctx, 0)
}

// prefixTrimmed is ErrTrimmed of a page that a prefix trim has passed, as readers of ranges see it.
type prefixTrimmed struct{ error }

func (e prefixTrimmed) Unwrap() error { return e.error }

// trimmed returns the error of a page that was trimmed. For a reader of a range it finds out
// whether a prefix trim did that.
func (r *reading) trimmed(ctx context.Context, v *view, where spot, e *entry, f *frame) error {
	err := at(r.p, ErrTrimmed)
	if r.permit == nil {
		return err
	}
	below := e.below
	if below == 0 {
		cold, _, cerr := r.l.inspectCold(ctx, v, where, f)
		if cerr != nil {
			return cerr
		}
		below = cold.below
	}
	if where.a < below {
		return prefixTrimmed{err}
	}
	return err
}

// trimPoint returns the first position from p on that no prefix trim has passed. One question to
// the tail of each chain tells, however much was trimmed.
func (l *Log) trimPoint(ctx context.Context, p layout.Position) (layout.Position, error) {
	return try(ctx, l, func(v *view) (layout.Position, error) {
		f, err := l.frames.get()
		if err != nil {
			return 0, err
		}
		defer l.put(f)
		for i, s := range v.layout.Segments {
			end := layout.MaxPosition
			if i+1 < len(v.layout.Segments) {
				end = v.layout.Segments[i+1].Start
			}
			if end <= p {
				continue
			}
			first := end
			for j, c := range s.Chains {
				q, err := l.firstOfChain(ctx, v, s, j, c, f)
				if err != nil {
					return 0, err
				}
				first = min(first, q)
			}
			if first < end || i+1 == len(v.layout.Segments) {
				return max(p, first), nil
			}
		}
		return p, nil
	})
}

// firstOfChain returns the first position of a segment's j-th chain that no prefix trim has passed
// at its tail. It may lie beyond the segment.
func (l *Log) firstOfChain(ctx context.Context, v *view, s layout.Segment, j int, c layout.Chain, f *frame) (layout.Position, error) {
	u, err := v.unit(ctx, c.Tail())
	if err != nil {
		return 0, err
	}
	base := s.Start + layout.Position(j)
	e, _, err := l.inspectCold(ctx, v, spot{u, c.Base, base}, f)
	if err != nil {
		return 0, err
	}
	if e.kind != entryTrimmed || e.below <= c.Base {
		return base, nil
	}
	return base + layout.Position(uint64(e.below-c.Base)*uint64(len(s.Chains))), nil
}

// trimmedRange makes the error of an iterator whose next page, at p, was trimmed by a prefix; first
// is where the entry begins to which it belongs.
func (l *Log) trimmedRange(ctx context.Context, first, p layout.Position) error {
	to, err := l.trimPoint(ctx, p)
	if err != nil {
		return err
	}
	return &TrimmedError{From: first, To: max(to, p+1)}
}

// isPrefixTrimmed reports whether a range reader found a page that a prefix trim has passed.
func isPrefixTrimmed(err error) bool {
	var x prefixTrimmed
	return errors.As(err, &x)
}
