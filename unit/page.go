package unit

import (
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
)

// Classify tells from a page on flash what its address holds: DURABLE,
// DURABLE_JUNK, CORRUPT, TRIMMED, or EMPTY for one that is not a whole page of position p of
// this log: never written, torn, or of another address, which a disk in error gives. The caller knows whether
// it can be torn: below the watermark it cannot, and the page is damaged.
func Classify(page []byte, log layout.LogID, p layout.Position) (wire.State, wire.Header) {
	h, err := wire.VerifyPage(page, log, p)
	if err != nil {
		return wire.Empty, wire.Header{}
	}
	switch h.Flags.Kind() {
	case wire.FlagJunk:
		return wire.DurableJunk, h
	case wire.FlagTrimmed:
		return wire.Trimmed, h
	case wire.FlagCorrupt:
		return wire.Corrupt, h
	}
	return wire.Durable, h
}

// Mark makes page the mark of a state without an entry: DURABLE_JUNK, CORRUPT or
// TRIMMED. It panics on another state.
func Mark(page []byte, s wire.State, log layout.LogID, p layout.Position, e layout.Epoch) {
	var flag wire.PageFlags
	switch s {
	case wire.DurableJunk:
		flag = wire.FlagJunk
	case wire.Corrupt:
		flag = wire.FlagCorrupt
	case wire.Trimmed:
		flag = wire.FlagTrimmed
	default:
		panic("unit: no mark for state " + s.String())
	}
	n := wire.SealPage(page, wire.Header{Flags: flag, Log: log, Position: p, Epoch: e})
	clear(page[n:])
}

// Entry is what a member of a chain holds at an address, as the reconciler sends it.
type Entry struct {
	Address layout.Address
	State   wire.State
	Attempt wire.Attempt
	Page    []byte // header and payload, for WRITTEN and DURABLE
}

// Merge decides what reconciling does with an entry where the unit holds have, a whole page on flash.
// With put, out (a whole page) was filled in and must be written. It fails with ErrBadEntry or ErrConflict.
//
// Trimmed wins over everything, and everything wins over CORRUPT, which is not an
// entry but the lack of one. Else what is there stays (rule R17).
func Merge(in Entry, have, out []byte, log layout.LogID, p layout.Position, e layout.Epoch) (put bool, err error) {
	held, h := Classify(have, log, p)
	state := durable(in.State)
	if state == wire.Empty {
		return false, fmt.Errorf("unit: address %d: state %v: %w", in.Address, in.State, ErrBadEntry)
	}
	switch {
	case held == wire.Trimmed, held == state && state != wire.Durable:
		return false, nil
	case state == wire.Trimmed:
	case held == wire.Empty, held == wire.Corrupt:
	case state == wire.Corrupt:
		return false, nil
	case held != state || h.Attempt != in.Attempt:
		return false, fmt.Errorf("unit: address %d: holds %v attempt %#x, offered %v attempt %#x: %w",
			in.Address, held, h.Attempt, state, in.Attempt, ErrConflict)
	default:
		return false, nil
	}
	if state != wire.Durable {
		Mark(out, state, log, p, e)
		return true, nil
	}
	return true, mergePage(in, out, log, p)
}

func mergePage(in Entry, out []byte, log layout.LogID, p layout.Position) error {
	if len(in.Page) > len(out) {
		return fmt.Errorf("unit: address %d: page of %d bytes: %w", in.Address, len(in.Page), ErrBadEntry)
	}
	n := copy(out, in.Page)
	clear(out[n:])
	h, err := wire.VerifyPage(out, log, p)
	switch {
	case err != nil:
		return fmt.Errorf("unit: address %d: %w: %w", in.Address, ErrBadEntry, err)
	case h.Flags.Kind() != wire.FlagData || h.Attempt != in.Attempt:
		return fmt.Errorf("unit: address %d: the page is of attempt %#x, not %#x: %w", in.Address, h.Attempt, in.Attempt, ErrBadEntry)
	}
	clear(out[wire.HeaderSize+h.Length:])
	return nil
}

// durable is the state that an entry has once it is on flash.
func durable(s wire.State) wire.State {
	switch s {
	case wire.Written, wire.Durable:
		return wire.Durable
	case wire.Junk, wire.DurableJunk:
		return wire.DurableJunk
	case wire.Corrupt, wire.Trimmed:
		return s
	}
	return wire.Empty
}
