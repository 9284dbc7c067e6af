package unit

import (
	"errors"
	"fmt"

	"corfu/layout"
)

// Errors of the core. Test with errors.Is.
var (
	// ErrPromised: the unit has promised a newer epoch. [PromiseError] has it: start
	// again above it.
	ErrPromised = errors.New("a newer epoch was promised")

	// ErrOtherLog: the unit belongs to another log. The operator gave the wrong address or the wrong directory.
	ErrOtherLog = errors.New("the unit belongs to another log")

	// ErrNotSealed: the unit is not sealed at the epoch. Seal it first; after a restart at a higher epoch (rule R19).
	ErrNotSealed = errors.New("not sealed at this epoch")

	// ErrNotReconciled: the unit was not reconciled for the epoch since it was sealed (rule R18).
	ErrNotReconciled = errors.New("not reconciled for this epoch")

	// ErrNotOpen: the unit does not serve the epoch. Get the layout.
	ErrNotOpen = errors.New("the unit does not serve this epoch")

	// ErrConflict: two different entries at one address. The rules exclude it: stop, and find out why.
	ErrConflict = errors.New("two different entries at one address")

	// ErrBadEntry: an entry to reconcile is not valid, or does not fit the unit. A bug of the sender.
	ErrBadEntry = errors.New("entry not valid")

	// ErrOutdated: flash has changed below the window, and Load was not called since. A bug of the server.
	ErrOutdated = errors.New("the window is older than flash")

	// ErrNotFlushed: entries that were published are not on flash yet, so there is no snapshot (rule R15).
	ErrNotFlushed = errors.New("published entries are not on flash")
)

// PromiseError says what was promised.
type PromiseError struct{ Promise layout.Epoch }

func (e *PromiseError) Error() string {
	return fmt.Sprintf("unit: %v: epoch %d", ErrPromised, e.Promise)
}

func (e *PromiseError) Unwrap() error { return ErrPromised }
