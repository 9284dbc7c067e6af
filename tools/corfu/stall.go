package main

import (
	"context"
	"fmt"
	"time"
)

// stalled gives a context that ends when progress was not called for limit: a long
// transfer may take as long as it needs, but not stand still.
func stalled(ctx context.Context, limit time.Duration) (_ context.Context, progress, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("no answer for %v (--timeout): %w", limit, context.DeadlineExceeded))
	})
	return ctx, func() { timer.Reset(limit) }, func() { timer.Stop(); cancel(nil) }
}

// cause prefers why ctx ended to what a call made of it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
