package client

import "context"

// turn is an append's place in the order of the calls of AppendAsync: it asks for its token when
// the one before has asked for its own. The sequencer's words are executed in the order in which
// they were posted, so that nobody waits for an answer. A turn counts for the first try alone: an
// append that lost its position takes one that is free then. Nil stands for no order.
type turn struct {
	before *turn // nil: none, or it has passed
	passed chan struct{}
	over   bool // of the append's own goroutine
}

// takeTurn gives the place behind the one that was taken last.
func (l *Log) takeTurn() *turn {
	t := &turn{passed: make(chan struct{})}
	t.before = l.lastTurn.Swap(t)
	return t
}

// await waits until the one before has passed its turn on.
func (t *turn) await(ctx context.Context) error {
	if t == nil || t.before == nil {
		return nil
	}
	select {
	case <-t.before.passed:
		t.before = nil // or all that ever were would stay in memory
		return nil
	case <-ctx.Done():
		return waiting(ctx.Err(), "the append before to take its position")
	}
}

// pass lets the next one go. Idempotent.
func (t *turn) pass() {
	if t == nil || t.over {
		return
	}
	t.over = true
	close(t.passed)
}
