package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// Fill decides position p: if nothing is there it becomes junk, and whatever is there, a value or junk, is durable in
// the whole chain when Fill returns nil. Read tells which. A hole inside a larger entry is filled like any other: the entry is torn then, junk as a whole. A position that was never handed out is ErrUnwritten.
func (l *Log) Fill(ctx context.Context, p layout.Position) (err error) {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	began := time.Now()
	defer func() { l.m.calls.ended(opFill, began, err) }()
	if err := l.handedOut(ctx, p); err != nil {
		return err
	}
	return l.fill(ctx, p)
}

// content is what stands, or shall stand, at a position in the whole chain.
type content struct {
	junk    bool
	attempt layout.Attempt
	page    rdma.Local // header and payload
}

// fill decides p and completes it, from the head, in the newest layout (rule R10). If an epoch ends underneath, it
// starts again from the head of the next: an entry is never carried across.
func (l *Log) fill(ctx context.Context, p layout.Position) error {
	_, err := try(ctx, l, func(v *view) (struct{}, error) { return struct{}{}, l.fillIn(ctx, v, p) })
	return err
}

func (l *Log) fillIn(ctx context.Context, v *view, p layout.Position) error {
	place, err := v.layout.Locate(p)
	if err != nil {
		return err
	}
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	first := place.Chain.Head()
	if mutant.R10 {
		first = place.Chain.Tail()
	}
	head, err := v.unit(ctx, first)
	if err != nil {
		return err
	}
	spot := spot{head, place.Address, p}
	won, err := l.junkHead(ctx, v, spot, f)
	if err != nil {
		return err
	}
	c := content{junk: true}
	if won {
		l.m.fills.Inc()
		l.patience.filling(l.o.HoleTimeout, time.Now())
	} else if c, err = l.headContent(ctx, v, spot, f); err != nil || (c == content{}) {
		return err
	}
	if err := l.complete(ctx, v, place, p, c); err != nil {
		return err
	}
	if v.flash() {
		return l.awaitDurable(ctx, v, place, p)
	}
	return nil
}

// junkHead tries to make an EMPTY head junk, waiting for its window if need be. It reports whether it was EMPTY.
func (l *Log) junkHead(ctx context.Context, v *view, at spot, f *frame) (won bool, err error) {
	gen := v.layout.Geometry.Generation(at.a)
	for {
		w, err := l.cas(ctx, v, at, wire.MakeWord(wire.Junk, gen, at.s.junkTag()), nil, f)
		if err != nil {
			return false, err
		}
		switch classify(w, gen, v.epoch()) {
		case foundEmpty:
			return true, nil
		case foundEntry, foundPast:
			return false, nil
		case foundStale:
			at.s.fail(errStale)
			return false, &sessionError{at.s.who, errStale}
		}
		if err := l.clearWindow(ctx, v, at.s.id, at.a); err != nil {
			return false, err
		}
	}
}

// cas posts [WRITE payload,] CAS EMPTY → word, doorbell, and gives the word that was there.
func (l *Log) cas(ctx context.Context, v *view, at spot, word wire.Word, payload func(*rdma.Batch), f *frame) (wire.Word, error) {
	var msg [16]byte
	f.b.Reset()
	if payload != nil {
		payload(f.b)
	}
	i := f.b.CompareSwap(at.s.word(at.a), uint64(wire.EmptyWord(v.layout.Geometry.Generation(at.a), v.epoch())), uint64(word))
	f.b.SendInline(wire.Doorbell{Address: at.a}.Append(msg[:0]))
	if err := at.s.check(f.do(ctx, at.s.appends)); err != nil {
		return 0, err
	}
	return wire.Word(f.b.Old(i)), nil
}

// headContent is the entry that the head holds, its page in f. The zero content with no error: it is trimmed.
func (l *Log) headContent(ctx context.Context, v *view, at spot, f *frame) (content, error) {
	e, err := l.clear(ctx, v, at, f)
	if err != nil {
		return content{}, err
	}
	switch e.kind {
	case entryPage:
		return content{attempt: e.header.Attempt, page: putPage(f, e.page)}, nil
	case entryJunk:
		return content{junk: true}, nil
	case entryTrimmed:
		return content{}, nil
	}
	return content{}, &sessionError{at.s.who, errStale} // it held an entry a moment ago
}

// putPage puts verified bytes back where the fabric can reach them.
func putPage(f *frame, page []byte) rdma.Local {
	copy(f.page.Bytes(), page)
	return f.page.Mem.Slice(f.page.Off, len(page))
}

// complete places what the head is known to hold at the replicas behind it, in chain order, each only after
// the one before is known to hold it (rule R2). Idempotent within an epoch.
func (l *Log) complete(ctx context.Context, v *view, place layout.Place, p layout.Position, c content) error {
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	for _, id := range place.Chain.Units[1:] {
		s, err := v.unit(ctx, id)
		if err != nil {
			return err
		}
		if err := l.placeAt(ctx, v, spot{s, place.Address, p}, c, f); err != nil {
			return err
		}
	}
	return nil
}

// placeAt makes c stand at one replica behind the head.
func (l *Log) placeAt(ctx context.Context, v *view, at spot, c content, f *frame) error {
	gen := v.layout.Geometry.Generation(at.a)
	for {
		w, err := l.casContent(ctx, v, at, c, f)
		if err != nil {
			return err
		}
		switch classify(w, gen, v.epoch()) {
		case foundEmpty:
			l.m.helped.Inc()
			return nil
		case foundPast:
			// Durable here and out of the window, and by rule R2 it is what the head holds.
			return nil
		case foundEntry:
			return l.compare(ctx, v, at, c, f)
		case foundStale:
			at.s.fail(errStale)
			return &sessionError{at.s.who, errStale}
		}
		if err := l.clearWindow(ctx, v, at.s.id, at.a); err != nil {
			return err
		}
	}
}

// casContent does one CAS EMPTY → c, through this client's own staging slot if c has a page. The page is copied into f,
// so that f alone is bound if ctx ends before the operation does.
func (l *Log) casContent(ctx context.Context, v *view, at spot, c content, f *frame) (wire.Word, error) {
	gen := v.layout.Geometry.Generation(at.a)
	if c.junk {
		return l.cas(ctx, v, at, wire.MakeWord(wire.Junk, gen, at.s.junkTag()), nil, f)
	}
	i, use, err := at.s.slots.acquire(ctx, at.a, nil)
	if err != nil {
		return 0, err
	}
	page := putPage(f, c.page.Bytes())
	w, err := l.cas(ctx, v, at, wire.MakeWord(wire.Written, gen, use.Tag()), func(b *rdma.Batch) {
		b.Write(page, at.s.own(i))
	}, f)
	const cas = 1 // its place in the list, behind the WRITE
	settle := func() {
		switch {
		case f.b.Result() != nil: // the session broke, and its slots with it
		case classify(wire.Word(f.b.Old(cas)), gen, v.epoch()) == foundEmpty:
			at.s.slots.publish(i)
		default:
			at.s.slots.release(i)
		}
	}
	switch {
	case err == nil:
		settle()
	case f.b.InFlight():
		f.after = settle // rule R6: the slot is not free before that is over
	case f.b.Result() == nil && at.s.alive():
		at.s.slots.release(i) // not posted
	}
	return w, err
}

// compare makes sure that the entry found at a later replica is the one that the head holds. A helper may have
// put it there; anything else is impossible under the rules: stop, alarm, never go on.
func (l *Log) compare(ctx context.Context, v *view, at spot, c content, f *frame) error {
	e, err := l.clear(ctx, v, at, f)
	switch {
	case err != nil:
		return err
	case e.same(c), e.kind == entryTrimmed:
		return nil
	case e.kind == entryNone:
		return &sessionError{at.s.who, errStale}
	}
	l.m.invariant.Inc()
	l.log.Error("a replica holds another entry than the head", "position", at.p, "replica", at.s.who, "word", e.word,
		"attempt", e.header.Attempt, "expected", c.attempt, "expected_junk", c.junk)
	return fmt.Errorf("position %d at %s: %w", at.p, at.s.who, ErrInvariant)
}

// awaitDurable looks at the words of p, which the whole chain holds, until each is durable, ringing again
// each time. An EMPTY word there means that the unit lost what it held: start again from the head.
func (l *Log) awaitDurable(ctx context.Context, v *view, place layout.Place, p layout.Position) error {
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	for _, id := range place.Chain.Units {
		s, err := v.unit(ctx, id)
		if err != nil {
			return err
		}
		if err := l.awaitDurableAt(ctx, v, spot{s, place.Address, p}, f); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) awaitDurableAt(ctx context.Context, v *view, at spot, f *frame) error {
	gen := v.layout.Geometry.Generation(at.a)
	var b backoff
	for n := 0; ; n++ {
		w, err := l.readWord(ctx, at.s, at.a, f)
		if err != nil {
			return err
		}
		switch classify(w, gen, v.epoch()) {
		case foundPast:
			return nil
		case foundEmpty, foundStale, foundAhead:
			return &sessionError{at.s.who, errStale}
		}
		switch w.State() {
		case wire.Durable, wire.DurableJunk, wire.Trimmed:
			return nil
		case wire.Corrupt:
			return l.foundCorrupt(at.p)
		}
		if n > 3 { // the doorbell that came with the CAS was lost, or the unit is slow
			if err := at.s.bell(ctx, at.a, f); err != nil {
				return err
			}
		}
		if err := sleep.For(ctx, b.step()/4); err != nil {
			return waiting(err, "%s to have position %d on flash", at.s.who, at.p)
		}
	}
}

// bell asks the unit to look at a.
func (s *unitSession) bell(ctx context.Context, a layout.Address, f *frame) error {
	var msg [16]byte
	f.b.Reset()
	f.b.SendInline(wire.Doorbell{Address: a}.Append(msg[:0]))
	return s.check(f.do(ctx, s.appends))
}

func (l *Log) foundCorrupt(p layout.Position) error {
	l.m.corrupt.Inc()
	l.log.Error("a replica's copy does not verify", "position", p)
	return at(p, ErrCorrupt)
}

// handedOut fails with ErrUnwritten unless the sequencer has handed out p.
func (l *Log) handedOut(ctx context.Context, p layout.Position) error {
	if uint64(p) < l.current().tail.Load() {
		return nil
	}
	t, err := l.tail(ctx)
	if err != nil && !errors.Is(err, ErrUnwritten) {
		return err
	}
	if p >= t {
		return at(p, ErrUnwritten)
	}
	return nil
}
