package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"corfu/client"
	"corfu/layout"
)

// call is what was asked of one position. The position is a register that is written once.
type call struct {
	p    layout.Position
	kind kind
	arg  string // payload appended
}

type kind string

const (
	isAppend kind = "append"
	isMaybe  kind = "maybe" // an append of unknown outcome
	isFill   kind = "fill"
	isTrim   kind = "trim"
	isRead   kind = "read"
)

// What came back of a read: a payload, or one of these.
const (
	wasJunk      = "\x00junk"
	wasUnwritten = "\x00unwritten"
	wasTrimmed   = "\x00trimmed"
)

// register is the model of one position. Whoever reads or fills an empty one may make it junk; a trimmed one stays so.
var register = porcupine.Model{
	Partition: byPosition,
	Init:      func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in := state.(string), input.(call)
		switch in.kind {
		case isAppend:
			return s == "", in.arg
		case isMaybe: // at any time after the call, or never: at the end of time it does no harm
			if s == "" {
				return true, in.arg
			}
			return true, s
		case isFill:
			if s == "" {
				return true, wasJunk
			}
			return true, s
		case isTrim:
			return true, wasTrimmed
		}
		out := output.(string)
		if out == wasJunk && s == "" {
			return true, wasJunk
		}
		return out == s || (out == wasUnwritten && s == ""), s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %q", input, output) },
}

func byPosition(h []porcupine.Operation) [][]porcupine.Operation {
	parts := map[layout.Position][]porcupine.Operation{}
	var order []layout.Position
	for _, op := range h {
		p := op.Input.(call).p
		if parts[p] == nil {
			order = append(order, p)
		}
		parts[p] = append(parts[p], op)
	}
	list := make([][]porcupine.Operation, len(order))
	for i, p := range order {
		list[i] = parts[p]
	}
	return list
}

// History is what the clients of a run did, in the order in which it happened.
type History struct {
	mu    sync.Mutex
	clock int64
	ops   []porcupine.Operation
	lost  map[string]error // payloads of appends that failed for certain
	tails []tailOp
	ends  []layout.Position // of prefixes that were trimmed
	trace []string
	began time.Time
}

type tailOp struct {
	called int64
	tail   layout.Position
}

func newHistory() *History { return &History{lost: map[string]error{}, began: time.Now()} }

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

func (h *History) add(id int, in call, out string, called, returned int64) {
	h.note("client %d: %s %d %.12q → %.12q [%d, %d]", id, in.kind, in.p, in.arg, out, called, returned)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: id, Input: in, Output: out, Call: called, Return: returned})
}

func (h *History) append(ctx context.Context, l *client.Log, id int, payload string) {
	called := h.tick()
	p, err := l.Append(ctx, []byte(payload))
	var unknown *client.UnknownError
	switch {
	case err == nil:
		h.add(id, call{p, isAppend, payload}, "", called, h.tick())
	case errors.As(err, &unknown):
		h.note("client %d: append %q: %v", id, payload, err)
		h.add(id, call{unknown.Position, isMaybe, payload}, "", called, math.MaxInt64)
	default:
		h.note("client %d: append %q: %v", id, payload, err)
		h.mu.Lock()
		h.lost[payload] = err
		h.mu.Unlock()
	}
}

// read records a read, and returns its error if that says nothing of the position.
func (h *History) read(ctx context.Context, l *client.Log, id int, p layout.Position) error {
	called := h.tick()
	got, err := l.Read(ctx, p)
	out := string(got)
	switch {
	case err == nil:
	case errors.Is(err, client.ErrJunk):
		out = wasJunk
	case errors.Is(err, client.ErrUnwritten):
		out = wasUnwritten
	case errors.Is(err, client.ErrTrimmed):
		out = wasTrimmed
	case errors.Is(err, client.ErrFragment):
		return nil // what it belongs to is read where that begins
	default:
		h.note("client %d: read %d: %v", id, p, err)
		return err
	}
	h.add(id, call{p: p, kind: isRead}, out, called, h.tick())
	return nil
}

func (h *History) fill(ctx context.Context, l *client.Log, id int, p layout.Position) {
	called := h.tick()
	if err := l.Fill(ctx, p); err != nil {
		h.note("client %d: fill %d: %v", id, p, err)
		return
	}
	h.add(id, call{p: p, kind: isFill}, "", called, h.tick())
}

func (h *History) trim(ctx context.Context, l *client.Log, id int, p layout.Position) {
	called := h.tick()
	if err := l.Trim(ctx, p); err != nil {
		h.note("client %d: trim %d: %v", id, p, err)
		h.add(id, call{p: p, kind: isTrim}, "", called, math.MaxInt64)
		return
	}
	h.add(id, call{p: p, kind: isTrim}, "", called, h.tick())
}

// trimPrefix is a trim of every position below p.
func (h *History) trimPrefix(ctx context.Context, l *client.Log, id int, p layout.Position) {
	h.mu.Lock()
	h.ends = append(h.ends, p)
	h.mu.Unlock()
	called := h.tick()
	err := l.TrimPrefix(ctx, p)
	returned := h.tick()
	if err != nil {
		h.note("client %d: trim the prefix below %d: %v", id, p, err)
		returned = math.MaxInt64
	}
	for q := range p {
		h.add(id, call{p: q, kind: isTrim}, "", called, returned)
	}
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
	h.tails = append(h.tails, tailOp{called, p})
	return p, nil
}

// halfTrimmed are the positions whose trim failed, maybe after it had reached some of the replicas.
func (h *History) halfTrimmed() map[layout.Position]bool {
	m := map[layout.Position]bool{}
	for _, op := range h.ops {
		if in := op.Input.(call); in.kind == isTrim && op.Return == math.MaxInt64 {
			m[in.p] = true
		}
	}
	return m
}

// check gives everything that is wrong with the history.
func (h *History) check() error {
	errs := []error{h.checkPayloads(), h.checkTails()}
	for _, part := range byPosition(h.withoutRests()) {
		switch porcupine.CheckOperationsTimeout(register, part, 10*time.Second) {
		case porcupine.Illegal:
			errs = append(errs, fmt.Errorf("position %d is not linearizable", part[0].Input.(call).p))
		case porcupine.Unknown:
			errs = append(errs, fmt.Errorf("position %d: the checker did not finish", part[0].Input.(call).p))
		}
	}
	return errors.Join(errs...)
}

// withoutRests leaves out reads of what is left of large entries that began in a trimmed prefix and ended behind it: they
// read as trimmed, although nobody trimmed that position.
func (h *History) withoutRests() []porcupine.Operation {
	begins := map[layout.Position]bool{}
	for _, op := range h.ops {
		if in := op.Input.(call); in.kind == isAppend || in.kind == isMaybe {
			begins[in.p] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(h.ops), func(op porcupine.Operation) bool {
		in := op.Input.(call)
		return in.kind == isRead && op.Output == wasTrimmed && !begins[in.p] &&
			slices.ContainsFunc(h.ends, func(end layout.Position) bool { return end <= in.p && in.p < end+largest-1 })
	})
}

// checkPayloads: a payload is read at the position of its append alone, and one that failed for certain nowhere.
func (h *History) checkPayloads() error {
	where := map[string]layout.Position{}
	for _, op := range h.ops {
		if in := op.Input.(call); in.kind == isAppend || in.kind == isMaybe {
			where[in.arg] = in.p
		}
	}
	var errs []error
	for _, op := range h.ops {
		in, out := op.Input.(call), op.Output.(string)
		if in.kind != isRead || out == wasJunk || out == wasUnwritten || out == wasTrimmed {
			continue
		}
		if err := h.lost[out]; err != nil {
			errs = append(errs, fmt.Errorf("payload %q read at %d, although its append failed for certain: %w", out, in.p, err))
			continue
		}
		if p, known := where[out]; !known || p != in.p {
			errs = append(errs, fmt.Errorf("payload %q read at %d, appended at %d (known: %v)", out, in.p, p, known))
		}
	}
	return errors.Join(errs...)
}

// checkTails: a tail lies above everything that was acknowledged or read before it was asked for.
func (h *History) checkTails() error {
	var errs []error
	for _, t := range h.tails {
		for _, op := range h.ops {
			in, out := op.Input.(call), op.Output.(string)
			seen := in.kind == isAppend || (in.kind == isRead && out != wasUnwritten)
			if seen && op.Return < t.called && in.p >= t.tail {
				errs = append(errs, fmt.Errorf("tail %d, although position %d was known before", t.tail, in.p))
			}
		}
	}
	return errors.Join(errs...)
}
