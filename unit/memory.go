package unit

import (
	"corfu/internal/wire"
	"corfu/layout"
)

// Memory is the registered memory of a unit, as its CPU sees it. Index slots and
// ring slots are numbered by layout.Geometry.Slot.
type Memory interface {
	// LoadWord reads an index word, atomically.
	LoadWord(slot int) wire.Word
	// StoreWord writes an index word. Rule R1 says when that is allowed.
	StoreWord(slot int, w wire.Word)
	// LoadEpoch reads the epoch word in front of the index, atomically.
	LoadEpoch() layout.Epoch
	// StoreEpoch writes the epoch word in front of the index.
	StoreEpoch(e layout.Epoch)
	// Ring is the whole ring: Window pages. Peers read it.
	Ring() []byte
	// Staging is the page slot that a word names; clients write it at any time.
	Staging(s wire.StagingSlot) []byte
}

// Session names a client's session for as long as the process lives; 0 is none.
type Session uint32

// Record is a page for flash.
type Record struct {
	Address layout.Address
	Bytes   []byte // PageSize bytes
	Failed  bool   // set by the writer: not known to be on flash
}
