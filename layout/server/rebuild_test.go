package server

import (
	"fmt"
	"sync/atomic"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// TestCopyThatFailsHoldsUpNoOther: unit 5 takes none of the older positions, as one whose disk is full; unit 6 gets those of its own chain, and takes its
// place there. Once unit 5 was mended it follows.
func TestCopyThatFailsHoldsUpNoOther(t *testing.T) {
	for _, full := range []layout.UnitID{5, 6} {
		t.Run(fmt.Sprint("unit ", full), func(t *testing.T) {
			c := withSpare(t)
			c.cfg.FailAfter, c.units[5], c.units[6] = patient, c.spare, startUnit(t, 6)
			c.template.Spares = append(c.template.Spares, layout.Unit{ID: 6, Control: c.units[6].addr})
			sound := 11 - full
			var n atomic.Int32
			c.units[full].setHook(failing("backfilled", &n))
			l := c.start().active("the first epoch", func(*layout.Layout) bool { return true })
			c.put(l, 0, wire.Durable, 100, 1, 2)
			c.put(l, 1, wire.Durable, 101, 3, 4)
			for id := layout.UnitID(1); id <= 4; id++ {
				c.units[id].mu.Lock()
				c.units[id].watermark = 1
				c.units[id].mu.Unlock()
			}
			c.units[2].die()
			c.units[4].die()
			behind := func(l *layout.Layout, u layout.UnitID) (n int) {
				for _, r := range l.Behind() {
					if r.Unit == u {
						n++
					}
				}
				return n
			}
			c.active("one has its place", func(l *layout.Layout) bool {
				return l.IsMember(5) && l.IsMember(6) && behind(l, sound) == 0 && behind(l, full) == 1
			})
			if h := c.held(sound); len(h) != 1 {
				t.Errorf("unit %d holds %v", sound, h)
			}
			c.units[full].setHook(nil)
			c.active("the other as well", func(l *layout.Layout) bool { return len(l.Behind()) == 0 })
		})
	}
}
