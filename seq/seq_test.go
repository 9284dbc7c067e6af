package seq

import (
	"errors"
	"reflect"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

var log1 = layout.LogID{1}

// opened is a sequencer that serves epoch 5 from position 100.
func opened(t *testing.T) *Sequencer {
	t.Helper()
	s := New(0)
	if err := s.Seal(5); err != nil {
		t.Fatal(err)
	}
	w, fresh, err := s.Activate(log1, 5, 100)
	if err != nil || !fresh || w != wire.MakeSeqWord(5, 100) {
		t.Fatalf("%v, %v, %v", w, fresh, err)
	}
	return s
}

func TestR14SealNeedsAHigherEpochThanThePromise(t *testing.T) {
	for _, c := range []struct {
		name    string
		from    Sequencer
		n       layout.Epoch
		want    error
		becomes Sequencer
	}{
		{"closed, nothing promised", Sequencer{}, 1, nil, Sequencer{phase: Sealed, promise: 1}},
		{"open, higher", Sequencer{Open, 5, log1, 100, 100}, 9, nil, Sequencer{phase: Sealed, promise: 9}},
		{"open, the same", Sequencer{Open, 5, log1, 100, 100}, 5, ErrPromised, Sequencer{Open, 5, log1, 100, 100}},
		{"open, lower", Sequencer{Open, 5, log1, 100, 100}, 4, ErrPromised, Sequencer{Open, 5, log1, 100, 100}},
		{"sealed, the same again", Sequencer{phase: Sealed, promise: 5}, 5, nil, Sequencer{phase: Sealed, promise: 5}},
		{"sealed, lower", Sequencer{phase: Sealed, promise: 5}, 4, ErrPromised, Sequencer{phase: Sealed, promise: 5}},
		{"epoch 0", Sequencer{}, 0, layout.ErrInvalid, Sequencer{}},
		{"beyond the last epoch", Sequencer{}, layout.MaxEpoch + 1, layout.ErrInvalid, Sequencer{}},
	} {
		s := c.from
		err := s.Seal(c.n)
		if !errors.Is(err, c.want) || s != c.becomes {
			t.Errorf("%s: %v, %+v; want %v, %+v", c.name, err, s, c.want, c.becomes)
		}
		var p *PromiseError
		if errors.Is(c.want, ErrPromised) && (!errors.As(err, &p) || p.Promise != c.from.promise) {
			t.Errorf("%s: %v does not name the promise", c.name, err)
		}
	}
}

func TestR19RestartedSequencerIsClosedUntilAHigherEpoch(t *testing.T) {
	s := New(5)
	if err := s.Seal(5); !errors.Is(err, ErrPromised) {
		t.Errorf("seal at the old promise: %v", err)
	}
	if _, _, err := s.Activate(log1, 5, 0); !errors.Is(err, ErrNotSealed) {
		t.Errorf("activate at the old promise: %v", err)
	}
	if err := s.Serves(log1, 5); !errors.Is(err, ErrNotServing) {
		t.Errorf("serves the old epoch: %v", err)
	}
	if err := s.Seal(6); err != nil {
		t.Error(err)
	}
}

func TestActivate(t *testing.T) {
	s := opened(t)
	if _, fresh, err := s.Activate(log1, 5, 100); fresh || err != nil {
		t.Errorf("again: fresh %v, %v", fresh, err)
	}
	for name, err := range map[string]error{
		"another start": second(s.Activate(log1, 5, 101)),
		"another log":   second(s.Activate(layout.LogID{2}, 5, 100)),
		"another epoch": second(s.Activate(log1, 6, 100)),
	} {
		if !errors.Is(err, ErrNotSealed) {
			t.Errorf("%s: %v, want ErrNotSealed", name, err)
		}
	}
	if want := (Sequencer{Open, 5, log1, 100, 100}); *s != want {
		t.Errorf("became %+v", *s)
	}
	if err := s.Seal(6); err != nil {
		t.Fatal(err)
	}
	if err := second(s.Activate(layout.LogID{}, 6, 0)); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("no log: %v", err)
	}
	if err := second(s.Activate(log1, 6, LastStart+1)); !errors.Is(err, ErrExhausted) || s.Phase() != Sealed {
		t.Errorf("beyond the last start: %v, %v", err, s.Phase())
	}
	if w, _, err := s.Activate(log1, 6, LastStart); err != nil || w.Next() != LastStart {
		t.Errorf("the last start: %v, %v", w, err)
	}
}

func second(_ wire.SeqWord, _ bool, err error) error { return err }

func TestServes(t *testing.T) {
	s := opened(t)
	if err := s.Serves(log1, 5); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{"epoch": s.Serves(log1, 4), "log": s.Serves(layout.LogID{2}, 5)} {
		if !errors.Is(err, ErrNotServing) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	s.Close()
	if want := (Sequencer{promise: 5}); !reflect.DeepEqual(*s, want) || !errors.Is(s.Serves(log1, 5), ErrNotServing) {
		t.Errorf("closed: %+v", *s)
	}
}

func TestInspectFindsWhatFetchAddsCannotHaveDone(t *testing.T) {
	w := wire.MakeSeqWord(5, 100)
	for name, bad := range map[string]wire.SeqWord{
		"before the start":       w - 1,
		"going back":             w + 16,
		"another epoch":          wire.MakeSeqWord(6, 117),
		"carried into the epoch": w + 17 + 1<<48,
		"further than can be":    w + 17 + MaxAdvance + 1,
		"into the reserve":       wire.MakeSeqWord(5, layout.MaxPosition-Reserve/2+1),
	} {
		s := opened(t)
		for _, n := range []uint64{0, 17, 17} {
			if got, err := s.Inspect(w + wire.SeqWord(n)); got != n || err != nil {
				t.Errorf("after %d tokens: %d, %v", n, got, err)
			}
		}
		if _, err := s.Inspect(bad); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := s.Inspect(w + 17 + MaxAdvance); n != 17+MaxAdvance || err != nil {
			t.Errorf("%s, and then what can be: %d, %v", name, n, err)
		}
	}
}

func TestInspectTellsWhenPositionsRunOut(t *testing.T) {
	s := New(0)
	if err := s.Seal(5); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Activate(layout.LogID{1}, 5, LastStart); err != nil {
		t.Fatal(err)
	}
	last := layout.MaxPosition - Reserve/2
	for p := LastStart; p < last; p = min(last, p+MaxAdvance) {
		if _, err := s.Inspect(wire.MakeSeqWord(5, p)); err != nil {
			t.Fatalf("at %d: %v", p, err)
		}
	}
	if _, err := s.Inspect(wire.MakeSeqWord(5, last)); err != nil {
		t.Errorf("the last position before the reserve: %v", err)
	}
	if _, err := s.Inspect(wire.MakeSeqWord(5, last+1)); !errors.Is(err, ErrExhausted) {
		t.Errorf("in the reserve: %v", err)
	}
}

// The word has 16 bits for the epoch: epochs that are 65,536 apart look alike in it. A token of one that is taken for the other is
// harmless: it is spent on index words, which compare 36 bits (rule R8).
func TestR8WordOfAnEpoch65536LaterLooksTheSame(t *testing.T) {
	for _, e := range []layout.Epoch{1, 65535, 65536, 65537, layout.MaxEpoch} {
		w := wire.MakeSeqWord(e, 42)
		if !w.Of(e) || w.Next() != 42 {
			t.Errorf("epoch %d: %#x", e, uint64(w))
		}
		if w.Of(e + 1) {
			t.Errorf("epoch %d passes for %d", e, e+1)
		}
		if !w.Of(e + 65536) {
			t.Errorf("epoch %d does not wrap", e)
		}
		if wire.EmptyWord(0, e) == wire.EmptyWord(0, (e+65536)&layout.MaxEpoch) {
			t.Errorf("the index words of epochs %d and %d are the same", e, e+65536)
		}
	}
}
