package sim

import (
	"time"

	"corfu/internal/wire"
)

// hostile is what one end of a connection remembers of a peer that writes to its staging slots after it published them (Weird.Scribble).
// An honest client never does that (rule R6); a unit that keeps rule R5 does not care.
type hostile struct {
	slots     map[wire.StagingSlot]staged
	writes    int
	published []wire.StagingSlot // since the last doorbell
}

// staged is where a slot was written last.
type staged struct {
	r      *region
	off, n int
	write  int // which one it was
}

// written notes the bytes of a WRITE that took effect. The fabric's lock is held, as by all that follows.
func (c *conn) written(r *region, off, n int) {
	if !c.f.weird.Scribble || n < wire.HeaderSize {
		return
	}
	if c.hostile.slots == nil {
		c.hostile.slots = map[wire.StagingSlot]staged{}
	}
	c.hostile.writes++
	c.hostile.slots[wire.StagingSlot(off/geometry.PageSize)] = staged{r, off, n, c.hostile.writes}
}

// publishes notes the slot that a CAS has named.
func (c *conn) publishes(swap uint64) {
	if w := wire.Word(swap); c.f.weird.Scribble && w.State() == wire.Written {
		c.hostile.published = append(c.hostile.published, wire.TagUse(w.Tag()).Slot)
	}
}

// scribbleAfter is when the slot is written again: after the unit took the page, which it does when it hears the doorbell, or, where its loop
// writes a page by itself just then, when that is relieved (flash.Helm: 4 ms at most).
const scribbleAfter = 5 * time.Millisecond

// scribble spoils what was published before the doorbell that arrives now.
func (c *conn) scribble() {
	for _, slot := range c.hostile.published {
		at := c.hostile.slots[slot]
		at.r.later(scribbleAfter, func() {
			if c.hostile.slots[slot].write != at.write {
				return // a credit came back, and the slot holds another page
			}
			page := at.r.mem.Bytes()[at.off : at.off+at.n]
			for i := wire.HeaderSize; i < len(page); i++ {
				page[i] ^= 0xff
			}
		})
	}
	c.hostile.published = c.hostile.published[:0]
}
