package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/client"
	"corfu/internal/history"
	"corfu/layout"
)

// History is what the clients of a run did, in the order in which it happened.
type History struct {
	mu    sync.Mutex
	clock int64
	known history.History
	trace []string
	began time.Time
}

func newHistory() *History {
	return &History{known: history.History{Lost: map[string]error{}, Largest: largest}, began: time.Now()}
}

// tick is the next moment: calls and returns are in one order, also at one reading of the simulated clock.
func (h *History) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

func (h *History) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trace = append(h.trace, fmt.Sprintf("%12v ", time.Since(h.began))+fmt.Sprintf(format, args...))
}

func (h *History) add(op history.Op) {
	h.note("%v", op)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.Ops = append(h.known.Ops, op)
}

func (h *History) append(ctx context.Context, l *client.Log, id int, payload string) (acked bool) {
	called := h.tick()
	p, err := l.Append(ctx, []byte(payload))
	return h.appended(id, payload, called, p, err)
}

// appendGroup has appends in flight together.
func (h *History) appendGroup(ctx context.Context, l *client.Log, id int, payloads []string) {
	var done sync.WaitGroup
	for i, payload := range payloads {
		called := h.tick()
		done.Add(1)
		if err := l.AppendAsync(ctx, []byte(payload), func(p layout.Position, err error) {
			h.appended(groupID+id*largestGroup+i, payload, called, p, err)
			done.Done()
		}); err != nil {
			h.appended(id, payload, called, 0, err)
			done.Done()
		}
	}
	done.Wait()
}

const (
	groupID      = 1 << 20 // above it are the ids of those that a worker has in flight together
	largestGroup = 6
)

// appended records what an append came to.
func (h *History) appended(id int, payload string, called int64, p layout.Position, err error) (acked bool) {
	var unknown *client.UnknownError
	switch {
	case err == nil:
		h.add(history.Op{Client: id, Kind: history.Append, Position: p, Payload: payload, Called: called, Returned: h.tick()})
	case errors.As(err, &unknown):
		h.note("client %d: append %q: %v", id, payload, err)
		h.add(history.Op{Client: id, Kind: history.Maybe, Position: unknown.Position, Payload: payload, Called: called, Returned: history.Never})
	default:
		h.note("client %d: append %q: %v", id, payload, err)
		h.mu.Lock()
		h.known.Lost[payload] = err
		h.mu.Unlock()
	}
	return err == nil
}

// restart checks what there is, and begins anew: all entries are given up.
func (h *History) restart() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.known.Check()
	h.known = history.History{Lost: map[string]error{}, Largest: largest}
	return err
}

// read records a read, and returns its error if that says nothing of the position.
func (h *History) read(ctx context.Context, l *client.Log, id int, p layout.Position) error {
	called := h.tick()
	got, err := l.Read(ctx, p)
	out := string(got)
	switch {
	case err == nil:
	case errors.Is(err, client.ErrJunk):
		out = history.Junk
	case errors.Is(err, client.ErrUnwritten):
		out = history.Unwritten
	case errors.Is(err, client.ErrTrimmed):
		out = history.Trimmed
	case errors.Is(err, client.ErrFragment):
		return nil // what it belongs to is read where that begins
	default:
		h.note("client %d: read %d: %v", id, p, err)
		return err
	}
	h.add(history.Op{Client: id, Kind: history.Read, Position: p, Out: out, Called: called, Returned: h.tick()})
	return nil
}

func (h *History) fill(ctx context.Context, l *client.Log, id int, p layout.Position) {
	called := h.tick()
	if err := l.Fill(ctx, p); err != nil {
		h.note("client %d: fill %d: %v", id, p, err)
		return
	}
	h.add(history.Op{Client: id, Kind: history.Fill, Position: p, Called: called, Returned: h.tick()})
}

func (h *History) trim(ctx context.Context, l *client.Log, id int, p layout.Position) {
	called := h.tick()
	if err := l.Trim(ctx, p); err != nil {
		h.note("client %d: trim %d: %v", id, p, err)
		h.add(history.Op{Client: id, Kind: history.Trim, Position: p, Called: called, Returned: history.Never})
		return
	}
	h.add(history.Op{Client: id, Kind: history.Trim, Position: p, Called: called, Returned: h.tick()})
}

// trimPrefix is a trim of every position below p.
func (h *History) trimPrefix(ctx context.Context, l *client.Log, id int, p layout.Position) {
	called := h.tick()
	err := l.TrimPrefix(ctx, p)
	x := history.Prefix{Client: id, Below: p, Called: called, Returned: h.tick()}
	if err != nil {
		x.Returned = history.Never
	}
	h.note("client %d: trim the prefix below %d: %v", id, p, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.Prefixes = append(h.known.Prefixes, x)
}

func (h *History) tail(ctx context.Context, l *client.Log, id int) (layout.Position, error) {
	called := h.tick()
	p, err := l.Tail(ctx)
	if err != nil {
		h.note("client %d: tail: %v", id, err)
		return 0, err
	}
	h.note("client %d: tail %d", id, p)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.Tails = append(h.known.Tails, history.Tail{Called: called, Tail: p})
	return p, nil
}
