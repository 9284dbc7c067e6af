package unit

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

var seed = flag.Uint64("seed", 0, "of the random run; 0: a few fixed ones")

// Whatever clients, crashes and epochs do: no word or ack says durable before flash has the page (R3), the window
// passes over nothing that is not (R4), the CPU stores to no EMPTY word (R1, watched by plain), and what was
// acknowledged is at its address after every crash.
func TestRandomRunsKeepTheRules(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6, 7, 8}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, s := range seeds {
		r := &run{bench: newBench(t), rnd: rand.New(rand.NewPCG(s, 0)), acked: map[layout.Address][]byte{}}
		r.u.SetSession(sliceOf(0), 1)
		for step := range 2000 {
			if r.step(); t.Failed() {
				t.Fatalf("replay with -seed %d (step %d)", s, step)
			}
			if step%8 == 0 {
				r.invariants()
			}
			if step%100 == 99 {
				r.kept()
			}
		}
		if len(r.acked) < 200 {
			t.Fatalf("seed %d: only %d addresses were acknowledged: the run shows nothing", s, len(r.acked))
		}
	}
}

type run struct {
	*bench
	rnd    *rand.Rand
	next   layout.Address // first not handed out
	flying []*Batch       // in flight
	epochs layout.Epoch
	acked  map[layout.Address][]byte // as it was on flash when the ack came
}

func (r *run) step() {
	switch k := r.rnd.IntN(100); {
	case k < 50:
		r.client()
	case k < 60:
		r.u.Scan()
	case k < 90:
		r.disk()
	case k < 95:
		r.hole()
	case k < 97:
		if a := layout.Address(r.rnd.Uint64N(uint64(r.next) + 2)); r.acked[a] != nil {
			delete(r.acked, a) // trimmed from now on
			r.u.Trim(1, 1, a)
		}
	case k < 98:
		r.disk()
		r.flying = nil
		r.crash()
	default:
		for len(r.flying) > 0 {
			r.disk()
		}
		r.epochs = r.promise + 1
		r.open(r.epochs)
		r.u.SetSession(sliceOf(0), 1)
	}
	r.collect()
}

// client takes a position, or loses it, and publishes an entry or junk, with or without a doorbell.
func (r *run) client() {
	a := r.next
	r.next++
	if r.rnd.IntN(20) == 0 {
		return
	}
	slot := wire.StagingSlot(r.rnd.IntN(testGeo.SessionSlots))
	r.stage(slot, a, wire.Attempt(a)+1)
	w := written(a, slot, uint16(a&0xfff))
	if r.rnd.IntN(10) == 0 {
		w = junk(a)
	}
	if old := r.cas(a, w); old != wire.EmptyWord(testGeo.Generation(a), r.m.epoch) {
		r.next-- // the window has not reached it
		return
	}
	// The slot is used again at once, so it must be taken in now; a client would wait for its credit.
	if r.rnd.IntN(2) == 0 {
		r.u.Doorbell(2, a)
	} else {
		r.u.ScanAll()
	}
}

// hole fills the first hole.
func (r *run) hole() {
	if a := r.u.View().Watermark; a < r.next {
		r.cas(a, junk(a))
		r.u.Doorbell(3, a)
	}
}

// disk starts a flush, or ends one of those in flight, well or badly.
func (r *run) disk() {
	if r.rnd.IntN(3) == 0 {
		r.u.Retry()
	}
	if r.rnd.IntN(2) == 0 {
		if b := r.u.NextBatch(); b != nil {
			r.flying = append(r.flying, b)
			return
		}
	}
	if len(r.flying) == 0 {
		return
	}
	i := r.rnd.IntN(len(r.flying))
	b := r.flying[i]
	r.flying = slices.Delete(r.flying, i, i+1)
	if r.rnd.IntN(5) == 0 {
		// Half of it, and some of that may be on flash all the same.
		for i := range b.Records {
			x := &b.Records[i]
			if x.Failed = i%2 == 0; x.Failed && i%4 == 0 {
				r.d[x.Address] = bytes.Clone(x.Bytes)
			}
		}
		for i := range b.Trims {
			x := &b.Trims[i]
			if x.Failed = i%2 == 0; x.Failed && r.rnd.IntN(2) == 0 {
				r.d.trim(x.Address)
			}
		}
	}
	r.write(b)
	r.u.Flushed(b)
}

func (r *run) crash() {
	r.collect()
	r.start()
	r.open(r.promise + 1)
	r.u.SetSession(sliceOf(0), 1)
	// Positions that were handed out and not written are holes now, or are written by nobody.
	r.next = max(r.u.View().End, 1)
}

func (r *run) collect() {
	r.take()
	for _, x := range r.acks {
		a := x.Ack.Address
		s, _ := Classify(r.d[a], testLog, layout.Position(a))
		if s != x.Ack.State && !(x.Ack.State == wire.Durable && s == wire.Trimmed) {
			r.t.Errorf("R3: ack of %d says %v, flash says %v", a, x.Ack.State, s)
		}
		if s != wire.Trimmed {
			r.acked[a] = bytes.Clone(r.d[a])
		}
	}
	r.acks = r.acks[:0]
}

func (r *run) invariants() {
	v := r.u.View()
	if v.Base > v.Watermark || v.End-v.Base > layout.Address(testGeo.Window) {
		r.t.Fatalf("R4: view %+v", v)
	}
	for a := v.Base; a < v.Base+layout.Address(testGeo.Window); a++ {
		w := r.word(a)
		if !w.State().Terminal() {
			if a < v.Watermark {
				r.t.Fatalf("R4: %v below the watermark %d", w, v.Watermark)
			}
			continue
		}
		s, _ := Classify(r.d[a], testLog, layout.Position(a))
		if s == wire.Trimmed {
			continue // or about to be
		}
		if s != w.State() {
			r.t.Fatalf("R3: word of %d is %v, flash says %v", a, w, s)
		}
		page := r.m.ring[testGeo.Slot(a)*4096:][:4096]
		if w.State() == wire.Durable && !bytes.Equal(page, r.d[a]) {
			r.t.Fatalf("R3: ring and flash differ at %d", a)
		}
	}
}

// kept checks that nothing acknowledged is lost.
func (r *run) kept() {
	for a, page := range r.acked {
		if !bytes.Equal(r.d[a], page) {
			r.t.Fatalf("address %d was acknowledged and changed", a)
		}
	}
}
