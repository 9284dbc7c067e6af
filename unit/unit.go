package unit

import (
	"corfu/internal/wire"
	"corfu/layout"
)

// stage is how far an address of the window has come.
type stage uint8

const (
	free    stage = iota // EMPTY, as far as the unit has seen
	waiting              // ingested, to be flushed
	writing              // in the batch in flight
	settled              // terminal, and on flash
)

// cell is what the unit privately knows of one slot of the window.
type cell struct {
	shadow wire.Word  // what the CPU stored last; what the word must be while the stage is settled
	seen   wire.Word  // as it was ingested, from waiting on
	goal   wire.State // once flushed
	stage  stage
	ringer Session // first session that wants an ack; more of them are in Unit.ringers

	arrival uint64 // its number among all that became waiting
}

// Unit is the core of a storage unit. See the package comment. Not safe for concurrent use.
type Unit struct {
	control

	lay *layout.Layout // maps addresses to positions; nil until the first reconcile
	geo layout.Geometry
	mem Memory // nil until a geometry is known

	outdated bool   // flash has changed below the window: Load must follow
	counted  uint64 // what Durable was when it began to change

	cells     []cell
	base      layout.Address // first address of the window
	watermark layout.Address // rule R3: all addresses below are settled
	end       layout.Address // first above all entries seen
	top       layout.Address // first above all settled entries
	moves     uint64         // see Moves
	trimmed   layout.Address // all below were given up; durable before it is set here

	limit    layout.Address   // no word at or above is made EMPTY: flash has no room for its page yet
	room     Room             // why limit is where it is
	ready    []layout.Address // stage waiting, in the order of arrival
	trims    []Trim           // to be flushed
	noted    notes            // what was trimmed in this epoch
	flying   []*Batch         // on their way to flash
	refused  refused          // that flash did not take
	idle     []*Batch         // to be used again
	arrivals uint64           // addresses that ever became waiting

	ringers map[layout.Address][]Session // sessions beyond the first
	owners  []Session                    // by staging slot
	ending  []ending

	cursor layout.Address // where the next Scan goes on with the rest

	bad     map[layout.Address]struct{} // CORRUPT here, as far as is known; up to MaxCorrupt
	badMore bool                        // there were more
	beyond  uint64                      // how often there was no room for one
	doubt   bool                        // pages above end could not be read; until the unit is opened, and what stood there decided
	repair  repair

	out   Output
	stats Stats
}

// ending is a session whose slots are not free yet.
type ending struct {
	slice Slice
	after uint64 // free once all that arrived before are on flash
}

// Output is what the unit wants done. The server takes it after every call.
type Output struct {
	Acks    []Ack
	Replies []Reply
	Freed   []Slice // whose staging slots may be handed out again (rule R6)
	Alarms  []Alarm // the first few of what ought not to happen; Stats counts all
}

// Ack goes to one session.
type Ack struct {
	To  Session
	Ack wire.Ack
}

// Reply goes to one session.
type Reply struct {
	To    Session
	Reply wire.Reply
}

// Alarm is something that a correct client or a sound memory does not do.
type Alarm struct {
	What    string // "tampering", "corrupt" or "damaged"
	Address layout.Address
	Found   wire.Word
	Shadow  wire.Word // what the unit had stored
	Err     error     // why a page was refused
}

const maxAlarms = 16

// Stats counts since the start.
type Stats struct {
	Doorbells, DoorbellsIgnored uint64
	Pages, Junk, Corrupt        uint64 // ingested
	Tampered                    uint64
	Steps                       uint64 // of the window
	Trimmed                     uint64
	Damaged, Repaired           uint64 // copies found CORRUPT after they were durable, and written anew
	Torn                        uint64 // pages on flash that were no whole pages at the last start
}

// View is where the unit stands.
type View struct {
	Phase      Phase
	Epoch      layout.Epoch // sealed at or open in
	Promise    layout.Epoch
	Intact     layout.Epoch
	Reconciled bool
	Log        layout.LogID
	Geometry   layout.Geometry // zero until known

	// Outdated: flash has changed below the window. Base, Watermark and End are 0 until Load.
	Outdated                           bool
	Base, Watermark, End, TrimmedBelow layout.Address

	Waiting int  // addresses ingested and not on flash
	Queued  int  // of them, those that are not on their way to flash
	Urgent  bool // clients wait for them: appends under flash durability, trims, ends of sessions
	Held    bool // the page at the watermark is one of them: nothing above it is settled before flash takes it

	Corrupt int // addresses whose copy here is known to be CORRUPT; MaxCorrupt: there may be more

	Limit   layout.Address // of SetLimit
	AtLimit bool           // the window would move on, and flash has no room yet
}

// New makes the core of a unit as its meta file describes it: closed, not intact (rule R19).
// A unit that never was part of a log has only an id.
func New(id layout.UnitID, log layout.LogID, promise layout.Epoch) *Unit {
	return &Unit{
		control: control{id: id, log: log, promise: promise},
		ringers: make(map[layout.Address][]Session),
		bad:     make(map[layout.Address]struct{}),
		limit:   NoLimit,
	}
}

// View tells where the unit stands.
func (u *Unit) View() View {
	v := View{
		Phase: u.phase, Epoch: u.epoch, Promise: u.promise, Intact: u.intact,
		Reconciled: u.phase == Sealed && u.reconciled == u.promise && u.promise != 0,
		Log:        u.log, Geometry: u.geo, Outdated: u.outdated, TrimmedBelow: u.trimmed,
		Waiting: u.waiting(), Queued: len(u.ready), Limit: u.limit, AtLimit: u.atLimit(), Corrupt: len(u.bad),
		Urgent: len(u.trims)+len(u.ending) > 0 || (len(u.ready) > 0 && !u.Lazy()),
	}
	if !u.outdated {
		v.Base, v.Watermark, v.End = u.base, min(u.watermark, u.end), u.end
		if u.mem != nil && u.inWindow(u.watermark) {
			at := u.cell(u.watermark).stage
			v.Held = at == waiting || at == writing
		}
	}
	return v
}

// Durable counts the addresses of the unit below the watermark, and those above it that hold something durably (rule R23). It does not go
// down while the unit keeps what its store has, and a restart finds it again. Before Load it is what was there before flash changed below
// the window. Addresses that are not the unit's do not count: an attempt that came to nothing may have left the unit with a layout by which
// they are, and with holes among them, so that an honest store would look like an old copy.
func (u *Unit) Durable() uint64 {
	switch {
	case u.outdated:
		return u.counted
	case u.mem == nil:
		return uint64(u.watermark)
	}
	n := u.lay.MappedBelow(u.id, u.watermark)
	for a := max(u.watermark, u.base); a < u.base+u.window(); a++ {
		if u.cell(a).stage == settled && u.mapped(a) {
			n++
		}
	}
	return n
}

// Stats gives the counters.
func (u *Unit) Stats() Stats { return u.stats }

// Output gives what is to be done; the caller empties it with Reset.
func (u *Unit) Output() *Output { return &u.out }

// Reset empties the output, keeping its memory.
func (o *Output) Reset() {
	o.Acks, o.Replies, o.Freed, o.Alarms = o.Acks[:0], o.Replies[:0], o.Freed[:0], o.Alarms[:0]
}

// Empty tells whether there is nothing to do.
func (o *Output) Empty() bool {
	return len(o.Acks)+len(o.Replies)+len(o.Freed)+len(o.Alarms) == 0
}

func (u *Unit) alarm(a Alarm) {
	if len(u.out.Alarms) < maxAlarms {
		u.out.Alarms = append(u.out.Alarms, a)
	}
}

// cell is that of an address in the window.
func (u *Unit) cell(a layout.Address) *cell { return &u.cells[u.geo.Slot(a)] }

func (u *Unit) window() layout.Address { return layout.Address(u.geo.Window) }

// inWindow tells whether the word of a is a's own.
func (u *Unit) inWindow(a layout.Address) bool { return a >= u.base && a-u.base < u.window() }

func (u *Unit) word(a layout.Address) wire.Word { return u.mem.LoadWord(u.geo.Slot(a)) }

// store is the CPU's only way to a word, so that the shadow knows.
func (u *Unit) store(a layout.Address, w wire.Word) {
	slot := u.geo.Slot(a)
	u.cells[slot].shadow = w
	u.mem.StoreWord(slot, w)
}

// ringPage is the ring slot of a. Its capacity reaches beyond, so that the store can join neighbours.
func (u *Unit) ringPage(a layout.Address) []byte {
	n := u.geo.PageSize
	i := u.geo.Slot(a) * n
	return u.mem.Ring()[i : i+n]
}

// Slice is a run of staging slots that one session owns.
type Slice struct{ First, Slots int }

// SetSession notes which session owns a slice of staging; s is 0 for none.
func (u *Unit) SetSession(x Slice, s Session) {
	for i := range x.Slots {
		u.owners[x.First+i] = s
	}
}

// EndSession takes in all that a session has published; its connections must be
// closed. Output.Freed names its slice once that is on flash: until then readers
// and helpers may still look for pages in its slots (rule R6).
func (u *Unit) EndSession(x Slice) {
	u.SetSession(x, 0)
	if u.phase == Open {
		u.ScanAll()
	}
	u.ending = append(u.ending, ending{x, u.arrivals})
	u.release()
}

func (u *Unit) release() {
	if len(u.ending) == 0 {
		return
	}
	oldest := u.oldest()
	kept := u.ending[:0]
	for _, e := range u.ending {
		if oldest >= e.after {
			u.out.Freed = append(u.out.Freed, e.slice)
		} else {
			kept = append(kept, e)
		}
	}
	u.ending = kept
}
