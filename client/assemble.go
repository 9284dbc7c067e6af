package client

import (
	"context"
	"errors"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
)

// assembly is an entry larger than a page, as far as its fragments were read.
//
// Whole or torn, it stays what it once was read as. Each position is written once: a fragment that was read stays, and so
// does what stands in the place of one. A position that is unwritten in a newer epoch than that of fragment 0 tells
// as much: the attempt's own CAS fails there by value from then on (rule R8), and what was published before
// the seal would have been found when the epoch was reconciled (rule R17).
type assembly struct {
	first   layout.Position
	batch   bool          // as the header of fragment 0 says
	frag    wire.Fragment // as fragment 0 has it
	epoch   layout.Epoch  // of the attempt
	next    int           // number of the fragment that is missing
	payload []byte        // of those before
}

// assemble begins with what stands at p. Nil: it is not fragment 0 of an entry.
func assemble(p layout.Position, e *entry) *assembly {
	if e.frag.Count == 0 || e.frag.Number != 0 {
		return nil
	}
	a := &assembly{first: p, batch: e.isBatch(), frag: e.frag, epoch: e.header.Epoch, payload: make([]byte, 0, e.frag.Length)}
	a.add(p, e)
	return a
}

// add takes what stands at p if it is the next fragment.
func (a *assembly) add(p layout.Position, e *entry) bool {
	want, part := a.frag, e.payload()
	want.Number = a.next
	left := a.frag.Length - len(a.payload) - len(part)
	if e.frag != want || e.isBatch() != a.batch || p != a.position(a.next) || left < 0 || (left == 0) != (a.next == a.frag.Count-1) {
		return false
	}
	a.payload = append(a.payload, part...)
	a.next++
	return true
}

// whole tells whether no fragment is missing.
func (a *assembly) whole() bool { return a.next == a.frag.Count }

// position of fragment i.
func (a *assembly) position(i int) layout.Position { return a.first + layout.Position(i) }

// gather reads the fragments that are missing. It fails with ErrJunk if the entry is torn, with ErrTrimmed if one of its
// positions was trimmed, or as Read.
func (l *Log) gather(ctx context.Context, a *assembly) error {
	h := l.ahead(ctx, a.position(a.next), a.position(a.frag.Count))
	defer h.stop()
	for !a.whole() {
		p := h.at
		r := h.next(permit{since: time.Now()})
		switch {
		case r.err == nil && a.add(p, &r.entry):
		case r.err == nil, errors.Is(r.err, ErrJunk), errors.Is(r.err, ErrUnwritten) && r.epoch > a.epoch:
			return ErrJunk
		default:
			return r.err
		}
	}
	return nil
}

// entry is the entry, once it is whole.
func (a *assembly) entry() (Entry, error) {
	return makeEntry(a.first, a.frag.Count, EntryID(a.frag.Entry), a.batch, a.payload)
}

// readLarge reads the entry of which e, at p, is a fragment. It is read at its first position alone.
func (l *Log) readLarge(ctx context.Context, p layout.Position, e *entry) (Entry, error) {
	first := e.frag.First(p)
	if first == p {
		a := assemble(p, e)
		if err := l.gather(ctx, a); err != nil {
			return Entry{}, at(p, err)
		}
		return a.entry()
	}
	r := reading{l: l, p: first}
	head, err := r.run(ctx)
	if err != nil {
		return Entry{}, at(p, err)
	}
	a := assemble(first, &head)
	if a == nil || a.frag.Entry != e.frag.Entry {
		return Entry{}, at(p, ErrJunk)
	}
	if err := l.gather(ctx, a); err != nil {
		return Entry{}, at(p, err)
	}
	return Entry{}, &FragmentError{Position: p, First: first}
}

// holeTimeout is how long a hole is waited for; long: it is one of a larger entry that is on its way. Of such an entry any hole
// that is filled costs the writer all of it, and a writer with hundreds of pages to publish is held up more easily. It grows where holes are
// filled again and again (patience).
func (l *Log) holeTimeout(long bool) time.Duration {
	wait := l.patience.wait(l.o.HoleTimeout, time.Now())
	if long {
		return max(10*l.o.HoleTimeout, wait)
	}
	return wait
}

// onItsWay tells whether p, a hole, is one of a larger entry whose writer was at work not far in front of it.
func (l *Log) onItsWay(ctx context.Context, p layout.Position) (bool, error) {
	for q := p; q > 0 && q+fragmentsAtOnce > p; {
		q--
		r := reading{l: l, p: q, never: true}
		switch e, err := r.run(ctx); {
		case err == nil:
			return e.frag.Count != 0 && e.frag.First(q)+layout.Position(e.frag.Count) > p, nil
		case errors.Is(err, errHole):
		default:
			return false, besidesContent(err)
		}
	}
	return false, nil
}
