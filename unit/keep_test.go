package unit

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// TestR17KeepShowsWhatLoadWould: after any run, and with any entries that a reconciliation brings, a unit that keeps its window shows
// of every address what one shows that reads all of flash anew.
func TestR17KeepShowsWhatLoadWould(t *testing.T) {
	placedAll, trimmedAll := 0, 0
	for seed := range uint64(40) {
		r := &run{bench: newBench(t), rnd: rand.New(rand.NewPCG(seed, 1)), acked: map[layout.Address][]byte{}}
		r.u.SetSession(sliceOf(0), 1)
		for range 100 + r.rnd.IntN(400) {
			r.step()
		}
		for len(r.flying) > 0 {
			r.disk()
		}
		n := r.promise + 1
		_, err := r.seal(n)
		r.check(err)
		l := testLayout(n)
		if !r.u.Kept(l) {
			t.Fatalf("seed %d: not to be kept", seed)
		}
		placed := r.place()
		r.u.Outdate()
		placedAll += len(placed)
		done, err := r.u.Keep(l, placed, func(a layout.Address, to []byte) error {
			clear(to[copy(to, r.d[a]):])
			return nil
		})
		if !done || err != nil {
			t.Fatalf("seed %d: %v, %v", seed, done, err)
		}
		fresh := newBench(t)
		fresh.d, fresh.m.registered = r.d, false
		fresh.u.SetMemory(l, fresh.m)
		fresh.check(fresh.u.Load(r.d, r.settled, r.trimmed))
		trimmedAll += int(sameWindow(t, seed, r.bench, fresh))
		r.collect()
		r.kept()
		r.invariants()
		r.check(r.u.Reconciled(n))
		_, err = r.u.Prepare(n)
		r.check(err)
		r.m.registered = true
		r.u.Activate(n)
		r.u.SetSession(sliceOf(0), 1)
		r.next = max(r.u.View().End, 1)
		for range 300 { // and it goes on
			r.step()
			r.kept()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		r.invariants()
	}
	if placedAll < 100 || trimmedAll == 0 {
		t.Errorf("%d entries placed, %d trimmed words compared: it shows little", placedAll, trimmedAll)
	}
}

// place puts entries where the window shows nothing, as another owner of the epoch's entries would.
func (r *run) place() (placed []layout.Address) {
	v := r.u.View()
	for a := v.Watermark; a < v.Base+layout.Address(testGeo.Window); a++ {
		if r.word(a).State() != wire.Empty || r.rnd.IntN(3) == 0 {
			continue
		}
		r.stage(0, a, wire.Attempt(a)+7)
		r.d[a] = slices.Clone(r.m.Staging(0))
		placed = append(placed, a)
		if r.rnd.IntN(8) == 0 {
			break
		}
	}
	return placed
}

// sameWindow compares what two units show, and gives the number of trimmed words that both have.
func sameWindow(t *testing.T, seed uint64, a, b *bench) (trimmed int) {
	t.Helper()
	x, y := a.u.View(), b.u.View()
	if x.Watermark != y.Watermark || x.End != y.End || x.TrimmedBelow != y.TrimmedBelow || x.Outdated {
		t.Fatalf("seed %d: view %+v, want that of %+v", seed, x, y)
	}
	w := layout.Address(testGeo.Window)
	for at := max(x.Base, y.Base); at < min(x.Base, y.Base)+w; at++ {
		p, q := a.word(at), b.word(at)
		if p.State() != q.State() || p.Generation() != q.Generation() || (p.State().Terminal() && p.Tag() != q.Tag()) {
			t.Fatalf("seed %d: word of %d is %v, want %v", seed, at, p, q)
		}
		if p.State() == wire.Trimmed {
			trimmed++
		}
		i := testGeo.Slot(at) * testGeo.PageSize
		if p.State() == wire.Durable && !bytes.Equal(a.m.ring[i:i+testGeo.PageSize], b.m.ring[i:i+testGeo.PageSize]) {
			t.Fatalf("seed %d: the ring differs at %d", seed, at)
		}
	}
	return trimmed
}

// TestKeepIsRefusedWhereTheWindowDoesNotShowIt: another geometry or mapping, pages beyond the window, or a flash that changed already.
func TestKeepIsRefusedWhereTheWindowDoesNotShowIt(t *testing.T) {
	b := newBench(t)
	b.u.SetSession(sliceOf(0), 1)
	b.publish(0)
	b.u.Doorbell(1, 0)
	b.flush()
	n := b.promise + 1
	_, err := b.seal(n)
	b.check(err)
	l := testLayout(n)
	other := testLayout(n)
	other.Geometry.Window *= 2
	moved := testLayout(n)
	moved.Segments[0].Chains[0].Base = 5
	for name, l := range map[string]*layout.Layout{"geometry": other, "mapping": moved} {
		if b.u.Kept(l) {
			t.Errorf("kept with another %s", name)
		}
	}
	if !b.u.Kept(l) {
		t.Fatal("not kept with the same")
	}
	before := b.u.View()
	beyond := before.Base + layout.Address(testGeo.Window)
	if done, err := b.u.Keep(l, []layout.Address{1, beyond}, nil); done || err != nil {
		t.Errorf("kept with a page at %d: %v", beyond, err)
	}
	if v := b.u.View(); v != before {
		t.Errorf("it did something: %+v, was %+v", v, before)
	}
	if b.u.Outdate(); b.u.Kept(l) {
		t.Error("kept though flash has changed")
	}
}

// TestR17KeepDoesNotTakeALostPageForNone: the disk said that an entry which a reconciliation brought is durable, and gives nothing. The word must
// not become EMPTY, for somebody to publish another entry there.
func TestR17KeepDoesNotTakeALostPageForNone(t *testing.T) {
	b := newBench(t)
	n := b.promise + 1
	_, err := b.seal(n)
	b.check(err)
	l := testLayout(n)
	if !b.u.Kept(l) {
		t.Fatal("not kept")
	}
	b.u.Outdate()
	done, err := b.u.Keep(l, []layout.Address{0}, func(_ layout.Address, to []byte) error { clear(to); return nil })
	if err == nil {
		t.Errorf("kept %v, and the word is %v", done, b.word(0))
	}
	if err := b.u.Reconciled(n); !errors.Is(err, ErrOutdated) {
		t.Errorf("reconciled: %v", err)
	}
}
