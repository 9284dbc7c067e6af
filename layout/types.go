package layout

import (
	"encoding/hex"
	"fmt"
)

// Position is an index in the shared log, below MaxPosition.
type Position uint64

// MaxPosition bounds positions: the sequencer's word has 48 bits for the next one.
const MaxPosition Position = 1<<48 - 1

// Address is a page number inside one unit.
type Address uint64

// Epoch is the version of a layout. 0 is the epoch before the first layout: it has no members.
type Epoch uint64

// MaxEpoch bounds epochs: an EMPTY index word has 36 bits for its epoch.
const MaxEpoch Epoch = 1<<36 - 1

// UnitID names a storage unit, for ever; 0 is none.
type UnitID uint32

// SequencerID names a sequencer; 0 is none.
type SequencerID uint32

// ClientID is handed out once by the layout service, up to MaxClient; 0 is none. It is the upper half of every
// attempt id of the client that holds it.
type ClientID uint32

// Attempt identifies one attempt to write an entry (wire.MakeAttempt makes it). Two copies are the same entry when
// their attempts are equal. 0 is none: junk has it.
type Attempt uint64

// LogID tells one log from another, so that no unit serves pages of a log it was not made for.
type LogID [16]byte

func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether the id is unset.
func (id LogID) IsZero() bool { return id == LogID{} }

// ParseLogID reads the 32 hexadecimal digits that String writes.
func ParseLogID(s string) (LogID, error) {
	var id LogID
	// The length first: hex.Decode panics if there is more than id has room for.
	if len(s) == 2*len(id) {
		if _, err := hex.Decode(id[:], []byte(s)); err == nil {
			return id, nil
		}
	}
	return LogID{}, fmt.Errorf("log id %q is not 32 hexadecimal digits", s)
}

// Durability says when an append is acknowledged.
type Durability uint8

const (
	// Flash: when every replica has the page on flash (rule R3). The default.
	Flash Durability = iota
	// Memory: when every replica has it in memory. Only for machines whose memory
	// survives a power cut (battery, NVDIMM-N).
	Memory
)

func (d Durability) String() string {
	switch d {
	case Flash:
		return "flash"
	case Memory:
		return "memory"
	}
	return fmt.Sprintf("Durability(%d)", uint8(d))
}

// ParseDurability reads what String writes.
func ParseDurability(s string) (Durability, error) {
	switch s {
	case "flash":
		return Flash, nil
	case "memory":
		return Memory, nil
	}
	return 0, fmt.Errorf("durability %q: must be flash or memory", s)
}

// Geometry are the sizes that all units and clients of a log share. They are fixed when the log is made, but for MaxSessions, which an epoch
// may change (Change.MaxSessions).
type Geometry struct {
	PageSize     int // bytes, header included; a power of two, 4096 to 65536
	Window       int // pages whose words and bytes are in registered memory; a power of two, 64 to 1<<24
	SessionSlots int // staging slots of one session; 1 to 4096
	MaxSessions  int // sessions that would have all their slots; 1 to 4096. Staging takes SessionSlots × MaxSessions × PageSize bytes. Beyond half of them units give fewer slots to each, and serve many more
}

// DefaultGeometry takes about 62 MiB of memory for each unit, which serves more than 3000 clients at once.
func DefaultGeometry() Geometry {
	return Geometry{PageSize: 4096, Window: 4096, SessionSlots: 64, MaxSessions: 128}
}

// HeaderSize is the size of a page's header in bytes (wire draws it).
const HeaderSize = 64

// MaxPayload is the longest payload of one page, in bytes.
func (g Geometry) MaxPayload() int { return g.PageSize - HeaderSize }

// OpenPages is how many of the window's addresses are open for writing: a quarter.
// The rest is the read cache.
func (g Geometry) OpenPages() int { return g.Window / 4 }

// Slot is the place of a in the ring, the index and their shadows.
func (g Geometry) Slot(a Address) int { return int(uint64(a) & uint64(g.Window-1)) }

// Generation counts how often the window has passed over a's slot before a.
func (g Geometry) Generation(a Address) Generation { return Generation(uint64(a) / uint64(g.Window)) }

// MaxAddress is the last address a unit can hold: a generation has 24 bits.
func (g Geometry) MaxAddress() Address {
	return Address(uint64(MaxGeneration+1)*uint64(g.Window) - 1)
}

// maxStagingSlots is how many staging slots a unit may have: the tag of an index word names one by 24 bits, of which the last value means
// that the slot is not known.
const maxStagingSlots = 1<<24 - 1

// Follows reports whether an epoch may have the geometry where the one before has old: it differs in MaxSessions at most. All other sizes
// say where an address stands in a unit's memory and on its flash. Staging holds nothing when an epoch begins: what was published is taken
// in before the seal is answered (rule R15).
func (g Geometry) Follows(old Geometry) bool {
	old.MaxSessions = g.MaxSessions
	return g == old
}

// WithSessions returns the geometry with another MaxSessions. It fails if that is out of range, or if no index word could name the last
// of the staging slots.
func (g Geometry) WithSessions(n int) (Geometry, error) {
	g.MaxSessions = n
	if err := g.Validate(); err != nil {
		return g, err
	}
	if slots := g.SessionSlots * n; slots > maxStagingSlots {
		return g, fmt.Errorf("max sessions is %d: with %d slots for each session that makes %d staging slots, and an index word can name %d: must be at most %d",
			n, g.SessionSlots, slots, maxStagingSlots, maxStagingSlots/g.SessionSlots)
	}
	return g, nil
}

// Generation is a / Window.
type Generation uint32

// MaxGeneration is the largest generation that an index word can hold.
const MaxGeneration Generation = 1<<24 - 1

// Validate reports every bad field.
func (g Geometry) Validate() error {
	var p problems
	p.powerOfTwo("page size", g.PageSize, 4096, 65536)
	p.powerOfTwo("window", g.Window, 64, 1<<24)
	p.within("session slots", g.SessionSlots, 1, 4096)
	p.within("max sessions", g.MaxSessions, 1, 4096)
	return p.err()
}
