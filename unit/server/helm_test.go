package server_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma/tcp"
	"corfu/unit/flash"
)

// R3: the loop writes pages that come alone by itself. When such a write hangs the unit goes on: it answers, takes pages
// and makes them durable, and what hangs is acknowledged when it is on flash and not before.
func TestR3LoneWriteThatHangsHoldsNobodyUp(t *testing.T) {
	m, _, writes := coldRig(t, 0)
	a := layout.Address(0)
	for round := range wire.RequestID(3) {
		for range 12 { // each waits for the one before: they come alone
			m.put(a)
			a++
		}
		writes.set(true)
		_, _, err := m.write(a, wire.MakeAttempt(9, uint32(a)), true)
		must(t, err)
		eventually(t, "the write on the disk", func() bool { return len(writes.held) == 1 })
		m.send(m.append, wire.MaxAddr{Request: 2*round + 1}.Append(nil))
		m.reply(2*round + 1)
		writes.set(false)
		m.put(a + 1)
		if got, _ := m.cold(2*round+2, a); got.Status != wire.StatusTooNew {
			t.Fatalf("cold read of what hangs: %+v", got)
		}
		if w := m.look(a); w.State() != wire.Written {
			t.Fatalf("word of what hangs is %v", w)
		}
		writes.one()
		m.ack(a)
		a += 2
	}
}

// failing is a segment file that takes so many writes, and refuses and counts those that follow until it is mended.
type failing struct {
	flash.File
	good   int64
	count  *atomic.Int64
	mended *atomic.Bool
}

func (f failing) Write(bufs [][]byte, off int64, sync bool) error {
	if sync && f.count.Add(1) > f.good && !f.mended.Load() {
		return errors.New("flash is broken")
	}
	return f.File.Write(bufs, off, sync)
}

// A lone page that flash refuses is tried again after a pause, not at once and for ever; the unit answers meanwhile.
func TestLoneWriteThatFailsIsTriedAgainAfterAPause(t *testing.T) {
	const good = 40 // in a row, one by one, so that the loop writes them itself, and the one that fails
	var mended atomic.Bool
	var count atomic.Int64
	r := newRig(t, tcp.Options{})
	r.stop()
	r.cfg.Flash.Wrap = func(_ string, f flash.File) flash.File { return failing{f, good, &count, &mended} }
	r.start()
	r.open(1, true)
	m := r.session(1)
	for a := range layout.Address(good) {
		m.put(a)
	}
	_, _, err := m.write(good, wire.MakeAttempt(9, good), true)
	must(t, err)
	eventually(t, "an unhealthy unit", func() bool { return r.unit.Health() != nil })
	for id := range wire.RequestID(100) {
		m.send(m.append, wire.MaxAddr{Request: id + 1}.Append(nil))
		m.reply(id + 1)
	}
	// A hundred answers take much less than fifty pauses, on any machine that is not stopped meanwhile.
	if n := count.Load() - good; n > 50 {
		t.Fatalf("tried %d times until 100 answers were there", n)
	}
	mended.Store(true)
	m.ack(good)
}
