package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// What a call at one position did. The position is a register that is written once.
type call struct {
	p    layout.Position
	kind string // append, maybe (outcome unknown), fill, read
	arg  string // payload appended
}

// What came back of a read: a payload, or one of these.
const (
	isJunk      = "\x00junk"
	isUnwritten = "\x00unwritten"
)

// register is the model: "" is empty. Readers and fillers make an empty register junk; nothing else ever changes it.
var register = porcupine.Model{
	Partition: func(h []porcupine.Operation) [][]porcupine.Operation {
		byPosition := map[layout.Position][]porcupine.Operation{}
		for _, op := range h {
			p := op.Input.(call).p
			byPosition[p] = append(byPosition[p], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byPosition {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in := state.(string), input.(call)
		switch in.kind {
		case "append":
			return s == "", in.arg
		case "maybe": // may take effect at any time after the call, or never: at the end of time it does no harm
			if s == "" {
				return true, in.arg
			}
			return true, s
		case "fill":
			if s == "" {
				return true, isJunk
			}
			return true, s
		}
		switch out := output.(string); {
		case out == isUnwritten:
			return s == "", s
		case out == isJunk && s == "":
			return true, isJunk
		default:
			return s == out, s
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %q", input, output) },
}

// history records calls of concurrent clients.
type history struct {
	start time.Time
	ids   atomic.Int64
	acked atomic.Int64 // appends
	mu    sync.Mutex
	ops   []porcupine.Operation
	tails []tailOp
}

type tailOp struct {
	called int64
	tail   layout.Position
}

// room bounds the history: what porcupine checks must fit into memory and time.
func (h *history) room() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops) < 12000
}

// await returns once n more appends are acknowledged.
func (h *history) await(ctx context.Context, t *testing.T, n int64) {
	for want := h.acked.Load() + n; h.acked.Load() < want; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil || t.Failed() || !h.room() {
			t.Errorf("%d appends acknowledged, not %d", h.acked.Load(), want)
			return
		}
	}
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) add(id int, in call, out string, called, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: id, Input: in, Output: out, Call: called, Return: returned})
}

// padded makes the tag of a payload as long as it should be.
func padded(tag string, size int) []byte {
	return append([]byte(tag), strings.Repeat("+", max(0, size-len(tag)))...)
}

// inside is what is read at p, one of the later positions of the entry at first.
func inside(p, first layout.Position) string { return fmt.Sprintf("\x00%d inside %d", p, first) }

// append appends a payload that nobody else does, and records what became of it at each of its positions.
func (h *history) append(ctx context.Context, t *testing.T, l *client.Log, id, n, size int) {
	tag := fmt.Sprintf("%d.%d/%d", id, n, size)
	add := func(kind string, first layout.Position, called, returned int64) {
		h.add(id, call{first, kind, tag}, "", called, returned)
		for p := first + 1; p < first+layout.Position(pages(size)); p++ {
			h.add(id, call{p, kind, inside(p, first)}, "", called, returned)
		}
	}
	called := h.now()
	p, err := l.Append(ctx, padded(tag, size))
	var unknown *client.UnknownError
	switch {
	case err == nil:
		add("append", p, called, h.now())
		h.acked.Add(1)
	case errors.As(err, &unknown):
		add("maybe", unknown.Position, called, math.MaxInt64)
	default:
		t.Errorf("append: %v", err)
	}
}

func (h *history) read(ctx context.Context, t *testing.T, l *client.Log, id int, p layout.Position) {
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
		out = inside(p, part.First)
	case errors.Is(err, client.ErrJunk):
		out = isJunk
	case errors.Is(err, client.ErrUnwritten):
		out = isUnwritten
	default:
		t.Errorf("read %d: %v", p, err)
		return
	}
	h.add(id, call{p: p, kind: "read"}, out, called, h.now())
}

func (h *history) fill(ctx context.Context, t *testing.T, l *client.Log, id int, p layout.Position) {
	called := h.now()
	switch err := l.Fill(ctx, p); {
	case err == nil:
		h.add(id, call{p: p, kind: "fill"}, "", called, h.now())
	case !errors.Is(err, client.ErrUnwritten):
		t.Errorf("fill %d: %v", p, err)
	}
}

func (h *history) tail(ctx context.Context, t *testing.T, l *client.Log) layout.Position {
	called := h.now()
	p, err := l.Tail(ctx)
	if err != nil {
		t.Errorf("tail: %v", err)
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tails = append(h.tails, tailOp{called, p})
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
		h := &history{start: time.Now()}
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
func (h *history) readAll(ctx context.Context, t *testing.T, l *client.Log) {
	tail := h.tail(ctx, t, l)
	id := int(h.ids.Add(1)) - 1
	for p := range tail {
		h.read(ctx, t, l, id, p)
	}
}

func (h *history) check(t *testing.T) {
	h.checkPayloads(t)
	h.checkTails(t)
	counts := map[string]int{}
	for _, op := range h.ops {
		in := op.Input.(call)
		if in.kind == "read" && (op.Output == isJunk || op.Output == isUnwritten) {
			in.kind += " " + op.Output.(string)[1:]
		} else if in.kind == "read" && strings.Contains(op.Output.(string), " inside ") {
			in.kind += " inside"
		}
		counts[in.kind]++
	}
	t.Logf("history: %v, %d tails", counts, len(h.tails))
	if r := porcupine.CheckOperationsTimeout(register, h.ops, time.Minute); r != porcupine.Ok {
		t.Errorf("not linearizable: %v", r)
	}
}

// checkPayloads: a payload is at one position at most, and an acknowledged one at its own: an attempt that was lost never appears.
func (h *history) checkPayloads(t *testing.T) {
	where := map[string]layout.Position{}
	for _, op := range h.ops {
		if in := op.Input.(call); in.kind == "append" || in.kind == "maybe" {
			where[in.arg] = in.p
		}
	}
	for _, op := range h.ops {
		in, out := op.Input.(call), op.Output.(string)
		if in.kind != "read" || out == isJunk || out == isUnwritten {
			continue
		}
		if p, known := where[out]; !known || p != in.p {
			t.Errorf("payload %q read at %d, appended at %d (known: %v)", out, in.p, p, known)
		}
	}
}

// checkTails: a tail lies above everything that was acknowledged before it was asked for.
func (h *history) checkTails(t *testing.T) {
	for _, tail := range h.tails {
		for _, op := range h.ops {
			if in := op.Input.(call); in.kind == "append" && op.Return < tail.called && in.p >= tail.tail {
				t.Errorf("tail %d, although %d had been acknowledged", tail.tail, in.p)
			}
		}
	}
}
