// Package seq is the sequencer's state machine: which epoch it serves, which it has promised, and what its word must look like.
// It is pure: no clock, goroutine, lock, network, file or cgo. seq/server puts the word into registered memory, where clients
// take positions by RDMA FETCH_ADD without this package being asked.
//
//	closed ──seal(n > promise)──► sealed(n) ──activate(n, start)──► open(n)
//	                                  ▲                                │
//	                                  └──────seal(m > n)───────────────┘
//
// A sequencer that restarts is closed: it cannot know which positions it had handed out, so a tail that it
// answered in the same epoch could go back (rule R12). It serves again in a higher epoch (rule R19 says the same of units).
package seq

import (
	"errors"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
)

// Phase of a sequencer.
type Phase uint8

// The phases.
const (
	Closed Phase = iota
	Sealed
	Open
)

func (p Phase) String() string {
	switch p {
	case Closed:
		return "closed"
	case Sealed:
		return "sealed"
	case Open:
		return "open"
	}
	return fmt.Sprintf("Phase(%d)", uint8(p))
}

// Reserve is how many positions must be left when an epoch starts, and half of it at any time: a FETCH_ADD that carried out of the
// 48 bits of the position would change the epoch in the word. At 100 million tokens a second, half of it lasts 5 hours after
// the sequencer should have stopped.
const Reserve = 1 << 42

// LastStart is the last position with which an epoch may start.
const LastStart = layout.MaxPosition - Reserve

var (
	// ErrPromised: the sequencer promised a higher epoch, or this one and has been opened or restarted since. [PromiseError] has the
	// promise: seal a higher epoch.
	ErrPromised = errors.New("the epoch is not above the sequencer's promise")
	// ErrNotSealed: the sequencer is not sealed at the epoch that is to be activated. Start a new reconfiguration.
	ErrNotSealed = errors.New("the sequencer is not sealed at that epoch")
	// ErrExhausted: the log has no positions left to hand out.
	ErrExhausted = errors.New("the log is out of positions")
	// ErrTampered: the word is not what FETCH_ADDs can have made of it. Stop serving it.
	ErrTampered = errors.New("the sequencer's word was tampered with")
	// ErrNotServing: the sequencer does not serve that epoch of that log. Get the layout.
	ErrNotServing = errors.New("the sequencer does not serve that epoch")
)

// PromiseError is an ErrPromised with the epoch to go beyond.
type PromiseError struct{ Promise layout.Epoch }

func (e *PromiseError) Error() string { return fmt.Sprintf("%v: %d", ErrPromised, e.Promise) }

func (e *PromiseError) Unwrap() error { return ErrPromised }

// Sequencer is the state. Its owner calls it from one goroutine at a time.
type Sequencer struct {
	phase   Phase
	promise layout.Epoch // never goes down; durable at the server before a seal is answered (rule R14)
	log     layout.LogID // while open
	start   layout.Position
	seen    layout.Position // in the word when it was looked at last; it never goes down within an epoch
}

// New is a sequencer that was just started, with the promise that it kept; 0 for none.
func New(promise layout.Epoch) *Sequencer { return &Sequencer{promise: promise} }

// Phase it is in.
func (s *Sequencer) Phase() Phase { return s.phase }

// Promise is the highest epoch it was sealed for.
func (s *Sequencer) Promise() layout.Epoch { return s.promise }

// Start is the first position of the epoch that is open.
func (s *Sequencer) Start() layout.Position { return s.start }

// CheckSeal tells whether Seal(n) is allowed, before the caller makes the promise durable. fresh is false when the sequencer is
// sealed at n already: nothing is left to do then. It fails with ErrInvalid or a *PromiseError.
func (s *Sequencer) CheckSeal(n layout.Epoch) (fresh bool, err error) {
	if n == 0 || n > layout.MaxEpoch {
		return false, fmt.Errorf("seal epoch %d: %w", n, layout.ErrInvalid)
	}
	if n == s.promise && s.phase == Sealed {
		return false, nil
	}
	if n <= s.promise {
		return false, &PromiseError{s.promise}
	}
	return true, nil
}

// Seal promises epoch n, which CheckSeal allowed: no epoch below it is served from now on. The caller has made the promise durable, and
// revokes the word before it answers.
func (s *Sequencer) Seal(n layout.Epoch) error {
	fresh, err := s.CheckSeal(n)
	if err == nil && fresh {
		*s = Sequencer{phase: Sealed, promise: n}
	}
	return err
}

// Activate opens epoch n of the log from start on and gives the word to publish. fresh is false when that is so already: the
// word must not be touched then. It fails with ErrInvalid, ErrNotSealed or ErrExhausted.
func (s *Sequencer) Activate(log layout.LogID, n layout.Epoch, start layout.Position) (w wire.SeqWord, fresh bool, err error) {
	switch {
	case log.IsZero():
		return 0, false, fmt.Errorf("activate without a log id: %w", layout.ErrInvalid)
	case s.phase == Open && s.promise == n && s.log == log && s.start == start:
		return 0, false, nil
	case s.phase != Sealed || s.promise != n:
		return 0, false, fmt.Errorf("activate epoch %d: %w: it is %v at %d", n, ErrNotSealed, s.phase, s.promise)
	case start > LastStart:
		return 0, false, fmt.Errorf("start at %d: %w", start, ErrExhausted)
	}
	s.phase, s.log, s.start, s.seen = Open, log, start, start
	return wire.MakeSeqWord(n, start), true, nil
}

// Close ends service until a higher epoch is sealed and activated.
func (s *Sequencer) Close() { *s = Sequencer{promise: s.promise} }

// Serves fails with ErrNotServing unless epoch e of the log is open.
func (s *Sequencer) Serves(log layout.LogID, e layout.Epoch) error {
	if s.phase != Open || s.promise != e || s.log != log {
		return fmt.Errorf("epoch %d of log %v: %w: it is %v at %d", e, log, ErrNotServing, s.phase, s.promise)
	}
	return nil
}

// MaxAdvance is how many positions may be handed out between two looks at the word. The owner looks ten times a second, and no
// NIC executes 40 thousand million atomics a second on a word: more of them are one FETCH_ADD that takes the window out of
// everybody's reach.
const MaxAdvance = 1 << 32

// Inspect looks at the word of the open epoch and tells how many positions were handed out. The word stays in its epoch, never goes down, and goes
// up by at most MaxAdvance between two looks. Inspect fails with ErrTampered or ErrExhausted: the caller revokes the word then, and closes.
func (s *Sequencer) Inspect(w wire.SeqWord) (tokens uint64, err error) {
	next := w.Next()
	if !w.Of(s.promise) || next < s.seen || next-s.seen > MaxAdvance {
		return 0, fmt.Errorf("word %#016x in epoch %d, which started at %d and had come to %d: %w", uint64(w), s.promise, s.start, s.seen, ErrTampered)
	}
	s.seen = next
	if next > layout.MaxPosition-Reserve/2 {
		err = fmt.Errorf("next position %d: %w", next, ErrExhausted)
	}
	return uint64(next - s.start), err
}
