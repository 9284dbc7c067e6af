package client

import (
	"context"
	"errors"
	"fmt"

	"corfu/layout"
)

// unknown makes the error of an append at p, by the attempt id in epoch e, of which cause kept the outcome from being found out.
func (l *Log) unknown(p Position, id layout.Attempt, e layout.Epoch, cause error) error {
	return &UnknownError{Position: p, ID: EntryID(id), Cause: cause, l: l, epoch: e}
}

// Resolve finds out whether the entry is in the log, and where: found, at position p, as durable as an acknowledged one; or not found, and then it
// never will be in the log, so that it may be appended again (R9). Either answer is final, and costs a read of the position, which waits for the
// hole time-out and then fills it if nothing is there.
//
// An error, which is ErrUnknown as well, means that the outcome is unknown still: call Resolve again, with more time. It remains unknown if the
// position was trimmed (ErrTrimmed). The Log must be open; once it is closed, open another and compare ID with that of ReadEntry at Position.
func (e *UnknownError) Resolve(ctx context.Context) (p Position, found bool, err error) {
	if e.l == nil {
		return 0, false, fmt.Errorf("client: position %d: %w: the append was of no log", e.Position, ErrUnknown)
	}
	found, err = e.l.resolve(ctx, e)
	switch {
	case err != nil:
		return 0, false, fmt.Errorf("client: position %d: %w: %w", e.Position, ErrUnknown, err)
	case found:
		return e.Position, true, nil
	}
	return 0, false, nil
}

// resolve reads the position, and so decides it: what a read returns stands there for ever (until it is trimmed). Nothing of the
// attempt is under way but packets of its own epoch, and the word that they would have to change is decided then.
func (l *Log) resolve(ctx context.Context, u *UnknownError) (found bool, err error) {
	if err := l.enter(); err != nil {
		return false, err
	}
	defer l.exit()
	r := reading{l: l, p: u.Position}
	e, err := r.whole(ctx)
	switch {
	case e.ID == u.ID && (err == nil || errors.Is(err, ErrMalformed)):
		l.m.resolvedMine.Inc()
		return true, nil
	case err == nil, errors.Is(err, ErrMalformed), errors.Is(err, ErrFragment), errors.Is(err, ErrJunk):
		// Another entry, or a fragment of one; junk, or a larger entry that is torn, be it ours.
	case errors.Is(err, ErrUnwritten) && r.epoch > u.epoch:
		// Nothing of the attempt's epoch can land any more, and what had landed was reconciled (rules R8, R17).
	default: // ErrTrimmed among them: what was trimmed may have been ours
		return false, err
	}
	l.m.resolvedLost.Inc()
	return false, nil
}
