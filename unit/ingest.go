package unit

import (
	"errors"
	"fmt"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
)

// Bell is what became of a doorbell.
type Bell uint8

const (
	BellTaken   Bell = iota // the session gets an ack now or once the address is durable
	BellIgnored             // nothing to see there: the word is EMPTY, or outside the window
	BellCold                // the address is below the window: decided; its state is on flash
)

// Doorbell looks at the word of a, which a session says it has changed, and notes that it wants an ack.
func (u *Unit) Doorbell(s Session, a layout.Address) Bell {
	u.stats.Doorbells++
	if u.phase != Open || !u.inWindow(a) {
		if u.phase == Open && a < u.base {
			return BellCold
		}
		u.stats.DoorbellsIgnored++
		return BellIgnored
	}
	c := u.cell(a)
	switch c.stage {
	case settled:
		u.check(a)
		u.ack(s, a, c.shadow)
	case free:
		if u.word(a) == c.shadow {
			u.stats.DoorbellsIgnored++
			return BellIgnored
		}
		u.ring(s, a)
		u.look(a)
		if mutant.R1 {
			u.fillHoles()
		}
	default:
		u.ring(s, a)
	}
	return BellTaken
}

// Lazy tells whether pages may gather before they go to flash. Under memory durability clients ring for one append in many, to
// say that there is work, and nobody waits for the answer; but a window that is small beside the
// staging of a session would wait (rule R4).
func (u *Unit) Lazy() bool {
	return u.lay != nil && u.lay.Durability == layout.Memory && u.geo.OpenPages() >= 2*u.geo.SessionSlots
}

// ring adds s to those who want an ack for a.
func (u *Unit) ring(s Session, a layout.Address) {
	c := u.cell(a)
	if c.ringer == 0 {
		c.ringer = s
	}
	if c.ringer == s {
		return
	}
	more := u.ringers[a]
	for _, x := range more {
		if x == s {
			return
		}
	}
	if len(more) < len(u.owners) {
		u.ringers[a] = append(more, s)
	}
}

const (
	// scanAhead is how far above the last entry a Scan looks for the next ones.
	scanAhead = 256
	// scanLimit bounds what one Scan looks at where holes keep the watermark down.
	scanLimit = 1 << 14
	// scanRest is how much of the whole window a Scan looks at besides, in turn: for
	// words far ahead, and for tampering.
	scanRest = 256
)

// Scan looks for published words of which no doorbell told, where they are to be expected, and at a
// part of all others. So a large window costs no more than a small one. It tells how many it found.
func (u *Unit) Scan() int {
	if u.phase != Open {
		return 0
	}
	u.checkEpoch()
	n := 0
	for a, left := u.watermark, scanLimit; a < u.end+scanAhead && u.inWindow(a) && left > 0; a++ {
		if u.cell(a).stage == free && u.look(a) {
			n++
		}
		left--
	}
	if !u.inWindow(u.cursor) {
		u.cursor = u.base
	}
	n += u.scan(u.cursor, scanRest)
	u.cursor += scanRest
	return n
}

// ScanAll looks at all words. It tells how many it found published.
func (u *Unit) ScanAll() int { return u.scan(u.base, u.geo.Window) }

func (u *Unit) scan(from layout.Address, limit int) int {
	n := 0
	to := min(u.base+u.window(), from+layout.Address(limit))
	for a := from; a < to; a++ {
		// The window may move on while a word is taken in.
		if !u.inWindow(a) {
			continue
		}
		switch u.cell(a).stage {
		case free:
			if u.look(a) {
				n++
			}
		case settled:
			u.check(a)
		}
	}
	return n
}

// check restores the word of a settled address if somebody changed it. The word
// holds an entry whatever it was changed to, as far as rule R1 is concerned: no
// honest CAS succeeds on it.
func (u *Unit) check(a layout.Address) {
	c := u.cell(a)
	if w := u.word(a); w != c.shadow {
		u.tampered(a, w)
		u.store(a, c.shadow)
	}
}

// checkEpoch restores the epoch word if somebody changed it. No honest CAS names it, so that the CPU may store to it (rule R1). Until
// then readers take the unit for sealed and ask for a new layout (rule R12): they are told nothing that is wrong.
func (u *Unit) checkEpoch() {
	if e := u.mem.LoadEpoch(); e != u.epoch {
		u.stats.Tampered++
		u.alarm(Alarm{What: "tampering", Err: fmt.Errorf("the epoch word says %d, the unit serves %d", e, u.epoch)})
		u.mem.StoreEpoch(u.epoch)
	}
}

// look takes in the word of a free address if it was published; false: it is EMPTY still.
func (u *Unit) look(a layout.Address) bool {
	c := u.cell(a)
	w := u.word(a)
	if w == c.shadow {
		return false
	}
	c.seen, c.stage = w, waiting
	u.end = max(u.end, a+1)
	u.moves++
	if a < u.trimmed {
		// Given up before it was written, and that is durable: nothing goes to flash.
		u.settle(a, wire.Trimmed)
		u.advance()
		return true
	}
	c.goal = u.ingest(a, w)
	c.arrival = u.arrivals
	u.arrivals++
	u.ready = append(u.ready, a)
	return true
}

// ingest makes the ring slot of a what is to be on flash and tells the state that it gives.
func (u *Unit) ingest(a layout.Address, w wire.Word) wire.State {
	p, _ := u.lay.PositionAt(u.id, a)
	page := u.ringPage(a)
	if w.Generation() != u.geo.Generation(a) || (w.State() != wire.Written && w.State() != wire.Junk) {
		// No correct client makes this of an EMPTY word. The address is spoilt.
		u.tampered(a, w)
		u.stats.Corrupt++
		Mark(page, wire.Corrupt, u.log, p, u.epoch)
		return wire.Corrupt
	}
	if w.State() == wire.Junk {
		u.stats.Junk++
		Mark(page, wire.DurableJunk, u.log, p, u.epoch)
		return wire.DurableJunk
	}
	if err := u.copyPage(page, wire.TagUse(w.Tag()).Slot, p); err != nil {
		u.stats.Corrupt++
		u.alarm(Alarm{What: "corrupt", Address: a, Found: w, Shadow: u.cell(a).shadow, Err: err})
		Mark(page, wire.Corrupt, u.log, p, u.epoch)
		return wire.Corrupt
	}
	u.stats.Pages++
	return wire.Durable
}

var (
	errSlot = errors.New("no such staging slot")
	errKind = errors.New("published a page that is no entry")
)

// copyPage copies a page from staging and verifies the copy: the client may still
// write to the slot, so nothing that was read from there is used twice (rule R5).
func (u *Unit) copyPage(page []byte, slot wire.StagingSlot, p layout.Position) error {
	if int(slot) >= u.geo.SessionSlots*u.geo.MaxSessions {
		return errSlot
	}
	staged := u.mem.Staging(slot)
	n := min(wire.PageLength(staged), len(page))
	copy(page[:n], staged)
	clear(page[n:])
	h, err := wire.VerifyPage(page, u.log, p)
	if err != nil {
		return err
	}
	if h.Flags.Kind() != wire.FlagData {
		return errKind
	}
	clear(page[wire.HeaderSize+h.Length:])
	return nil
}
