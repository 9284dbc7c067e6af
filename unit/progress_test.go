package unit

import (
	"testing"

	"corfu/layout"
)

// wantReadable checks the answer of Readable for one whose next address is a.
func (b *bench) wantReadable(what string, a, below, top layout.Address) {
	b.t.Helper()
	if x, y := b.u.Readable(a); x != below || y != top {
		b.t.Errorf("%s, from %d on: readable below %d, nothing from %d on; want %d and %d", what, a, x, y, below, top)
	}
}

// R11: under flash durability a reader may have what is on flash, and is told of nothing else.
func TestR11ReadableIsWhatIsOnFlash(t *testing.T) {
	b := newBench(t)
	b.wantReadable("empty", 0, 0, 0)
	b.publish(0)
	b.u.Doorbell(1, 0)
	b.wantReadable("published", 0, 0, 0)
	moves := b.u.Moves()
	b.flush()
	b.wantReadable("on flash", 0, 1, 1)
	b.wantReadable("on flash", 1, 1, 1)
	b.wantReadable("far above", 1<<40, 1<<40, 1)
	if b.u.Moves() == moves {
		t.Error("nothing moved when an entry became durable")
	}
	for _, a := range []layout.Address{2, 3, 5} {
		b.publish(a)
		b.u.Doorbell(1, a)
	}
	b.flush()
	b.wantReadable("holes at 1 and 4", 0, 1, 6)
	b.wantReadable("holes at 1 and 4", 2, 4, 6)
	b.wantReadable("holes at 1 and 4", 5, 6, 6)
	b.cas(1, junk(1))
	b.u.Doorbell(1, 1)
	b.flush()
	b.wantReadable("1 is filled", 0, 4, 6)
	_, err := b.seal(2)
	b.check(err)
	b.wantReadable("sealed", 0, 0, 0)
	b.open(2)
	b.wantReadable("opened anew", 0, 4, 6)
	b.start()
	b.open(3)
	b.wantReadable("after a restart", 5, 6, 6)
}

// Under memory durability a reader may have what was published. The unit tells of what it has seen.
func TestReadableUnderMemoryIsWhatWasSeen(t *testing.T) {
	b := newBench(t)
	l := *b.u.lay
	l.Durability = layout.Memory
	b.u.lay = &l
	for _, a := range []layout.Address{0, 1, 3} {
		b.publish(a)
	}
	b.wantReadable("published", 0, 0, 0)
	moves := b.u.Moves()
	b.u.Scan()
	b.wantReadable("seen, with a hole at 2", 0, 2, 4)
	b.wantReadable("seen, with a hole at 2", 3, 4, 4)
	if b.u.Moves() == moves {
		t.Error("nothing moved when entries were seen")
	}
	b.flush()
	b.wantReadable("on flash", 0, 2, 4)
}
