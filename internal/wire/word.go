package wire

import (
	"fmt"

	"corfu/layout"
)

// WordSize is the size of an index word and of the sequencer's word, in bytes.
const WordSize = 8

// EpochWordSize is what stands in front of the words in an index region: the
// epoch that the unit serves.
const EpochWordSize = 8

// IndexSize is the size of a unit's index region in bytes.
func IndexSize(g layout.Geometry) int { return EpochWordSize + g.Window*WordSize }

// WordOffset is where the word of address a stands in the index region.
func WordOffset(g layout.Geometry, a layout.Address) int { return EpochWordSize + g.Slot(a)*WordSize }

// State is what an index word says of its address.
type State uint8

const (
	Empty       State = iota // may be written in the epoch that is its tag
	Written                  // published by a client; the page lies in the staging slot that its tag names
	Junk                     // filled by a client
	Durable                  // the unit has the page on flash and in the ring
	DurableJunk              // the unit has the junk on flash
	Corrupt                  // what was published or stored does not verify here
	Trimmed                  // given up; the page is gone
)

func (s State) String() string {
	names := [...]string{"EMPTY", "WRITTEN", "JUNK", "DURABLE", "DURABLE_JUNK", "CORRUPT", "TRIMMED"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Terminal states are set by the unit's CPU alone and shadowed in its private memory.
func (s State) Terminal() bool { return s >= Durable && s <= Trimmed }

// Word is an index word. A zero Word is EMPTY of epoch 0, in which nothing is written.
type Word uint64

const (
	stateShift, generationShift = 60, 36
	tagMask                     = 1<<36 - 1
	generationMask              = 1<<24 - 1
)

// MakeWord joins the fields of a word; tag takes its low 36 bits.
func MakeWord(s State, g layout.Generation, tag uint64) Word {
	return Word(uint64(s)<<stateShift | uint64(g&generationMask)<<generationShift | tag&tagMask)
}

// EmptyWord is the word of an address of generation g that may be written in epoch e.
func EmptyWord(g layout.Generation, e layout.Epoch) Word { return MakeWord(Empty, g, uint64(e)) }

// State of the word.
func (w Word) State() State { return State(w >> stateShift) }

// Generation of the word: with its place in the index it names the address.
func (w Word) Generation() layout.Generation {
	return layout.Generation(w >> generationShift & generationMask)
}

// Tag of the word; what it means depends on the state.
func (w Word) Tag() uint64 { return uint64(w & tagMask) }

// With is the word in another state, its tag kept: the tag of a DURABLE word tells
// the writer that it was its own.
func (w Word) With(s State) Word { return MakeWord(s, w.Generation(), w.Tag()) }

// Epoch of an EMPTY word.
func (w Word) Epoch() layout.Epoch { return layout.Epoch(w.Tag()) }

func (w Word) String() string {
	switch w.State() {
	case Empty:
		return fmt.Sprintf("%v(gen %d, epoch %d)", w.State(), w.Generation(), w.Epoch())
	default:
		return fmt.Sprintf("%v(gen %d, %v)", w.State(), w.Generation(), TagUse(w.Tag()))
	}
}

// StagingSlot is the number of a page slot in a unit's staging block; below 2^24.
type StagingSlot uint32

// MaxStagingSlots bounds the slots of a unit.
const MaxStagingSlots = 1 << 24

// Use is the tag of WRITTEN (a staging slot and how often it was used) and of JUNK
// (the first slot of the filler's session and a count). The count wraps at 4096: an
// equal tag is a strong hint, the attempt id decides.
type Use struct {
	Slot  StagingSlot
	Count uint16 // 12 bits
}

// Tag packs the use for a word.
func (u Use) Tag() uint64 { return uint64(u.Slot)&(MaxStagingSlots-1)<<12 | uint64(u.Count&0xfff) }

// TagUse unpacks what Tag packed.
func TagUse(tag uint64) Use {
	return Use{StagingSlot(tag >> 12 & (MaxStagingSlots - 1)), uint16(tag & 0xfff)}
}

func (u Use) String() string { return fmt.Sprintf("slot %d use %d", u.Slot, u.Count) }

// SeqWord is the sequencer's word: the low 16 bits of its epoch and the next position.
type SeqWord uint64

// MakeSeqWord joins the fields.
func MakeSeqWord(e layout.Epoch, next layout.Position) SeqWord {
	return SeqWord(uint64(e)<<48 | uint64(next)&uint64(layout.MaxPosition))
}

// Next position to be handed out.
func (w SeqWord) Next() layout.Position { return layout.Position(w) & layout.MaxPosition }

// Of tells whether the word is of epoch e, as far as 16 bits can tell.
func (w SeqWord) Of(e layout.Epoch) bool { return uint16(w>>48) == uint16(e) }
