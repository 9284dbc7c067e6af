package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

func TestAppendAndRead(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l := c.open(client.Options{})
		ctx := within(t)
		payloads := [][]byte{[]byte("first"), {}, bytes.Repeat([]byte{7}, l.PagePayload()), []byte("last")}
		for i, want := range payloads {
			p, err := l.Append(ctx, want)
			if err != nil {
				t.Fatalf("append %d: %v", i, err)
			}
			if p != layout.Position(i) {
				t.Errorf("append %d got position %d", i, p)
			}
			got, err := l.Read(ctx, p)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d: %d bytes, %v; want %d bytes", p, len(got), err, len(want))
			}
		}
		if _, err := l.Append(ctx, make([]byte, l.MaxPayload()+1)); !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("one byte too many: %v, want ErrTooLarge", err)
		}
		if tail, err := l.Tail(ctx); err != nil || tail != 4 {
			t.Errorf("tail %d, %v; want 4", tail, err)
		}
		if tail, err := l.SlowTail(ctx); err != nil || tail != 4 {
			t.Errorf("slow tail %d, %v; want 4", tail, err)
		}
		if _, err := l.Read(ctx, 4); !errors.Is(err, client.ErrUnwritten) {
			t.Errorf("read at the tail: %v, want ErrUnwritten", err)
		}
	})
}

// Many goroutines append more than the window holds several times over, and read it all back: warm, cold, and in order.
func TestManyGoroutines(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l := c.open(client.Options{})
		ctx := within(t)
		const workers, each = 16, 128
		var mu sync.Mutex
		written := map[layout.Position]string{}
		var wg sync.WaitGroup
		for w := range workers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range each {
					payload := fmt.Sprintf("worker %d entry %d", w, i)
					p, err := l.Append(ctx, []byte(payload))
					if err != nil {
						t.Errorf("append: %v", err)
						return
					}
					mu.Lock()
					if was, dup := written[p]; dup {
						t.Errorf("position %d for %q and %q", p, was, payload)
					}
					written[p] = payload
					mu.Unlock()
				}
			}()
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		tail, err := l.Tail(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got := map[layout.Position]string{}
		last := -1
		for e, err := range l.ReadRange(ctx, 0, tail) {
			if err != nil {
				t.Fatalf("read range at %d: %v", e.Position, err)
			}
			if int(e.Position) <= last {
				t.Errorf("position %d after %d", e.Position, last)
			}
			last = int(e.Position)
			got[e.Position] = string(e.Payload)
		}
		if len(got) != workers*each {
			t.Errorf("%d entries read, %d written", len(got), workers*each)
		}
		for p, want := range written {
			if got[p] != want {
				t.Errorf("position %d holds %q, want %q", p, got[p], want)
			}
		}
	})
}

func TestAppendAsync(t *testing.T) {
	c := start(t, devcluster.Options{})
	l := c.open(client.Options{MaxOutstanding: 32})
	ctx := within(t)
	const n = 300
	type result struct {
		i   int
		p   layout.Position
		err error
	}
	results := make(chan result, n)
	buf := make([]byte, 32)
	for i := range n {
		payload := fmt.Appendf(buf[:0], "entry %d", i) // the same bytes again and again: it is copied
		err := l.AppendAsync(ctx, payload, func(p layout.Position, err error) { results <- result{i, p, err} })
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := map[layout.Position]bool{}
	for range n {
		r := <-results
		if r.err != nil || seen[r.p] {
			t.Fatalf("entry %d: position %d (seen: %v), %v", r.i, r.p, seen[r.p], r.err)
		}
		seen[r.p] = true
		if got, err := l.Read(ctx, r.p); err != nil || string(got) != fmt.Sprintf("entry %d", r.i) {
			t.Errorf("position %d: %q, %v; want entry %d", r.p, got, err, r.i)
		}
	}
}
