package rdma

import (
	"errors"
	"fmt"
)

// What can go wrong. Test with errors.Is; operations fail with an *OpError that wraps one of these.
var (
	// ErrInvalid: the request cannot be posted as it is (bounds, alignment, size). Nothing was done.
	ErrInvalid = errors.New("invalid request")

	// ErrRemoteAccess: the peer refused the operation (unknown or revoked key,
	// bounds, rights). It had no effect; the ones before it took effect, those after
	// it did not. The connection is broken. A revoked key usually means a seal: get
	// the layout, then dial anew.
	ErrRemoteAccess = errors.New("refused by the peer: key, bounds or rights")

	// ErrBroken: the connection broke with the operation in flight. Its outcome is
	// unknown: find out by reading.
	ErrBroken = errors.New("connection broken, outcome unknown")

	// ErrClosed: the connection, listener or device was closed or broken before
	// the request was posted. Nothing was done.
	ErrClosed = errors.New("closed")

	// ErrRejected: the peer's listener refused the connection. [RejectError] has its reason.
	ErrRejected = errors.New("connection rejected by the peer")

	// ErrUnavailable: the provider cannot work on this machine. The message says why.
	ErrUnavailable = errors.New("provider not available")
)

// OpError says which operation of a batch failed.
type OpError struct {
	Index  int    // of the failed operation
	Kind   Kind   // of the failed operation
	Err    error  // ErrRemoteAccess or ErrBroken
	Detail string // the provider's word, such as "IBV_WC_REM_ACCESS_ERR"
}

func (e *OpError) Error() string {
	return fmt.Sprintf("rdma: %s (operation %d of the list): %v: %s", e.Kind, e.Index, e.Err, e.Detail)
}

func (e *OpError) Unwrap() error { return e.Err }

// RejectError carries the reason that a listener gave for a refusal.
type RejectError struct{ Reason string }

func (e *RejectError) Error() string { return fmt.Sprintf("rdma: %v: %s", ErrRejected, e.Reason) }

func (e *RejectError) Unwrap() error { return ErrRejected }
