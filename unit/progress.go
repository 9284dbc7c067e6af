package unit

import "corfu/layout"

// Moves counts what may have changed the answer of Readable: addresses that were found published, and
// those that became durable.
func (u *Unit) Moves() uint64 { return u.moves }

// readableAtOnce bounds how many addresses above the watermark one Readable looks at: a client that asks
// behind a hole again and again costs no more each time.
const readableAtOnce = 1024

// Readable returns the first address from a on that a reader may not have here yet (rule R11), and the
// first above all that it may have: those that are durable, or, under memory durability, all that the
// unit has seen. Both are 0 unless the unit is open. Of more than readableAtOnce addresses
// above the watermark, below tells of that many.
func (u *Unit) Readable(a layout.Address) (below, top layout.Address) {
	if u.phase != Open {
		return 0, 0
	}
	a = max(a, min(u.watermark, u.end))
	for most := a + readableAtOnce; a < min(most, u.end) && u.inWindow(a) && u.readable(u.cell(a).stage); {
		a++
	}
	if u.lay.Durability == layout.Memory {
		return a, u.end
	}
	return a, u.top
}

// readable reports whether a reader may have an address that has come so far.
func (u *Unit) readable(s stage) bool {
	return s == settled || (s != free && u.lay.Durability == layout.Memory)
}
