package client

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"corfu/layout"
	"corfu/rdma"
)

func TestWhatIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{errStale, true},
		{&rdma.OpError{Err: rdma.ErrBroken}, true},
		{&rdma.OpError{Err: rdma.ErrRemoteAccess}, true},
		{fmt.Errorf("post: %w", rdma.ErrClosed), true},
		{&sessionError{"unit 1", errors.New("connection refused")}, true},
		{&sessionError{"unit 1", fmt.Errorf("dial: %w", context.DeadlineExceeded)}, true}, // of the dial, not of the caller
		{&sessionError{"unit 1", ErrClosed}, false},
		{fmt.Errorf("post: %w", context.DeadlineExceeded), false},
		{context.Canceled, false},
		{ErrInvariant, false},
		{at(1, ErrCorrupt), false},
		{at(1, ErrUnwritten), false},
	} {
		if got := transient(c.err); got != c.want {
			t.Errorf("%v: tried again: %v, want %v", c.err, got, c.want)
		}
	}
}

// An unknown outcome is known as such, by its position, and by its cause.
func TestUnknownErrorSaysAll(t *testing.T) {
	var err error = fmt.Errorf("append: %w", &UnknownError{Position: 7, Cause: ErrClosed})
	var u *UnknownError
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, ErrClosed) || !errors.As(err, &u) || u.Position != 7 {
		t.Errorf("%v", err)
	}
}

// What an operation waited in vain under one layout, it does not wait again under the next: its members are not open at the moment at
// which clients learn of it, and refuse the first attempt.
func TestBackoffBeginsAnewWithALayout(t *testing.T) {
	r := newRig(t, layout.Memory)
	l := r.open()
	old := l.current()
	b := backoff{n: 8}
	if err := l.retry(r.ctx, old, errStale, &b); err != nil {
		t.Fatal(err)
	}
	if b.n == 0 {
		t.Fatal("the backoff was forgotten while the layout stayed")
	}
	if _, err := r.Reconfigure(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.retry(r.ctx, old, errStale, &b); err != nil {
		t.Fatal(err)
	}
	if !old.retired() || b.n != 0 {
		t.Errorf("retired %v, the next wait is 2^%d ms", old.retired(), b.n)
	}
}
