package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// fillLog appends n entries.
func fillLog(t *testing.T, l *client.Log, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		if err := l.AppendAsync(within(t), []byte("x"), func(_ layout.Position, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

// A reader behind a trimmed prefix hears of it, and where to go on, by a few reads: whatever the
// number of positions, of chains and of segments.
func TestReadersBehindATrimAreToldAtOnce(t *testing.T) {
	c := start(t, devcluster.Options{Chains: 3, Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 16, MaxSessions: 8}})
	l := c.open(client.Options{})
	fillLog(t, l, 3000)
	if _, err := c.Reconfigure(within(t)); err != nil {
		t.Fatal(err)
	}
	fillLog(t, l, 500)
	tail, err := l.Tail(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []layout.Position{1, 2000, 2999, 3100, tail - 10, tail} {
		if err := l.TrimPrefix(within(t), cut); err != nil {
			t.Fatal(err)
		}
		reg := prometheus.NewRegistry()
		r := c.open(client.Options{Registerer: reg})
		iterators := map[string]func() error{
			"ReadRange": func() error {
				for _, err := range r.ReadRange(within(t), 0, tail) {
					return err
				}
				return nil
			},
			"Follow": func() error {
				for _, err := range r.Follow(within(t), 0) {
					return err
				}
				return nil
			},
		}
		for name, first := range iterators {
			var e *client.TrimmedError
			if err := first(); !errors.As(err, &e) || e.From != 0 || e.To != cut {
				t.Errorf("%s from 0, trimmed below %d: %v; want positions 0 to %d", name, cut, err, cut-1)
			}
		}
		if n := counterOf(t, reg, "corfu_client_cold_reads_total"); n > 2*(64+3*2) {
			t.Errorf("trimmed below %d: %v cold reads to find that out", cut, n)
		}
		n := layout.Position(0)
		for e, err := range r.ReadRange(within(t), cut, tail) {
			if err != nil {
				t.Fatalf("behind the trim: %v", err)
			}
			if e.Position < cut {
				t.Errorf("position %d was trimmed", e.Position)
			}
			n++
		}
		if n > tail-cut || n+20 < tail-cut {
			t.Errorf("%d entries behind %d, of %d positions", n, cut, tail-cut)
		}
	}
}

// FirstPosition is where the last prefix trim ended, and SkipTrimmed goes on there in one step, and says what it passed over.
func TestReadersSkipATrimWhenTold(t *testing.T) {
	c := start(t, devcluster.Options{Chains: 3, Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 16, MaxSessions: 8}})
	l := c.open(client.Options{})
	first := func(want layout.Position) {
		t.Helper()
		if p, err := l.FirstPosition(within(t)); err != nil || p != want {
			t.Errorf("FirstPosition is %d, %v; want %d", p, err, want)
		}
	}
	first(0)
	fillLog(t, l, 1000)
	first(0)
	if err := l.Trim(within(t), 0); err != nil { // by itself: no prefix
		t.Fatal(err)
	}
	first(0)
	if _, err := c.Reconfigure(within(t)); err != nil {
		t.Fatal(err)
	}
	fillLog(t, l, 100)
	tail, err := l.Tail(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []layout.Position{1, 700, tail - 5, tail} {
		if err := l.TrimPrefix(within(t), cut); err != nil {
			t.Fatal(err)
		}
		first(cut)
		var told []string
		skip := client.SkipTrimmed(func(e *client.TrimmedError) { told = append(told, fmt.Sprintf("%d-%d", e.From, e.To)) })
		want := fmt.Sprintf("[0-%d]", cut)
		reg := prometheus.NewRegistry()
		r := c.open(client.Options{Registerer: reg})
		for e, err := range r.ReadRange(within(t), 0, cut, skip) { // all of it is trimmed
			t.Errorf("a range that was trimmed: %d, %v", e.Position, err)
		}
		if fmt.Sprint(told) != want {
			t.Errorf("a range that was trimmed: told of %v, want %s", told, want)
		}
		if n := counterOf(t, reg, "corfu_client_cold_reads_total"); n > 64+3*2 {
			t.Errorf("trimmed below %d: %v cold reads to get behind it", cut, n)
		}
		told = nil
		next := cut
		for e, err := range r.ReadRange(within(t), 0, tail, skip) {
			if err != nil || e.Position < next {
				t.Fatalf("position %d, %v; want %d or behind", e.Position, err, next)
			}
			next = e.Position + 1
		}
		if fmt.Sprint(told) != want || next+20 < tail {
			t.Errorf("trimmed below %d: told of %v, the last entry is at %d of %d", cut, told, next-1, tail)
		}
		for _, err := range r.ReadRange(within(t), 0, cut, client.SkipTrimmed(nil)) {
			t.Errorf("nobody to be told: %v", err)
		}
	}
	// A follower goes on behind the trim, though it ends at the tail, and is told; so is one by records.
	if _, err := l.AppendBatch(within(t), [][]byte{[]byte("a"), []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if err := l.TrimPrefix(within(t), tail+1); err != nil {
		t.Fatal(err)
	}
	told, got := 0, ""
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var appending sync.WaitGroup
	for r, err := range l.Records(ctx, 0, client.SkipTrimmed(func(e *client.TrimmedError) {
		if told++; e.From != 0 || e.To != tail+1 {
			t.Errorf("a follower: %v, want positions 0 to %d", e, tail)
		}
		appending.Go(func() { // there is nothing to be read before that
			if _, err := l.AppendBatch(ctx, [][]byte{[]byte("c"), []byte("d")}); err != nil {
				t.Error(err)
			}
		})
	})) {
		if err != nil {
			t.Fatal(err)
		}
		if got += string(r.Data); got == "cd" {
			break
		}
	}
	if told != 1 || got != "cd" {
		t.Errorf("a follower: told %d times, read %q; want once, cd", told, got)
	}
	appending.Wait() // an entry may be read before its append is acknowledged
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.FirstPosition(within(t)); !errors.Is(err, client.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A follower that a trim overtakes gets an error, and no gap; single positions that were trimmed
// are passed over.
func TestFollowerOvertakenByATrimIsTold(t *testing.T) {
	c := start(t, devcluster.Options{Chains: 2, Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 16, MaxSessions: 8}})
	l := c.open(client.Options{})
	const n, cut = 1000, 900
	fillLog(t, l, n)
	if err := l.Trim(within(t), 3); err != nil {
		t.Fatal(err)
	}
	next, got := layout.Position(0), 0
	var told *client.TrimmedError
	for e, err := range l.Follow(within(t), 0) {
		if err != nil {
			if !errors.As(err, &told) {
				t.Fatal(err)
			}
			break
		}
		if e.Position > next+32 { // junk of slow appends, and position 3, are passed over
			t.Fatalf("after %d comes %d, and no error", next-1, e.Position)
		}
		next = e.Position + 1
		if got++; got == 50 {
			if err := l.TrimPrefix(within(t), cut); err != nil {
				t.Fatal(err)
			}
		}
		if next >= cut {
			t.Fatal("the trim was never met")
		}
	}
	if told.From != next || told.To != cut {
		t.Errorf("%v; want positions %d to %d", told, next, cut-1)
	}
}

// A cursor above the tail is one that the log has forgotten: it is told so, and does not wait for
// ever.
func TestCursorAboveTheTailIsAnError(t *testing.T) {
	c := start(t, devcluster.Options{})
	l := c.open(client.Options{})
	fillLog(t, l, 10)
	tail, err := l.Tail(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var e *client.BeyondTailError
	for _, err := range l.Follow(within(t), tail+5) {
		if !errors.As(err, &e) || !errors.Is(err, client.ErrBeyondTail) || *e != (client.BeyondTailError{Position: tail + 5, Tail: tail, Epoch: l.Layout().Epoch}) {
			t.Errorf("%v; want that position %d is beyond the tail, %d", err, tail+5, tail)
		}
	}
	if e == nil {
		t.Error("no error")
	}
}
