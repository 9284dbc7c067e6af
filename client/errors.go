package client

import (
	"context"
	"errors"
	"fmt"

	"corfu/layout"
	"corfu/rdma"
)

// What can go wrong. Test with errors.Is.
var (
	// ErrUnwritten: nothing is at the position yet, in the newest epoch. Read again later, or Follow.
	ErrUnwritten = errors.New("position not written")

	// ErrJunk: the position was handed out, never written and filled. It will never hold a value: go on to the next.
	ErrJunk = errors.New("position filled with junk")

	// ErrTrimmed: the position was given up. It will never be read again: go on, or start
	// from your latest checkpoint. Iterators give a *TrimmedError, which says where to go on.
	ErrTrimmed = errors.New("position trimmed")

	// ErrBeyondTail: the position lies above the end of the log, where no reader can have been. A *BeyondTailError says where the end is.
	// What was there was lost (an operator accepted that), or the position is of another log: begin again at the tail, or at a
	// position that you can still read.
	ErrBeyondTail = errors.New("position beyond the end of the log")

	// ErrCorrupt: a replica found that its copy of the entry does not verify and no other replica
	// could serve it. For the operator; reading again may find a repaired copy.
	ErrCorrupt = errors.New("entry corrupt")

	// ErrFragment: the position lies inside an entry larger than a page, behind its first one. A *FragmentError
	// says where the entry begins: read there.
	ErrFragment = errors.New("position inside a larger entry")

	// ErrTooLarge: the payload is longer than MaxPayload. Nothing was done: split it.
	ErrTooLarge = errors.New("payload too large")

	// ErrBatch: the position holds a batch of records. Read it with ReadEntry, a range or Records.
	ErrBatch = errors.New("entry is a batch of records")

	// ErrEmptyBatch: a batch has one record at least. Nothing was done.
	ErrEmptyBatch = errors.New("batch without records")

	// ErrNoBatches: a unit is of a release that does not store batches of records. Nothing was done: have the units upgraded, or
	// append the records one by one.
	ErrNoBatches = errors.New("the cluster does not take batches of records yet")

	// ErrStopped: a Producer stopped when an earlier record failed. This one is not in the log.
	ErrStopped = errors.New("producer stopped")

	// ErrMalformed: the entry verifies, and is not what its header says: whoever wrote it is faulty. A *MalformedError says where to go on.
	ErrMalformed = errors.New("entry malformed")

	// ErrFull: a storage unit has no room for more pages. What is in the log stays readable; trim, and append
	// again. Reading a position that was handed out while the unit was full fails with it, too.
	ErrFull = errors.New("storage unit full")

	// ErrUnknown: the append may have happened. An *UnknownError says where, if a position is known:
	// read it to find out. Appending again may write the payload twice.
	ErrUnknown = errors.New("outcome of the append unknown")

	// ErrUnavailable: no layout server, or not enough of the cluster, answered in time. Nothing is
	// known to be wrong with the request: try again later.
	ErrUnavailable = errors.New("cluster not available")

	// ErrDenied: the cluster does not let this client do that by the certificate that it has. It takes one of role client or admin.
	ErrDenied = errors.New("not allowed")

	// ErrCrowded: a unit or the sequencer serves as many clients as it may, and has done so for a second. The error names the setting.
	// Close other Logs, or raise the setting.
	ErrCrowded = errors.New("no room for another client")

	// ErrClosed: the Log was closed.
	ErrClosed = errors.New("log closed")

	// ErrInvariant: a replica holds an entry that the protocol makes impossible there (rule R2).
	// Something is badly broken: the client stopped where it stood. For the operator.
	ErrInvariant = errors.New("invariant broken")
)

// UnknownError is an append whose outcome could not be found out in time. It is ErrUnknown
// and also whatever cut the search short.
type UnknownError struct {
	Position layout.Position // where the payload stands, if it is in the log
	ID       EntryID         // of the entry that stands there then
	Cause    error

	l     *Log         // nil: Resolve knows no log
	epoch layout.Epoch // of the attempt
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("append at position %d: %v: %v", e.Position, ErrUnknown, e.Cause)
}

// Unwrap gives ErrUnknown and the cause.
func (e *UnknownError) Unwrap() []error { return []error{ErrUnknown, e.Cause} }

// FragmentError is ErrFragment with the position at which the entry is read.
type FragmentError struct {
	Position layout.Position // that was asked for
	First    layout.Position // of the entry
}

func (e *FragmentError) Error() string {
	return fmt.Sprintf("position %d: %v, which begins at %d", e.Position, ErrFragment, e.First)
}

// Unwrap gives ErrFragment.
func (e *FragmentError) Unwrap() error { return ErrFragment }

// errStale: a word or a server is of another epoch than the view. Get the layout and start again.
var errStale = errors.New("of another epoch")

// errTimeout is why a connection on which nothing moved was closed.
var errTimeout = errors.New("no answer from the peer in time")

// sessionError says that a member of the cluster could not be reached. It is transient.
type sessionError struct {
	who string
	err error
}

func (e *sessionError) Error() string { return e.who + ": " + e.err.Error() }
func (e *sessionError) Unwrap() error { return e.err }

// crowdedError says that a member has no room for another client. It is not transient: whether some will be, nobody knows.
type crowdedError struct {
	who string
	err error
}

func (e *crowdedError) Error() string { return fmt.Sprintf("%s: %v: %v", e.who, ErrCrowded, e.err) }

// Unwrap returns ErrCrowded. What the member said decides nothing.
func (e *crowdedError) Unwrap() error { return ErrCrowded }

// transient tells whether a fresh layout and fresh sessions may cure err.
func transient(err error) bool {
	if errors.Is(err, ErrClosed) {
		return false
	}
	// A session that could not be opened in its own time is no deadline of the caller's: his come bare.
	var s *sessionError
	if errors.As(err, &s) {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(err, errStale) || errors.Is(err, rdma.ErrBroken) || errors.Is(err, rdma.ErrRemoteAccess) || errors.Is(err, rdma.ErrClosed)
}

func at(p layout.Position, err error) error { return fmt.Errorf("position %d: %w", p, err) }
