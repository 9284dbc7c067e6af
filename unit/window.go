package unit

import (
	"errors"
	"fmt"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
)

// Source is what is on flash.
type Source interface {
	// Scan calls fn with every page at from … to−1 that may hold something, in order; the page is valid during the call. Pages
	// never written may be left out, or are zero. One that the disk cannot read is nil. It ends with fn's error.
	Scan(from, to layout.Address, fn func(a layout.Address, page []byte) error) error
}

// NoLimit as the limit: flash has room for every address.
const NoLimit = layout.Address(1<<64 - 1)

// ErrWindow: what is on flash does not fit the window. An invariant is broken: see rule R4.
var ErrWindow = errors.New("entries beyond the window")

// SetMemory gives the unit its layout and its memory, which is as large as the layout's geometry says and not
// registered for peers. Load must follow, or Keep where index and ring are those that the unit had.
func (u *Unit) SetMemory(l *layout.Layout, mem Memory) {
	u.lay, u.geo, u.mem = l, l.Geometry, mem
	if len(u.cells) != u.geo.Window {
		u.cells = make([]cell, u.geo.Window)
		u.ready = make([]layout.Address, 0, u.geo.Window)
	}
	if n := u.geo.SessionSlots * u.geo.MaxSessions; len(u.owners) != n {
		// No session lives: what ended before has slots of the memory before.
		u.owners = make([]Session, n)
		u.ending, u.out.Freed = nil, u.out.Freed[:0]
	}
}

// Load builds the window from flash: after a start, and after reconciling. settledBelow is an address
// below which everything is known to be decided and durable; trimmedBelow what was given up. The index
// must not be registered.
//
// A page at or above settledBelow that is not whole was torn by a crash before it
// was acknowledged, and is EMPTY. One below it is damaged, and CORRUPT; so is one that the disk cannot read.
//
// Below the unit's first address in the layout nothing is the unit's (a spare that joined a chain at its tail), so
// that the window begins no lower.
//
// Only what is needed is read: the pages from settledBelow up to one window beyond the first hole (rule R4: nothing
// stands further up), and those of the window.
func (u *Unit) Load(src Source, settledBelow, trimmedBelow layout.Address) error {
	u.trimmed = max(u.trimmed, trimmedBelow)
	from := max(settledBelow, u.trimmed, u.lay.First(u.id))
	if err := u.survey(src, from); err != nil {
		return err
	}
	w := u.window()
	u.base = min(u.watermark, u.end-min(u.end, w*3/4))
	// No EMPTY word without room on flash: the window stays lower, as a larger read cache.
	u.base = min(u.base, u.limit-min(u.limit, w))
	if u.end-u.base > w {
		return fmt.Errorf("unit %d: first hole %d, end %d, limit %d, window %d: %w", u.id, u.watermark, u.end, u.limit, w, ErrWindow)
	}
	u.ready, u.trims, u.flying, u.refused = u.ready[:0], u.trims[:0], u.flying[:0], refused{}
	u.arrivals = 0
	for i := range u.ending {
		u.ending[i].after = 0
	}
	u.release()
	clear(u.ringers)
	u.forgetCorrupt(0, u.trimmed)
	u.forgetCorrupt(u.base, NoLimit)
	u.cursor = u.base
	if err := u.fillWindow(src, u.watermark); err != nil {
		return err
	}
	u.outdated = false
	u.top = u.end
	u.advance()
	return nil
}

// Kept tells whether a reconciliation can be taken over with Keep, in place of Load: the window shows what flash held before it, and l maps
// the window's addresses as the layout before does. It is asked before Outdate. Where the layouts differ in their sessions, SetMemory comes before Keep.
func (u *Unit) Kept(l *layout.Layout) bool {
	if u.mem == nil || u.lay == nil || u.outdated || !l.Geometry.Follows(u.geo) || u.lay.First(u.id) != l.First(u.id) || u.Busy() {
		return false
	}
	for a := u.base; a < u.base+u.window(); a++ {
		was, mapped := u.lay.PositionAt(u.id, a)
		if is, still := l.PositionAt(u.id, a); is != was || mapped != still {
			return false
		}
	}
	return true
}

// Keep is Load without reading what the window shows already: flash was changed, since Kept said yes, at the addresses placed alone. page
// reads one of them. The index must not be registered. It reports false, and has done nothing, if one of them lies above the window: Load
// must follow. It fails, and the unit stays outdated, if one is not there. As after Load, no word names a staging slot: the sessions that owned them are gone (rule R6).
func (u *Unit) Keep(l *layout.Layout, placed []layout.Address, page func(a layout.Address, to []byte) error) (bool, error) {
	for _, a := range placed {
		if a >= u.base+u.window() {
			return false, nil
		}
	}
	u.lay = l
	for _, a := range placed {
		if a < u.base {
			continue
		}
		to := u.ringPage(a)
		if err := page(a, to); err != nil {
			return false, err
		}
		if p, _ := u.position(a); !whole(to, u.log, p) {
			// The disk took it and gives another one. As an EMPTY word it would be written again, over an entry that the others have.
			return false, fmt.Errorf("unit %d: address %d, just written: %w", u.id, a, errDamaged)
		}
		u.forgetCorrupt(a, a+1)
		u.loadSlot(a, to, false)
		u.end = max(u.end, a+1)
	}
	for a := u.base; a < u.base+u.window(); a++ {
		c := u.cell(a)
		if c.stage != settled {
			continue
		}
		if w := u.word(a); w != c.shadow {
			u.tampered(a, w)
		}
		u.store(a, wire.MakeWord(c.shadow.State(), u.geo.Generation(a), NoUse.Tag()))
		c.ringer = 0
	}
	clear(u.ringers)
	u.cursor = u.base
	u.outdated = false
	u.top = u.end
	u.advance()
	return true, nil
}

// whole tells whether page is one of position p.
func whole(page []byte, log layout.LogID, p layout.Position) bool {
	state, _ := Classify(page, log, p)
	return state != wire.Empty
}

// errEnough ends a scan.
var errEnough = errors.New("enough")

// survey finds the first hole and the end. Unreadable pages above all that is whole were cut off, or hold the last entries: nobody knows, and the
// unit must not be asked alone (rule R16).
func (u *Unit) survey(src Source, from layout.Address) error {
	u.watermark, u.end = from, from
	u.stats.Torn = 0
	unread := from // behind the last page that the disk cannot read
	defer func() { u.doubt = unread > u.end }()
	err := src.Scan(from, u.geo.MaxAddress()+1, func(a layout.Address, page []byte) error {
		if a > u.watermark && a-u.watermark >= u.window() {
			return errEnough
		}
		p, mapped := u.position(a)
		switch state, _ := Classify(page, u.log, p); {
		case page == nil: // whatever it was, it is no hole
			if mapped {
				unread = a + 1
			}
		case state != wire.Empty && mapped:
			u.end = a + 1
		default:
			if !zero(page[:wire.HeaderSize]) {
				u.stats.Torn++
			}
			return nil
		}
		for u.watermark < a && !u.mapped(u.watermark) {
			u.watermark++
		}
		if u.watermark == a {
			u.watermark++
		}
		return nil
	})
	u.watermark = min(u.watermark, u.end)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// fillWindow makes words, ring slots and cells of all addresses of the window. All below known are decided.
func (u *Unit) fillWindow(src Source, known layout.Address) error {
	next, top := u.base, u.base+u.window()
	none := func(to layout.Address) {
		for ; next < to; next++ {
			page := u.ringPage(next)
			clear(page)
			u.loadSlot(next, page, next < known)
		}
	}
	err := src.Scan(u.base, min(u.end, top), func(a layout.Address, from []byte) error {
		none(a)
		page := u.ringPage(a)
		clear(page[copy(page, from):])
		u.loadSlot(a, page, a < known || from == nil)
		next = a + 1
		return nil
	})
	none(top)
	return err
}

// loadSlot makes word and cell of address a, whose page is in the ring. known says that something stood there.
func (u *Unit) loadSlot(a layout.Address, page []byte, known bool) {
	c := u.cell(a)
	*c = cell{}
	gen := u.geo.Generation(a)
	p, mapped := u.position(a)
	state := wire.Trimmed
	if a >= u.trimmed && mapped {
		state, _ = Classify(page, u.log, p)
	}
	if state == wire.Empty && known {
		state = wire.Corrupt
		u.stats.Corrupt++
		u.alarm(Alarm{What: "corrupt", Address: a, Err: errDamaged})
	}
	if state == wire.Corrupt {
		u.corrupt(a)
	}
	if state != wire.Durable {
		clear(page)
	}
	if state == wire.Empty {
		u.store(a, wire.EmptyWord(gen, u.epoch))
		return
	}
	c.stage = settled
	u.store(a, wire.MakeWord(state, gen, NoUse.Tag()))
}

// errDamaged is why an address is CORRUPT after a start.
var errDamaged = errors.New("what flash has does not verify, or cannot be read")

// NoUse is the tag of words and acks of which the unit does not know any more which slot they came from.
var NoUse = wire.Use{Slot: wire.MaxStagingSlots - 1, Count: 0xfff}

// mapped tells whether the layout gives a position to address a of this unit.
func (u *Unit) mapped(a layout.Address) bool {
	_, ok := u.lay.PositionAt(u.id, a)
	return ok
}

// advance moves the watermark and the window as far as they may go.
func (u *Unit) advance() {
	for {
		for u.inWindow(u.watermark) && u.cell(u.watermark).stage == settled {
			u.watermark++
		}
		// Below the limit flash has room, whatever else happens to the disk: no entry can be published that it cannot take.
		if !u.due() || u.base+u.window() >= u.limit {
			return
		}
		u.step()
	}
}

// due tells whether the window is to move on, which takes that its first address is durable or trimmed (rule R4).
func (u *Unit) due() bool {
	open := u.window() * 3 / 4
	return (u.base < u.watermark || mutant.R4) && u.end != 0 && u.base+open < u.end-1 && u.base+u.window() <= u.geo.MaxAddress()
}

// atLimit tells whether nothing but the limit keeps the window from moving on.
func (u *Unit) atLimit() bool {
	return u.mem != nil && !u.outdated && u.base+u.window() >= u.limit && u.due()
}

// SetLimit says that flash has room for the pages of all addresses below a, and for no others yet. It does not
// take back words that are EMPTY already: it never goes down but by wiping.
func (u *Unit) SetLimit(a layout.Address) {
	u.limit = a
	if u.mem != nil && !u.outdated {
		u.advance()
	}
}

// step gives the slot of base to the address one window further on. The old word
// holds an entry, so the CPU may store to it (rule R1).
func (u *Unit) step() {
	next := u.base + u.window()
	c := u.cell(u.base)
	if w := u.word(u.base); w != c.shadow {
		u.tampered(u.base, w)
	}
	*c = cell{}
	gen := u.geo.Generation(next)
	if next < u.trimmed || !u.mapped(next) {
		c.stage = settled
		u.store(next, wire.MakeWord(wire.Trimmed, gen, NoUse.Tag()))
	} else {
		u.store(next, wire.EmptyWord(gen, u.epoch))
	}
	u.base++
	u.stats.Steps++
}

// rewriteEmpty makes every EMPTY word one of epoch n. The index is not registered.
func (u *Unit) rewriteEmpty(n layout.Epoch) {
	for a := u.base; a < u.base+u.window(); a++ {
		if u.cell(a).stage == free {
			u.store(a, wire.EmptyWord(u.geo.Generation(a), n))
		}
	}
}

func (u *Unit) tampered(a layout.Address, found wire.Word) {
	u.stats.Tampered++
	u.alarm(Alarm{What: "tampering", Address: a, Found: found, Shadow: u.cell(a).shadow})
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
