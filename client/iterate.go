package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"corfu/layout"
)

// Entry is a value of the log.
type Entry struct {
	Position layout.Position
	Payload  []byte
}

// readAhead is how many positions an iterator reads at once.
const readAhead = 32

// ReadRange gives the entries at positions from up to, but not including, to, in order. Junk and trimmed positions are
// skipped. An error (of Read) is the last that it gives; ErrUnwritten if the range reaches beyond the tail.
func (l *Log) ReadRange(ctx context.Context, from, to layout.Position) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if from < to {
			_ = l.span(ctx, from, to, yield)
		}
	}
}

// Follow is ReadRange without an end: at the tail it waits for more, until ctx ends, which is the last error that it gives.
func (l *Log) Follow(ctx context.Context, from layout.Position) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var idle int
		for {
			tail, err := l.Tail(ctx)
			if err == nil && tail <= from {
				idle++
				err = sleep(ctx, min(20*time.Millisecond, time.Millisecond<<min(idle, 5)))
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if tail <= from {
				continue
			}
			idle = 0
			if !l.span(ctx, from, tail, yield) {
				return
			}
			from = tail
		}
	}
}

// span reads [from, to) with read-ahead. It reports whether to go on.
func (l *Log) span(ctx context.Context, from, to layout.Position, yield func(Entry, error) bool) bool {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		payload []byte
		err     error
	}
	n := int(min(readAhead, uint64(to-from)))
	ahead := make([]chan result, n) // of position p at p mod n
	for i := range ahead {
		ahead[i] = make(chan result, 1)
	}
	// Worker i reads every n-th position; it waits until what it read was taken.
	for i := range ahead {
		go func() {
			c := ahead[i]
			for p := from + layout.Position(i); p < to && ctx.Err() == nil; p += layout.Position(n) {
				payload, err := l.Read(ctx, p)
				select {
				case c <- result{payload, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	defer cancel()
	for p := from; p < to; p++ {
		var r result
		select {
		case r = <-ahead[int((p-from)%layout.Position(n))]:
		case <-ctx.Done():
			r.err = ctx.Err()
		}
		switch {
		case r.err == nil:
			if !yield(Entry{p, r.payload}, nil) {
				return false
			}
		case errors.Is(r.err, ErrJunk), errors.Is(r.err, ErrTrimmed):
		default:
			yield(Entry{Position: p}, r.err)
			return false
		}
	}
	return true
}
