package rdma

import (
	"context"
	"errors"
	"fmt"
	"time"
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

// ProviderError says that a member of the cluster speaks another fabric than this process. No connection between the two is possible.
type ProviderError struct{ Theirs, Ours string }

func (e *ProviderError) Error() string {
	return fmt.Sprintf("it speaks fabric %s, and this side %s: give both the same (fabric.provider, --provider)", e.Theirs, e.Ours)
}

// DialError says that no connection to a member came about, and by which address it was tried.
type DialError struct {
	Addr     string
	Provider string
	Took     time.Duration
	Err      error
}

func (e *DialError) Error() string {
	if errors.Is(e.Err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer over the fabric (%s) from %s within %v", e.Provider, e.Addr, e.Took.Round(time.Millisecond))
	}
	return e.Err.Error() // the providers' errors of Dial name the address
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Dial dials a member that told its provider and its address. It fails with a *ProviderError or a *DialError.
func Dial(ctx context.Context, d Device, provider, addr string, private []byte, o ConnOptions) (Conn, error) {
	if ours := d.Info().Provider; provider != ours {
		return nil, &ProviderError{Theirs: provider, Ours: ours}
	}
	began := time.Now()
	c, err := d.Dial(ctx, addr, private, o)
	if err != nil {
		return nil, &DialError{Addr: addr, Provider: provider, Took: time.Since(began), Err: err}
	}
	return c, nil
}
