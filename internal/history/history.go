package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"corfu/layout"
)

// Kind is what was asked of a position.
type Kind string

// The kinds. A Maybe is an append of unknown outcome: it takes effect at any time after the call, or never.
const (
	Append Kind = "append"
	Maybe  Kind = "maybe"
	Fill   Kind = "fill"
	Trim   Kind = "trim"
	Read   Kind = "read"
)

// What comes back of a read: a payload, or one of these.
const (
	Junk      = "\x00junk"
	Unwritten = "\x00unwritten"
	Trimmed   = "\x00trimmed"
)

// Inside is what a read answers at a position inside of the entry that begins at first.
func Inside(first layout.Position) string { return fmt.Sprintf("\x00inside %d", first) }

// isPayload tells whether an answer is what somebody appended.
func isPayload(out string) bool { return out == "" || out[0] != 0 }

// Never is when a call returned whose outcome is unknown.
const Never = math.MaxInt64

// Op is a call at one position and its answer. Times are of one clock, in any unit; Called is at most Returned.
type Op struct {
	Client           int
	Kind             Kind
	Position         layout.Position
	Payload          string // of an append; not empty: that is a position without one
	Out              string // of a read
	Called, Returned int64
}

func (o Op) String() string {
	return fmt.Sprintf("client %d: %s %d %.12q → %.12q [%d, %d]", o.Client, o.Kind, o.Position, o.Payload, o.Out, o.Called, o.Returned)
}

// Tail is an answer to the question where the log ends.
type Tail struct {
	Called int64
	Tail   layout.Position
}

// Prefix is a trim of all positions below one, and its answer. One that failed returned Never: it may have reached any of them, or none.
type Prefix struct {
	Client           int
	Below            layout.Position
	Called, Returned int64
}

// History is what clients did. Whoever lets several goroutines add to it locks.
type History struct {
	Ops      []Op
	Tails    []Tail
	Prefixes []Prefix
	Lost     map[string]error // payloads of appends that failed for certain
	Largest  int              // positions that an entry takes at most; 0: one
}

// Limit is how long the checker may think about one position.
const Limit = 10 * time.Second

// register is the model of one position: written once. Whoever reads or fills an empty one may make it junk; a trimmed one stays so.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in := state.(string), input.(*Op)
		switch in.Kind {
		case Append:
			return s == "", in.Payload
		case Maybe: // at the end of time it does no harm
			if s == "" {
				return true, in.Payload
			}
			return true, s
		case Fill:
			if s == "" {
				return true, Junk
			}
			return true, s
		case Trim:
			return true, Trimmed
		}
		out := output.(string)
		if out == Junk && s == "" {
			return true, Junk
		}
		return out == s || (out == Unwritten && s == ""), s
	},
	DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
}

// Check gives everything that is wrong with the history, or nil.
func (h *History) Check() error {
	errs := []error{h.checkPayloads(), h.checkTails()}
	all := append(h.withoutRests(), h.prefixes()...)
	for _, part := range byPosition(all) {
		p := part[0].Input.(*Op).Position
		switch porcupine.CheckOperationsTimeout(register, part, Limit) {
		case porcupine.Illegal:
			errs = append(errs, fmt.Errorf("position %d is not linearizable", p))
		case porcupine.Unknown:
			errs = append(errs, fmt.Errorf("position %d: the checker did not finish", p))
		}
	}
	return errors.Join(errs...)
}

// byPosition gives the calls at each position, positions in the order in which they come.
func byPosition(all []Op) [][]porcupine.Operation {
	at := map[layout.Position]int{}
	var parts [][]porcupine.Operation
	for i := range all {
		op := &all[i]
		n, known := at[op.Position]
		if !known {
			n = len(parts)
			at[op.Position], parts = n, append(parts, nil)
		}
		parts[n] = append(parts[n], porcupine.Operation{ClientId: op.Client, Input: op, Output: op.Out, Call: op.Called, Return: op.Returned})
	}
	return parts
}

// prefixes are the trims of prefixes as trims of each position below that anybody did anything with. What was trimmed already when one
// of them began it leaves as it is.
func (h *History) prefixes() (all []Op) {
	touched := map[layout.Position]bool{}
	for i := range h.Ops {
		touched[h.Ops[i].Position] = true
	}
	positions := slices.Sorted(maps.Keys(touched))
	for _, x := range h.Prefixes {
		from := layout.Position(0)
		for _, y := range h.Prefixes {
			if y.Returned < x.Called {
				from = max(from, y.Below)
			}
		}
		first, _ := slices.BinarySearch(positions, from)
		for _, p := range positions[first:] {
			if p >= x.Below {
				break
			}
			all = append(all, Op{Client: x.Client, Kind: Trim, Position: p, Called: x.Called, Returned: x.Returned})
		}
	}
	return all
}

// withoutRests leaves out reads of what is left of large entries that began in a trimmed prefix and ended behind it: they
// read as trimmed, although nobody trimmed that position.
func (h *History) withoutRests() []Op {
	begins := map[layout.Position]bool{}
	for _, op := range h.Ops {
		if (op.Kind == Append || op.Kind == Maybe) && isPayload(op.Payload) {
			begins[op.Position] = true
		}
	}
	behind := map[layout.Position]bool{}
	for _, x := range h.Prefixes {
		for i := range max(h.Largest, 1) - 1 {
			behind[x.Below+layout.Position(i)] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(h.Ops), func(op Op) bool {
		return op.Kind == Read && op.Out == Trimmed && !begins[op.Position] && behind[op.Position]
	})
}

// checkPayloads: a payload is read at the position of its append alone, and one that failed for certain nowhere.
func (h *History) checkPayloads() error {
	where := map[string]layout.Position{}
	for _, op := range h.Ops {
		if op.Kind == Append || op.Kind == Maybe {
			where[op.Payload] = op.Position
		}
	}
	var errs []error
	for _, op := range h.Ops {
		if op.Kind != Read || !isPayload(op.Out) {
			continue
		}
		if err := h.Lost[op.Out]; err != nil {
			errs = append(errs, fmt.Errorf("payload %q read at %d, although its append failed for certain: %w", op.Out, op.Position, err))
			continue
		}
		if p, known := where[op.Out]; !known || p != op.Position {
			errs = append(errs, fmt.Errorf("payload %q read at %d, appended at %d (known: %v)", op.Out, op.Position, p, known))
		}
	}
	return errors.Join(errs...)
}

// checkTails: a tail lies above everything that was acknowledged or read before it was asked for.
func (h *History) checkTails() error {
	var seen []*Op
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Kind == Append || (op.Kind == Read && op.Out != Unwritten) {
			seen = append(seen, op)
		}
	}
	slices.SortFunc(seen, func(a, b *Op) int { return cmp.Compare(a.Returned, b.Returned) })
	tails := slices.Clone(h.Tails)
	slices.SortFunc(tails, func(a, b Tail) int { return cmp.Compare(a.Called, b.Called) })
	var errs []error
	known := layout.Position(0) // above all that was seen before
	for _, t := range tails {
		for len(seen) > 0 && seen[0].Returned < t.Called {
			known, seen = max(known, seen[0].Position+1), seen[1:]
		}
		if t.Tail < known {
			errs = append(errs, fmt.Errorf("tail %d, although position %d was known before", t.Tail, known-1))
		}
	}
	return errors.Join(errs...)
}

// HalfTrimmed are the positions whose trim failed, maybe after it had reached some of the replicas.
func (h *History) HalfTrimmed() map[layout.Position]bool {
	m := map[layout.Position]bool{}
	for _, op := range h.Ops {
		if op.Kind == Trim && op.Returned == Never {
			m[op.Position] = true
		}
	}
	for _, x := range h.Prefixes {
		if x.Returned == Never {
			for p := range x.Below {
				m[p] = true
			}
		}
	}
	return m
}
