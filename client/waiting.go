package client

import (
	"context"
	"errors"
	"fmt"
)

// waiting adds to the end of a caller's context what was waited for. Other errors say so
// themselves, and are returned unchanged.
func waiting(err error, format string, args ...any) error {
	var s *sessionError
	var w *waitError
	if err == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) || errors.As(err, &s) || errors.As(err, &w) {
		return err
	}
	return &waitError{fmt.Sprintf(format, args...), err}
}

// waitError is the end of a context while something was waited for.
type waitError struct {
	what string
	err  error
}

func (e *waitError) Error() string { return "waiting for " + e.what + ": " + e.err.Error() }
func (e *waitError) Unwrap() error { return e.err }
