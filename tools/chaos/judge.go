package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"corfu/client"
	"corfu/internal/history"
	"corfu/layout"
)

// testimony is all that the clients of a run were told.
type testimony struct {
	clients [][]fact // of each client process, in the order of its file
	final   []fact   // reads of every position after the end, by clients that saw nothing before
}

// appended is one append as its client's lines tell it.
type appended struct {
	fact         // of its beginning
	client int   // index in testimony.clients
	end    *fact // what became of it; nil: the client died before it knew
}

func (t *testimony) appends() (all []appended) {
	for c, facts := range t.clients {
		at := map[int]int{}
		for i := range facts {
			switch x := &facts[i]; x.Kind {
			case factInvoke:
				at[x.N] = len(all)
				all = append(all, appended{fact: *x, client: c})
			case factAck, factUnknown, factFailed:
				if n, ok := at[x.N]; ok {
					all[n].end = x
				}
			}
		}
	}
	return all
}

// trims are those of prefixes. One that failed, or whose client died, may have done its work in part.
func (t *testimony) trims() (all []history.Prefix) {
	for c, facts := range t.clients {
		at := map[int]int{}
		for _, x := range facts {
			switch x.Kind {
			case factTrim:
				at[x.N] = len(all)
				all = append(all, history.Prefix{Client: c, Below: x.Position, Called: x.At, Returned: history.Never})
			case factTrimmed:
				all[at[x.N]].Returned = x.At
			}
		}
	}
	return all
}

// trimmed is below what any client tried to trim: entries that begin there may be gone.
func (t *testimony) trimmed() (below layout.Position) {
	for _, x := range t.trims() {
		below = max(below, x.Below)
	}
	return below
}

// history makes calls of the lines. An append whose client died, or of which it is not known where it might be, is one of unknown outcome at
// the position at which its payload was read, if it was.
func (t *testimony) history() *history.History {
	h := &history.History{Lost: map[string]error{}, Prefixes: t.trims(), Largest: largest}
	seen := map[string]layout.Position{} // where each payload was read
	for c, facts := range append(slices.Clone(t.clients), t.final) {
		for _, x := range facts {
			switch x.Kind {
			case factRead:
				h.Ops = append(h.Ops, history.Op{Client: c, Kind: history.Read, Position: x.Position, Out: x.Payload, Called: x.Since, Returned: x.At})
				seen[x.Payload] = x.Position
			case factTail:
				h.Tails = append(h.Tails, history.Tail{Called: x.Since, Tail: x.Position})
			}
		}
	}
	for _, a := range t.appends() {
		op := history.Op{Client: a.client, Kind: history.Maybe, Payload: a.Payload, Called: a.At, Returned: history.Never}
		switch {
		case a.end != nil && a.end.Kind == factFailed:
			h.Lost[a.Payload] = errors.New(a.end.Error)
			continue
		case a.end != nil && a.end.Kind == factAck:
			op.Kind, op.Position, op.Returned = history.Append, a.end.Position, a.end.At
		case a.end != nil && a.end.Known:
			op.Position = a.end.Position
		default:
			p, there := seen[a.Payload]
			if !there {
				continue // whatever became of it, nobody can tell
			}
			op.Position = p
		}
		first := op.Position
		for i := range a.Pages {
			h.Ops = append(h.Ops, op)
			op.Position, op.Payload = first+layout.Position(i)+1, history.Inside(first)
		}
	}
	return h
}

// judge gives everything that is wrong with what the clients were told, or nil.
func (t *testimony) judge() error {
	errs := []error{t.checkAlarms(), t.checkAcknowledged(), t.checkUnchanged(), t.history().Check()}
	for i := range errs {
		errs[i] = brief(errs[i])
	}
	return errors.Join(errs...)
}

// brief returns the first of many joined errors, and says how many there are.
func brief(err error) error {
	const most = 10
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) <= most {
		return err
	}
	all := joined.Unwrap()
	return errors.Join(append(slices.Clone(all[:most]), fmt.Errorf("and %d more like the last one", len(all)-most))...)
}

// checkAlarms: no client found what the protocol makes impossible.
func (t *testimony) checkAlarms() error {
	var errs []error
	for c, facts := range t.clients {
		for _, x := range facts {
			if alarm := client.ErrInvariant.Error(); strings.Contains(x.Error, alarm) || strings.Contains(x.Payload, alarm) {
				errs = append(errs, fmt.Errorf("client %d: %s %d: %s%s", c, x.Kind, x.Position, x.Error, x.Payload))
			}
		}
	}
	return errors.Join(errs...)
}

// checkAcknowledged: at the end every acknowledged entry is read at its position, and at all of its positions, unless it was trimmed.
func (t *testimony) checkAcknowledged() error {
	final := map[layout.Position]string{}
	for _, x := range t.final {
		final[x.Position] = x.Payload
	}
	var errs []error
	trimmed := t.trimmed()
	for _, a := range t.appends() {
		if a.end == nil || a.end.Kind != factAck {
			continue
		}
		for i, want := 0, a.Payload; i < a.Pages; i, want = i+1, history.Inside(a.end.Position) {
			p := a.end.Position + layout.Position(i)
			gone := final[p] == history.Trimmed && a.end.Position < trimmed
			if got, read := final[p]; !read || got != want && !gone {
				errs = append(errs, fmt.Errorf("position %d: %q was acknowledged to client %d, %q is read (%v)", p, want, a.client, got, read))
			}
		}
	}
	return errors.Join(errs...)
}

// checkUnchanged: what any reader saw at a position, junk included, is what every other one saw that saw anything. Which of them it was
// before that was trimmed is for the history to judge.
func (t *testimony) checkUnchanged() error {
	seen := map[layout.Position]map[string]bool{}
	for _, facts := range append(slices.Clone(t.clients), t.final) {
		for _, x := range facts {
			if x.Kind != factRead || x.Payload == history.Unwritten || x.Payload == history.Trimmed {
				continue
			}
			if seen[x.Position] == nil {
				seen[x.Position] = map[string]bool{}
			}
			seen[x.Position][x.Payload] = true
		}
	}
	var errs []error
	for _, p := range slices.Sorted(maps.Keys(seen)) {
		if len(seen[p]) > 1 {
			errs = append(errs, fmt.Errorf("position %d was read as %q", p, slices.Sorted(maps.Keys(seen[p]))))
		}
	}
	return errors.Join(errs...)
}

// altered is the same with one acknowledgement falsified, the one of the highest position: the position that it names is the next one. It is
// nil without acknowledgements.
func (t *testimony) altered() *testimony {
	other, client, line := &testimony{clients: slices.Clone(t.clients), final: t.final}, -1, 0
	for c, facts := range t.clients {
		for i, x := range facts {
			if x.Kind == factAck && (client < 0 || x.Position > t.clients[client][line].Position) {
				client, line = c, i
			}
		}
	}
	if client < 0 {
		return nil
	}
	other.clients[client] = slices.Clone(t.clients[client])
	other.clients[client][line].Position++
	return other
}

// counts tells how much there was to judge.
func (t *testimony) counts() (acked, unknown, failed, reads int) {
	for _, a := range t.appends() {
		switch {
		case a.end == nil || a.end.Kind == factUnknown:
			unknown++
		case a.end.Kind == factAck:
			acked++
		default:
			failed++
		}
	}
	for _, facts := range t.clients {
		for _, x := range facts {
			if x.Kind == factRead {
				reads++
			}
		}
	}
	return acked, unknown, failed, reads
}
