package unit

import (
	"errors"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
)

// Source is what is on flash.
type Source interface {
	// Scan calls fn with every page that may hold something, from address from on,
	// in order; the page is valid during the call. Pages never written are zero.
	Scan(from layout.Address, fn func(a layout.Address, page []byte) error) error
	// ReadPage fills dst with the page of a: zero if it was never written.
	ReadPage(a layout.Address, dst []byte) error
}

// ErrWindow: what is on flash does not fit the window. An invariant is broken: see rule R4.
var ErrWindow = errors.New("entries beyond the window")

// SetMemory gives the unit its layout and its memory, which is as large as the layout's geometry says and not
// registered for peers. Load must follow.
func (u *Unit) SetMemory(l *layout.Layout, mem Memory) {
	u.lay, u.geo, u.mem = l, l.Geometry, mem
	if len(u.cells) != u.geo.Window {
		u.cells = make([]cell, u.geo.Window)
		u.ready = make([]layout.Address, 0, u.geo.Window)
	}
	if len(u.owners) != u.geo.MaxSessions {
		u.owners = make([]Session, u.geo.MaxSessions)
	}
}

// Load builds the window from flash: after a start, and after reconciling. settledBelow is an address
// below which everything is known to be decided and durable; trimmedBelow what was given up. The index
// must not be registered.
//
// A page at or above settledBelow that is not whole was torn by a crash before it
// was acknowledged, and is EMPTY. One below it is damaged, and CORRUPT.
func (u *Unit) Load(src Source, settledBelow, trimmedBelow layout.Address) error {
	u.trimmed = max(u.trimmed, trimmedBelow)
	from := max(settledBelow, u.trimmed)
	if err := u.survey(src, from); err != nil {
		return err
	}
	w := u.window()
	u.base = min(u.watermark, u.end-min(u.end, w*3/4))
	if u.end-u.base > w {
		return fmt.Errorf("unit %d: first hole %d, end %d, window %d: %w", u.id, u.watermark, u.end, w, ErrWindow)
	}
	u.ready, u.trims, u.batch.addrs, u.inFlight = u.ready[:0], u.trims[:0], u.batch.addrs[:0], false
	u.enqueued, u.flushed = 0, 0
	for i := range u.ending {
		u.ending[i].after = 0
	}
	u.release()
	clear(u.ringers)
	u.cursor = u.base
	known := u.watermark
	for a := u.base; a < u.base+w; a++ {
		if err := u.loadSlot(src, a, known); err != nil {
			return err
		}
	}
	u.outdated = false
	u.advance()
	return nil
}

// survey finds the first hole and the end.
func (u *Unit) survey(src Source, from layout.Address) error {
	u.watermark, u.end = from, from
	u.stats.Torn = 0
	return src.Scan(from, func(a layout.Address, page []byte) error {
		state, _ := Classify(page, u.log)
		if state == wire.Empty {
			if !zero(page[:wire.HeaderSize]) {
				u.stats.Torn++
			}
			return nil
		}
		u.end = a + 1
		for u.watermark < a && !u.mapped(u.watermark) {
			u.watermark++
		}
		if u.watermark == a {
			u.watermark++
		}
		return nil
	})
}

// loadSlot makes word, ring slot and cell of address a.
func (u *Unit) loadSlot(src Source, a, known layout.Address) error {
	c := u.cell(a)
	*c = cell{}
	page := u.ringPage(a)
	gen := u.geo.Generation(a)
	state := wire.Empty
	switch {
	case a < u.trimmed || !u.mapped(a):
		state = wire.Trimmed
		clear(page)
	case a >= u.end:
		clear(page)
	default:
		if err := src.ReadPage(a, page); err != nil {
			return err
		}
		if state, _ = Classify(page, u.log); state == wire.Empty {
			clear(page)
			if a < known {
				state = wire.Corrupt
				u.stats.Corrupt++
			}
		}
	}
	if state == wire.Empty {
		u.store(a, wire.EmptyWord(gen, u.epoch))
		return nil
	}
	c.stage = settled
	u.store(a, wire.MakeWord(state, gen, NoUse.Tag()))
	return nil
}

// NoUse is the tag of words and acks of which the unit does not know any more which slot they came from.
var NoUse = wire.Use{Slot: wire.MaxStagingSlots - 1, Count: 0xfff}

// mapped tells whether the layout gives a position to address a of this unit.
func (u *Unit) mapped(a layout.Address) bool {
	_, ok := u.lay.PositionAt(u.id, a)
	return ok
}

// advance moves the watermark and the window as far as they may go.
func (u *Unit) advance() {
	open := u.window() * 3 / 4
	for {
		for u.inWindow(u.watermark) && u.cell(u.watermark).stage == settled {
			u.watermark++
		}
		// Rule R4: below the watermark everything is durable or trimmed.
		if u.base >= u.watermark || u.end == 0 || u.base+open >= u.end-1 || u.base+u.window() > u.geo.MaxAddress() {
			return
		}
		u.step()
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
