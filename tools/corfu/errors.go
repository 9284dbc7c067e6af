package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"corfu/client"
	"corfu/internal/clusterstatus"
	"corfu/layout"
)

// Exit statuses.
const (
	exitOK      = 0
	exitRuntime = 1
	exitUsage   = 2
)

// usageError: the request makes no sense; nothing was tried.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// oneLine keeps the promise that an error is one line, whatever a library put into it.
func oneLine(err error) string {
	return goNoise.ReplaceAllString(clusterstatus.Brief(err.Error()), "")
}

// goNoise is what strconv says of a flag that is not a number: it has been said already.
var goNoise = regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": `)

// explain says what is wrong with position p and what the user can do, where the client's error alone does not.
func explain(p layout.Position, err error) error {
	var inside *client.FragmentError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &inside):
		return fmt.Errorf("position %d lies inside the entry that begins at %d: read that (corfu read %d)", p, inside.First, inside.First)
	case errors.Is(err, client.ErrUnknown):
		return err
	case errors.Is(err, client.ErrUnwritten):
		return fmt.Errorf("position %d is not written (corfu tail prints the first free position)", p)
	case errors.Is(err, client.ErrJunk):
		return fmt.Errorf("position %d holds no entry: it was a hole and was filled, or belongs to a larger entry that was never finished", p)
	case errors.Is(err, client.ErrBeyondTail):
		return err
	case errors.Is(err, client.ErrTrimmed):
		return fmt.Errorf("position %d was trimmed", p)
	case errors.Is(err, client.ErrCorrupt):
		return fmt.Errorf("position %d is corrupt at every replica that may serve it: %w", p, err)
	case errors.Is(err, client.ErrMalformed):
		return err
	case errors.Is(err, layout.ErrBeyond):
		return fmt.Errorf("position %d is beyond what this log can hold", p)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("position %d: no answer in time (--timeout allows more): %w", p, err)
	}
	return fmt.Errorf("position %d: %w", p, err)
}

// appendFailed says whether the entry may be in the log: that is what decides about appending it again.
func appendFailed(err error) error {
	var unknown *client.UnknownError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("append: outcome unknown, it may be in the log at position %d: read it before you append again: %w", unknown.Position, err)
	case errors.Is(err, client.ErrUnknown):
		return fmt.Errorf("append: outcome unknown, it may be in the log: read the end of the log before you append again: %w", err)
	}
	return fmt.Errorf("append: nothing was written: %w", err)
}
