// Package sleep is time.Sleep for those whom a context may wake.
package sleep

import (
	"context"
	"fmt"
	"time"
)

// For waits for d, or until ctx ends: then it gives ctx's error, and its cause if that is another. It does not wait if d is 0 or less.
func For(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
		}
	}
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
