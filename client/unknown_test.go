package client

import (
	"context"
	"errors"
	"testing"

	"corfu/layout"
)

// doubt is the error of an append that broke off at a.
func doubt(t *testing.T, a *attempt) *UnknownError {
	t.Helper()
	var u *UnknownError
	if err := a.l.unknown(a.pos, a.id, a.view.epoch(), broke); !errors.As(err, &u) || !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	return u
}

// wantResolved checks an answer, and that it is the same when it is asked for again, and what is read.
func wantResolved(t *testing.T, ctx context.Context, u *UnknownError, found bool) {
	t.Helper()
	for range 2 {
		p, got, err := u.Resolve(ctx)
		if err != nil || got != found || (found && p != u.Position) {
			t.Fatalf("resolved to position %d, found %v, %v; want position %d, found %v", p, got, err, u.Position, found)
		}
		e, err := u.l.ReadEntry(ctx, u.Position)
		if there := err == nil && e.ID == u.ID; there != found {
			t.Fatalf("position %d is read as entry %v, %v; the append was %v, and found is %v", u.Position, e.ID, err, u.ID, found)
		}
	}
}

func TestR9ResolveInTheSameEpoch(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		for name, c := range map[string]struct {
			head  bool                  // it was published at the head
			after func(u *UnknownError) // what somebody else does then
			found bool
		}{
			"published at the head":               {true, nil, true},
			"published and completed by a reader": {true, func(u *UnknownError) { _ = other.Fill(r.ctx, u.Position) }, true},
			"not published":                       {false, nil, false},
			"filled by another":                   {false, func(u *UnknownError) { _ = other.Fill(r.ctx, u.Position) }, false},
		} {
			t.Run(name, func(t *testing.T) {
				a, v := r.half(l, name, c.head)
				u := doubt(t, a)
				if c.after != nil {
					c.after(u)
				}
				wantResolved(t, r.ctx, u, c.found)
				if !c.found { // final: what was on its way does not land any more
					if out, err := a.write(r.ctx, v); out == outDone {
						t.Errorf("published after the answer: %v", err)
					}
					wantResolved(t, r.ctx, u, false)
				}
				a.recycle(false)
			})
		}
	})
}

func TestR9ResolveInANewEpoch(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		for name, c := range map[string]struct {
			head, again bool // it was published at the head; its position was handed out again
			found       bool
		}{
			"published at the head":         {head: true, found: true},
			"not published":                 {},
			"not published, and handed out": {again: true},
		} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, d)
				l, other := r.open(), r.open()
				if _, err := other.Append(r.ctx, nil); err != nil {
					t.Fatal(err)
				}
				a, _ := r.half(l, name, c.head)
				u := doubt(t, a)
				if _, err := r.Reconfigure(r.ctx); err != nil {
					t.Fatal(err)
				}
				if c.again {
					if p, err := other.Append(r.ctx, []byte("of the new epoch")); err != nil || p != u.Position {
						t.Fatalf("position %d, %v; want %d", p, err, u.Position)
					}
				}
				if err := l.refresh(r.ctx, a.view); err != nil {
					t.Fatal(err)
				}
				wantResolved(t, r.ctx, u, c.found)
				a.recycle(false)
			})
		}
	})
}

// TRIMMED at one's own position is never "lost": it may have been ours.
func TestR9ResolveOfATrimmedPositionIsUnknown(t *testing.T) {
	r := newRig(t, layout.Flash)
	l, other := r.open(), r.open()
	trims := map[string]func(Position) error{
		"by itself": func(p Position) error { return other.Trim(r.ctx, p) },
		"a prefix":  func(p Position) error { return other.TrimPrefix(r.ctx, p+1) },
	}
	for name, trim := range trims {
		for _, head := range []bool{true, false} {
			a, _ := r.half(l, "may be there", head)
			u := doubt(t, a)
			if err := trim(u.Position); err != nil {
				t.Fatal(err)
			}
			if p, found, err := u.Resolve(r.ctx); found || !errors.Is(err, ErrUnknown) || !errors.Is(err, ErrTrimmed) {
				t.Errorf("trimmed %s: position %d, found %v, %v; want ErrUnknown and ErrTrimmed", name, p, found, err)
			}
			a.recycle(false)
		}
	}
}

// Large appends: whole, or torn.
func TestR9ResolveOfLargeAppends(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l := r.open()
		l.o.HoleTimeout = 1 // a fragment has ten times that
		for name, c := range map[string]struct {
			put   []int
			epoch bool
			found bool
		}{
			"all are there":           {put: []int{0, 1, 2}, found: true},
			"the last one is not":     {put: []int{0, 1}},
			"the first one is not":    {put: []int{1, 2}},
			"none is":                 {},
			"whole, in a new epoch":   {put: []int{0, 1, 2}, epoch: true, found: true},
			"torn, in a new epoch":    {put: []int{0, 1}, epoch: true},
			"nothing, in a new epoch": {epoch: true},
		} {
			t.Run(name, func(t *testing.T) {
				e := r.begun(l, 3)
				r.put(e, c.put...)
				var u *UnknownError
				if err := l.unknown(e.first, e.frag.Entry, e.v.epoch(), broke); !errors.As(err, &u) {
					t.Fatal(err)
				}
				if c.epoch {
					if _, err := r.Reconfigure(r.ctx); err != nil {
						t.Fatal(err)
					}
					if err := l.refresh(r.ctx, e.v); err != nil {
						t.Fatal(err)
					}
				}
				wantResolved(t, r.ctx, u, c.found)
			})
		}
	})
}

// What cannot be found out stays unknown; it can be asked for again.
func TestResolveThatFailsIsUnknown(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	a, _ := r.half(l, "there", true)
	u := doubt(t, a)
	ended, cancel := context.WithCancel(r.ctx)
	cancel()
	if _, found, err := u.Resolve(ended); found || !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("its time is over: found %v, %v", found, err)
	}
	wantResolved(t, r.ctx, u, true)
	a.recycle(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, found, err := u.Resolve(r.ctx); found || !errors.Is(err, ErrUnknown) || !errors.Is(err, ErrClosed) {
		t.Errorf("the log is closed: found %v, %v", found, err)
	}
	if _, found, err := (&UnknownError{Position: 7}).Resolve(r.ctx); found || !errors.Is(err, ErrUnknown) {
		t.Errorf("of no log: found %v, %v", found, err)
	}
	e, err := r.open().ReadEntry(r.ctx, u.Position)
	if err != nil || e.ID != u.ID {
		t.Errorf("another log reads entry %v, %v; want %v", e.ID, err, u.ID)
	}
	if back, err := ParseEntryID(u.ID.String()); err != nil || back != u.ID || u.ID == 0 {
		t.Errorf("%v is read as %v, %v", u.ID, back, err)
	}
	if _, err := ParseEntryID("x"); err == nil {
		t.Error("an id that is no number is read")
	}
}

// Appends that are cut short by their contexts carry what Resolve needs, and each is where it says, or nowhere.
func TestUnknownAppendsAreResolved(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		if _, err := l.Append(r.ctx, nil); err != nil {
			t.Fatal(err)
		}
		resolved := map[EntryID]bool{}
		at := map[EntryID]Position{}
		for i := 0; len(resolved) < 10 && r.ctx.Err() == nil; i++ {
			payload := []byte("small")
			if i%2 == 0 {
				payload = largeOf(5)
			}
			v, err := try(r.ctx, l, func(v *view) (*view, error) { return v, v.ready(r.ctx) })
			if err != nil {
				t.Fatal(err)
			}
			s := v.units[v.layout.Segments[len(v.layout.Segments)-1].Chains[0].Head()].cur.Load()
			var slots []int
			for len(s.slots.free) > 0 { // it stops with its position in hand
				slots = append(slots, <-s.slots.free)
			}
			tail := v.tail.Load()
			ctx, cancel := context.WithCancel(r.ctx)
			done := make(chan error, 1)
			if err := l.AppendAsync(ctx, payload, func(_ Position, err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			Until(t, "the append to have a position", func() bool { return v.tail.Load() > tail || v.retired() })
			cancel()
			if i%3 == 0 { // it will never be published there
				Break(l)
			}
			for _, slot := range slots {
				s.slots.free <- slot
			}
			var u *UnknownError
			if err := <-done; !errors.As(err, &u) {
				continue // it was settled at once
			}
			p, found, err := u.Resolve(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if at[u.ID] = p; resolved[u.ID] {
				t.Fatalf("two appends have the id %v", u.ID)
			}
			resolved[u.ID] = true
			e, err := other.ReadEntry(r.ctx, u.Position)
			if there := err == nil && e.ID == u.ID; there != found {
				t.Errorf("%v: found %v, and read %v, %v", u, found, e.ID, err)
			}
		}
		if len(resolved) < 10 {
			t.Errorf("%d outcomes were unknown", len(resolved))
		}
	})
}
