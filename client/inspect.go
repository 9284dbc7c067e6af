package client

import (
	"context"
	"fmt"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
)

// found is what an index word says to one who expects EMPTY of his generation and epoch.
type found int

const (
	foundEmpty found = iota // as expected
	foundStale              // EMPTY of another epoch
	foundEntry              // an entry of the same address, in any state
	foundPast               // of a later generation: the entry is durable there and has left the window (rule R4)
	foundAhead              // of an earlier generation: the window has not reached the address
)

func classify(w wire.Word, gen layout.Generation, e layout.Epoch) found {
	switch g := w.Generation(); {
	case g > gen:
		return foundPast
	case g < gen:
		return foundAhead
	case w.State() != wire.Empty:
		return foundEntry
	case w.Epoch() != e:
		return foundStale
	}
	return foundEmpty
}

// entryKind is what a position holds at one unit.
type entryKind int

const (
	entryNone    entryKind = iota // EMPTY of the view's epoch, or the window is not there yet
	entryPage                     // a value
	entryJunk                     //
	entryTrimmed                  //
	entryCorrupt                  // the unit says that its copy does not verify
	entryUnclear                  // published, but what it names does not verify (yet): the unit will judge
)

// entry is what inspect found.
type entry struct {
	kind    entryKind
	durable bool // at this unit (rule R3)
	header  wire.Header
	frag    wire.Fragment // Count 0: the page is an entry by itself
	page    []byte        // header and payload, a private copy that was verified
	word    wire.Word
	below   layout.Address // entryTrimmed by a cold read: the unit's prefix trim; 0 if it is not known, or there was none
}

func (e *entry) payload() []byte { return e.header.Payload(e.page) }

// isBatch tells whether the entry, of which this page may be a fragment, is a batch of records.
func (e *entry) isBatch() bool { return e.header.Flags&wire.FlagBatch != 0 }

// same tells whether it is the entry c.
func (e *entry) same(c content) bool {
	if c.junk {
		return e.kind == entryJunk
	}
	return e.kind == entryPage && e.header.Attempt == c.attempt
}

// spot is one position at one unit.
type spot struct {
	s *unitSession
	a layout.Address
	p layout.Position
}

// inspect reads what stands at a spot: word and ring slot in one round trip, and a second one where the page is
// elsewhere. Its errors are the fabric's, errStale or ctx's.
func (l *Log) inspect(ctx context.Context, v *view, at spot, f *frame) (entry, error) {
	l.m.reads.Inc()
	g := v.layout.Geometry
	for n := 0; ; n++ {
		f.b.Reset()
		f.b.Read(f.word(0), at.s.word(at.a))
		f.b.Read(f.page, at.s.ringSlot(at.a))
		if err := at.s.check(f.do(ctx, at.s.reads)); err != nil {
			return entry{}, err
		}
		w := wire.Word(f.value(0))
		switch classify(w, g.Generation(at.a), v.epoch()) {
		case foundEmpty, foundAhead:
			return entry{kind: entryNone, word: w}, nil
		case foundStale:
			at.s.fail(errStale)
			return entry{}, &sessionError{at.s.who, errStale}
		case foundPast:
			e, again, err := l.inspectCold(ctx, v, at, f)
			if !again {
				e.word = w
				return e, err
			}
		case foundEntry:
			e, err := l.inspectEntry(ctx, v, at, f, w)
			// A page that does not verify was overwritten between the two READs, or is bad: look a few times.
			if err != nil || e.kind != entryUnclear || (n >= 3 && !e.durable) {
				return e, err
			}
			if n >= 3 { // the unit's memory is bad: its flash may have the page
				e, again, err := l.inspectCold(ctx, v, at, f)
				if !again {
					e.word = w
					return e, err
				}
			}
		}
		if n > 0 {
			if err := sleep.For(ctx, time.Duration(min(n, 20))*100*time.Microsecond); err != nil {
				return entry{}, err
			}
		}
	}
}

// inspectEntry takes apart a word of the right generation that is not EMPTY.
func (l *Log) inspectEntry(ctx context.Context, v *view, at spot, f *frame, w wire.Word) (entry, error) {
	e := entry{word: w}
	switch w.State() {
	case wire.Junk, wire.DurableJunk:
		e.kind, e.durable = entryJunk, w.State() == wire.DurableJunk
	case wire.Trimmed:
		e.kind, e.durable = entryTrimmed, true
	case wire.Corrupt:
		l.m.corrupt.Inc()
		e.kind = entryCorrupt
	case wire.Durable:
		e.durable = true
		e.take(v, at.p, f.page.Bytes()) // the READ of the ring came after the one that said DURABLE
	case wire.Written:
		return e, l.inspectStaging(ctx, v, at, f, &e)
	default:
		return e, fmt.Errorf("client: %s: word %v: %w", at.s.who, w, ErrCorrupt)
	}
	return e, nil
}

// inspectStaging reads the page of a WRITTEN word. The word is read once more behind it: unchanged, the slot was
// not given back in between (rule R6).
func (l *Log) inspectStaging(ctx context.Context, v *view, at spot, f *frame, e *entry) error {
	e.kind = entryUnclear
	slot, ok := at.s.staging(wire.TagUse(e.word.Tag()).Slot)
	if !ok {
		return nil // no such slot: the unit will call it corrupt
	}
	f.b.Reset()
	f.b.Read(f.page, slot)
	f.b.Read(f.word(0), at.s.word(at.a))
	if err := at.s.check(f.do(ctx, at.s.reads)); err != nil {
		return err
	}
	if wire.Word(f.value(0)) == e.word {
		e.take(v, at.p, f.page.Bytes())
	}
	return nil
}

// inspectCold asks by message for a page that has left the window; again says that the window had not passed after all.
func (l *Log) inspectCold(ctx context.Context, v *view, at spot, f *frame) (e entry, again bool, err error) {
	l.m.coldReads.Inc()
	req := at.s.requests.add()
	msg := wire.ColdRead{Request: req.id, Address: at.a, Buffer: wire.Buffer{Addr: f.remote.Addr, Key: uint32(f.remote.Key)}}
	m, err := at.s.ask(ctx, f, req, msg.Append(make([]byte, 0, 32)))
	if err != nil {
		f.cold = req // the unit may still write to the page
		return e, false, err
	}
	switch m.Status {
	case wire.StatusOK:
	case wire.StatusTooNew:
		return e, true, nil
	case wire.StatusIO:
		// The disk there gives an error: as good as a copy that does not verify. Another replica may serve it.
		l.m.corrupt.Inc()
		e.kind = entryCorrupt
		return e, false, nil
	default:
		return e, false, fmt.Errorf("client: %s: cold read of address %d: status %v: %w", at.s.who, at.a, m.Status, ErrCorrupt)
	}
	e.durable = true
	switch m.State {
	case wire.Durable:
		if e.take(v, at.p, f.page.Bytes()); e.kind == entryUnclear {
			e.kind = entryCorrupt
		}
	case wire.DurableJunk:
		e.kind = entryJunk
	case wire.Trimmed:
		e.kind, e.below = entryTrimmed, layout.Address(m.Value)
	default:
		l.m.corrupt.Inc()
		e.kind = entryCorrupt
	}
	return e, false, nil
}

// ask sends a message on the read connection and waits for its reply. An unanswered request breaks the session after OpTimeout.
func (s *unitSession) ask(ctx context.Context, f *frame, req *pending, msg []byte) (wire.Reply, error) {
	f.b.Reset()
	f.b.SendInline(msg)
	if err := s.check(f.do(ctx, s.reads)); err != nil {
		return wire.Reply{}, err
	}
	m, err := req.wait(ctx, s.broken, s.patience)
	if err == errTimeout {
		s.fail(err)
		return m, &sessionError{s.who, err}
	}
	return m, err
}

// take copies a page out of registered memory and verifies the copy.
func (e *entry) take(v *view, p layout.Position, registered []byte) {
	e.kind = entryUnclear
	n := wire.PageLength(registered)
	if n == 0 {
		return
	}
	page := make([]byte, n)
	copy(page, registered)
	h, err := wire.VerifyPage(page, v.layout.Log, p)
	if err != nil || h.Flags.Kind() != wire.FlagData {
		return
	}
	e.kind, e.header, e.frag, e.page = entryPage, h, h.Fragment(page), page
}
