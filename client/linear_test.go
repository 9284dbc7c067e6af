package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/history"
	"corfu/layout"
)

// recorder notes the calls of concurrent clients: each position is a register that is written once.
type recorder struct {
	start time.Time
	ids   atomic.Int64
	acked atomic.Int64 // appends
	mu    sync.Mutex
	known history.History
}

// room bounds the history: what porcupine checks must fit into memory and time.
func (h *recorder) room() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.known.Ops) < 12000
}

// await returns once n more appends are acknowledged.
func (h *recorder) await(ctx context.Context, t *testing.T, n int64) {
	for want := h.acked.Load() + n; h.acked.Load() < want; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil || t.Failed() || !h.room() {
			t.Errorf("%d appends acknowledged, not %d", h.acked.Load(), want)
			return
		}
	}
}

func (h *recorder) now() int64 { return int64(time.Since(h.start)) }

func (h *recorder) add(op history.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.Ops = append(h.known.Ops, op)
}

// padded makes the tag of a payload as long as it should be.
func padded(tag string, size int) []byte {
	return append([]byte(tag), strings.Repeat("+", max(0, size-len(tag)))...)
}

// append appends a payload that nobody else does, and records what became of it at each of its positions.
func (h *recorder) append(ctx context.Context, t *testing.T, l *client.Log, id, n, size int) {
	tag := fmt.Sprintf("%d.%d/%d", id, n, size)
	add := func(kind history.Kind, first layout.Position, called, returned int64) {
		op := history.Op{Client: id, Kind: kind, Position: first, Payload: tag, Called: called, Returned: returned}
		h.add(op)
		for op.Position++; op.Position < first+layout.Position(pages(size)); op.Position++ {
			op.Payload = history.Inside(first)
			h.add(op)
		}
	}
	called := h.now()
	p, err := l.Append(ctx, padded(tag, size))
	var unknown *client.UnknownError
	switch {
	case err == nil:
		add(history.Append, p, called, h.now())
		h.acked.Add(1)
	case errors.As(err, &unknown):
		add(history.Maybe, unknown.Position, called, history.Never)
	default:
		t.Errorf("append: %v", err)
	}
}

func (h *recorder) read(ctx context.Context, t *testing.T, l *client.Log, id int, p layout.Position) {
	called := h.now()
	got, err := l.Read(ctx, p)
	out := strings.TrimRight(string(got), "+")
	var part *client.FragmentError
	switch {
	case err == nil:
		if _, size, _ := strings.Cut(out, "/"); fmt.Sprint(len(got)) != size && len(got) != len(out) {
			t.Errorf("read %d: %q in %d bytes", p, out, len(got))
		}
	case errors.As(err, &part):
		out = history.Inside(part.First)
	case errors.Is(err, client.ErrJunk):
		out = history.Junk
	case errors.Is(err, client.ErrUnwritten):
		out = history.Unwritten
	default:
		t.Errorf("read %d: %v", p, err)
		return
	}
	h.add(history.Op{Client: id, Kind: history.Read, Position: p, Out: out, Called: called, Returned: h.now()})
}

func (h *recorder) fill(ctx context.Context, t *testing.T, l *client.Log, id int, p layout.Position) {
	called := h.now()
	switch err := l.Fill(ctx, p); {
	case err == nil:
		h.add(history.Op{Client: id, Kind: history.Fill, Position: p, Called: called, Returned: h.now()})
	case !errors.Is(err, client.ErrUnwritten):
		t.Errorf("fill %d: %v", p, err)
	}
}

func (h *recorder) tail(ctx context.Context, t *testing.T, l *client.Log) layout.Position {
	called := h.now()
	p, err := l.Tail(ctx)
	if err != nil {
		t.Errorf("tail: %v", err)
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.Tails = append(h.known.Tails, history.Tail{Called: called, Tail: p})
	return p
}

// Histories of concurrent appenders, readers and fillers, with a seal in the middle and connections
// that break, are linearizable: each position is a register written once.
func TestLinearizable(t *testing.T) {
	client.AllDurabilities(t, []layout.Durability{layout.Flash, layout.Memory}, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		// One client is so impatient that it takes positions from appenders. In the lab everything is slower.
		impatient, patient, appends := 2*time.Millisecond, 20*time.Millisecond, int64(150)
		if os.Getenv("CORFU_LAB") == "1" {
			impatient, patient, appends = 30*time.Millisecond, 300*time.Millisecond, 20
		}
		h := &recorder{start: time.Now()}
		ctx := within(t)
		logs := []*client.Log{
			c.open(client.Options{HoleTimeout: impatient}),
			c.open(client.Options{HoleTimeout: patient}),
			c.open(client.Options{HoleTimeout: patient}),
		}
		load, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		run := func(fn func(l *client.Log, id, n int)) {
			id := int(h.ids.Add(1)) - 1
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; load.Err() == nil && h.room(); n++ {
					fn(logs[id%len(logs)], id, n)
				}
			}()
		}
		var last atomic.Uint64
		near := func() layout.Position {
			return layout.Position(max(0, int64(last.Load())+4-rand.Int64N(16)))
		}
		for i := range 6 {
			run(func(l *client.Log, id, n int) { h.append(ctx, t, l, id, n, i/4*(n%5)*fragmentBytes) }) // two of them large ones
		}
		for range 3 {
			run(func(l *client.Log, id, n int) { h.read(ctx, t, l, id, near()) })
		}
		run(func(l *client.Log, id, n int) { h.fill(ctx, t, l, id, near()) })
		run(func(l *client.Log, id, n int) {
			last.Store(uint64(h.tail(ctx, t, l)))
			time.Sleep(time.Millisecond)
		})
		h.await(ctx, t, appends)
		client.Break(logs[1])
		h.await(ctx, t, appends)
		if _, err := c.Reconfigure(ctx); err != nil {
			t.Error(err)
		}
		h.await(ctx, t, appends)
		client.Break(logs[2])
		h.await(ctx, t, appends)
		stop()
		wg.Wait()
		h.readAll(ctx, t, logs[2])
		h.check(t)
	})
}

// readAll ends the history with what everybody will find from now on.
func (h *recorder) readAll(ctx context.Context, t *testing.T, l *client.Log) {
	tail := h.tail(ctx, t, l)
	id := int(h.ids.Add(1)) - 1
	for p := range tail {
		h.read(ctx, t, l, id, p)
	}
}

func (h *recorder) check(t *testing.T) {
	counts := map[string]int{}
	for _, op := range h.known.Ops {
		kind := string(op.Kind)
		if strings.HasPrefix(op.Out, "\x00") {
			kind += " " + strings.Fields(op.Out[1:])[0]
		}
		counts[kind]++
	}
	t.Logf("history: %v, %d tails", counts, len(h.known.Tails))
	if err := h.known.Check(); err != nil {
		t.Error(err)
	}
}
