package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// fragmentBytes is how much of an entry a fragment of 4 KiB carries.
const fragmentBytes = 4096 - 64 - 20

// pages is how many positions a payload takes.
func pages(size int) int {
	if size <= 4096-64 {
		return 1
	}
	return (size + fragmentBytes - 1) / fragmentBytes
}

// patterned makes a payload in which no two pages are alike.
func patterned(seed, size int) []byte {
	b := make([]byte, size)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// sizesAtBoundaries: of a page, of two and three fragments, of the largest entry.
var sizesAtBoundaries = []int{0, 1, 4031, 4032, 4033, 2*fragmentBytes - 1, 2 * fragmentBytes, 2*fragmentBytes + 1, 3 * fragmentBytes, 100_000, 1<<20 - 1, 1 << 20}

func TestLargeEntriesOfAllSizes(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l, other, ctx := c.open(client.Options{}), c.open(client.Options{}), within(t)
		if l.PagePayload() != 4032 || l.MaxPayload() != 1<<20 {
			t.Errorf("limits %d and %d", l.PagePayload(), l.MaxPayload())
		}
		next := layout.Position(0)
		for seed, size := range sizesAtBoundaries {
			want := patterned(seed, size)
			p, err := l.Append(ctx, want)
			if err != nil || p != next {
				t.Fatalf("%d bytes: position %d, %v; want %d", size, p, err, next)
			}
			next += layout.Position(pages(size))
			if got, err := other.Read(ctx, p); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes at %d: read %d bytes, %v", size, p, len(got), err)
			}
			for _, q := range []layout.Position{p + 1, next - 1} {
				var inside *client.FragmentError
				if _, err := other.Read(ctx, q); q > p && q < next && (!errors.As(err, &inside) || *inside != client.FragmentError{Position: q, First: p}) {
					t.Errorf("read %d inside the entry at %d: %v", q, p, err)
				}
			}
		}
		if _, err := l.Append(ctx, make([]byte, 1<<20+1)); !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("one byte too many: %v", err)
		}
		if err := l.AppendAsync(ctx, make([]byte, 1<<20+1), nil); !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("one byte too many, later: %v", err)
		}
		if tail, err := l.Tail(ctx); err != nil || tail != next {
			t.Errorf("tail %d, %v; want %d", tail, err, next)
		}
		wantEntries(t, ctx, other, 0, next, sizesAtBoundaries)
	})
}

// wantEntries checks that a range gives just the patterned entries of these sizes, by the index of each.
func wantEntries(t *testing.T, ctx context.Context, l *client.Log, from, to layout.Position, sizes []int) {
	t.Helper()
	var got []int
	for e, err := range l.ReadRange(ctx, from, to) {
		if err != nil {
			t.Fatalf("range at %d: %v", e.Position, err)
		}
		if n := len(got); n < len(sizes) && !bytes.Equal(e.Payload, patterned(n, sizes[n])) {
			t.Errorf("entry %d at %d: %d bytes that are not those written", n, e.Position, len(e.Payload))
		}
		got = append(got, len(e.Payload))
	}
	if fmt.Sprint(got) != fmt.Sprint(sizes) {
		t.Errorf("entries of %v bytes, want %v", got, sizes)
	}
}

// Many large appends at once, by several clients, small ones among them, with a follower that reads right behind
// them and a window that is a fraction of it all: everything is there once, and whole.
func TestManyLargeAppendsAtOnce(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		ctx := within(t)
		const clients = 3
		hole, each := 200*time.Millisecond, 10 // for a fragment 2 s: a busy machine may hold up its writer
		if os.Getenv("CORFU_LAB") == "1" {     // everything is slower there
			hole, each = 300*time.Millisecond, 3
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		written := map[layout.Position][]byte{}
		for i := range clients {
			l := c.open(client.Options{MaxOutstanding: 4, HoleTimeout: hole})
			for j := range each {
				payload := patterned(i*each+j, []int{300_000, 17, 9_000, 1 << 20, 4032}[(i+j)%5])
				wg.Add(1)
				done := func(p layout.Position, err error) {
					defer wg.Done()
					if err != nil {
						t.Errorf("append of %d bytes: %v", len(payload), err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					written[p] = payload
				}
				if j%2 == 0 {
					go func() { done(l.Append(ctx, payload)) }()
					continue
				}
				again := append([]byte(nil), payload...)
				if err := l.AppendAsync(ctx, again, done); err != nil {
					t.Fatal(err)
				}
				clear(again) // it was copied
			}
		}
		follower := c.open(client.Options{HoleTimeout: hole})
		followed := make(chan map[layout.Position][]byte, 1)
		go func() {
			got := map[layout.Position][]byte{}
			for e, err := range follower.Follow(ctx, 0) {
				if err != nil {
					t.Errorf("follow: %v", err)
					break
				}
				if got[e.Position] = e.Payload; len(got) == clients*each {
					break
				}
			}
			followed <- got
		}()
		wg.Wait()
		if t.Failed() {
			return
		}
		got := <-followed
		for p, want := range written {
			if !bytes.Equal(got[p], want) {
				t.Errorf("followed %d bytes at %d, want %d", len(got[p]), p, len(want))
			}
		}
		if len(written) != clients*each || len(got) != len(written) {
			t.Errorf("%d entries written, %d followed, of %d", len(written), len(got), clients*each)
		}
	})
}

// Epochs change while large appends are under way: what is acknowledged is read whole, nothing is there twice.
func TestLargeAppendsGoOnThroughEpochs(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l, ctx := c.open(client.Options{}), within(t)
		load, stop := context.WithCancel(ctx)
		defer stop()
		var mu sync.Mutex
		written := map[layout.Position]int{}
		await := func(more int) { // until so many more are acknowledged
			acked := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(written)
			}
			for want := acked() + more; acked() < want && ctx.Err() == nil && !t.Failed(); {
				time.Sleep(time.Millisecond)
			}
		}
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for n := w; load.Err() == nil; n += 3 {
					p, err := l.Append(ctx, patterned(n, 20_000+n*100))
					if err != nil {
						t.Errorf("append: %v", err)
						return
					}
					mu.Lock()
					written[p] = n
					mu.Unlock()
				}
			})
		}
		for range 3 {
			await(5)
			if _, err := c.Reconfigure(ctx); err != nil {
				t.Error(err)
			}
		}
		await(5)
		stop()
		wg.Wait()
		tail, err := l.Tail(ctx)
		if err != nil {
			t.Fatal(err)
		}
		read := map[layout.Position]int{}
		for e, err := range c.open(client.Options{}).ReadRange(ctx, 0, tail) {
			if err != nil {
				t.Fatal(err)
			}
			n := (len(e.Payload) - 20_000) / 100
			if !bytes.Equal(e.Payload, patterned(n, 20_000+n*100)) {
				t.Errorf("position %d: not what was written", e.Position)
			}
			read[e.Position] = n
		}
		if fmt.Sprint(read) != fmt.Sprint(written) || len(read) < 20 {
			t.Errorf("read %v\nwritten %v", read, written)
		}
	})
}

// A range that begins inside an entry skips it; one that ends inside an entry gives it whole.
func TestRangesThatCutLargeEntries(t *testing.T) {
	c := start(t, devcluster.Options{})
	l, ctx := c.open(client.Options{}), within(t)
	sizes := []int{3 * fragmentBytes, 10, 40 * fragmentBytes, 20} // at 0, 3, 4, 44
	for i, size := range sizes {
		if _, err := l.Append(ctx, patterned(i, size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		from, to layout.Position
		want     []layout.Position
	}{
		{0, 45, []layout.Position{0, 3, 4, 44}},
		{1, 45, []layout.Position{3, 4, 44}},
		{1, 3, nil},
		{0, 1, []layout.Position{0}},
		{2, 5, []layout.Position{3, 4}},
		{5, 44, nil},
		{43, 45, []layout.Position{44}},
	} {
		var got []layout.Position
		for e, err := range l.ReadRange(ctx, c.from, c.to) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Position)
			i := map[layout.Position]int{0: 0, 3: 1, 4: 2, 44: 3}[e.Position]
			if !bytes.Equal(e.Payload, patterned(i, sizes[i])) {
				t.Errorf("entry %d: %d bytes that are not those written", e.Position, len(e.Payload))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("from %d to %d: entries at %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func TestTrimOfLargeEntries(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l, ctx := c.open(client.Options{}), within(t)
		const n = 4 // entries, of 5 positions each
		for i := range n {
			if _, err := l.Append(ctx, patterned(i, 5*fragmentBytes)); err != nil {
				t.Fatal(err)
			}
		}
		wantTrimmed := func(from, to layout.Position) {
			t.Helper()
			for p := from; p < to; p++ {
				if _, err := l.Read(ctx, p); !errors.Is(err, client.ErrTrimmed) {
					t.Errorf("read %d: %v, want ErrTrimmed", p, err)
				}
			}
		}
		for range 2 {
			if err := l.Trim(ctx, 0); err != nil { // by the first position
				t.Fatal(err)
			}
		}
		wantTrimmed(0, 5)
		if err := l.Trim(ctx, 8); err != nil { // by another
			t.Fatal(err)
		}
		wantTrimmed(5, 10)
		if err := l.TrimPrefix(ctx, 12); err != nil { // through the middle
			t.Fatal(err)
		}
		wantTrimmed(10, 15)
		if got, err := l.Read(ctx, 15); err != nil || !bytes.Equal(got, patterned(3, 5*fragmentBytes)) {
			t.Errorf("the last one: %d bytes, %v", len(got), err)
		}
	})
}
