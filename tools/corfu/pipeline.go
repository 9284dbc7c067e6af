package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"corfu/client"
	"corfu/layout"
)

// answer is what became of one append.
type answer struct {
	at  layout.Position
	err error
}

// inFlight bounds the answers that wait for an earlier one.
const inFlight = 1024

// pipeline appends the entries of src with many outstanding and hands their
// positions to done in the order of the entries. It stops at the first error of
// anyone; every entry before that one was acknowledged and handed to done.
// stall bounds how long it waits for one answer.
func pipeline(ctx context.Context, l *client.Log, stall time.Duration, src source, done func(entry int, p layout.Position) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan chan answer, inFlight)
	var readErr error // of src or of AppendAsync; read after queue is closed
	go func() {
		defer close(queue)
		readErr = feed(ctx, l, src, queue)
	}()
	timer := time.NewTimer(stall)
	defer timer.Stop()
	entry := 0
	for slot := range queue {
		timer.Reset(stall)
		var a answer
		select {
		case a = <-slot:
		case <-timer.C:
			return fmt.Errorf("append: no answer for %v (--timeout), the outcome of this entry and of those behind it is unknown", stall)
		case <-ctx.Done():
			return fmt.Errorf("append: interrupted, the outcome of this entry and of those behind it is unknown: %w", context.Cause(ctx))
		}
		if a.err != nil {
			return appendFailed(a.err)
		}
		if err := done(entry, a.at); err != nil {
			return err
		}
		entry++
	}
	return readErr
}

// feed starts the appends.
func feed(ctx context.Context, l *client.Log, src source, queue chan<- chan answer) error {
	for {
		payload, err := src.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		slot := make(chan answer, 1)
		select {
		case queue <- slot:
		case <-ctx.Done():
			return ctx.Err()
		}
		err = l.AppendAsync(ctx, payload, func(p layout.Position, err error) { slot <- answer{p, err} })
		if err != nil {
			slot <- answer{err: err}
			return nil
		}
	}
}
