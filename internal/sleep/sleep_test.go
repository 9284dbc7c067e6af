package sleep

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	tired := errors.New("tired")
	for _, x := range []struct {
		name        string
		d, ends     time.Duration // ends 0: before
		cause       error
		took        time.Duration
		err, causes error
	}{
		{"it sleeps", time.Second, time.Minute, nil, time.Second, nil, nil},
		{"it is woken", time.Minute, time.Second, nil, time.Second, context.Canceled, context.Canceled},
		{"it is told why", time.Minute, time.Second, tired, time.Second, context.Canceled, tired},
		{"over before", time.Minute, 0, nil, 0, context.Canceled, context.Canceled},
		{"nothing to wait for", 0, time.Minute, nil, 0, nil, nil},
		{"less than nothing", -time.Second, time.Minute, nil, 0, nil, nil},
		{"nothing to wait for, and over", 0, 0, nil, 0, context.Canceled, context.Canceled},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if x.ends == 0 {
					cancel(x.cause)
				} else {
					defer time.AfterFunc(x.ends, func() { cancel(x.cause) }).Stop()
				}
				began := time.Now()
				err := For(ctx, x.d)
				if took := time.Since(began); took != x.took || !errors.Is(err, x.err) || !errors.Is(err, x.causes) || (err == nil) != (x.err == nil) {
					t.Errorf("%v after %v; want %v, %v after %v", err, took, x.err, x.causes, x.took)
				}
			})
		})
	}
}
