package unit

import (
	"slices"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
)

// What breaks rules where a test build asks for it (package mutant), as far as it is more than a condition.

// fillHoles is what rule R1 forbids: the CPU makes junk of the holes of which the unit is the head.
func (u *Unit) fillHoles() {
	for a := u.watermark; a+1 < u.end && u.inWindow(a); a++ {
		if p, mapped := u.position(a); mapped && u.cell(a).stage == free && u.word(a) == u.cell(a).shadow {
			if at, err := u.lay.Locate(p); err == nil && at.Chain.Head() == u.id {
				u.mem.StoreWord(u.geo.Slot(a), wire.MakeWord(wire.Junk, u.geo.Generation(a), NoUse.Tag()))
				u.look(a)
			}
		}
	}
}

// flushed is what goes to flash of a: the copy that was verified (rule R5), unless that is broken.
func (u *Unit) flushed(a layout.Address) []byte {
	if c := u.cell(a); mutant.R5 && c.goal == wire.Durable {
		page := slices.Clone(u.ringPage(a))
		copy(page[:wire.PageLength(page)], u.mem.Staging(wire.TagUse(c.seen.Tag()).Slot))
		return page
	}
	return u.ringPage(a)
}
