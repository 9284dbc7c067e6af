package unit

import (
	"cmp"
	"slices"

	"corfu/internal/wire"
	"corfu/layout"
)

// MaxBatch is the largest number of pages in one flush.
const MaxBatch = 512

// Batch is what is to be written to flash in one go. It and its pages belong to
// the writer until Flushed.
type Batch struct {
	Records []Record // by address

	addrs []layout.Address
	trims []trim
}

// trim is an address to be given up, and who asked.
type trim struct {
	address layout.Address
	page    []byte
	session Session
	request wire.RequestID
}

// Busy tells whether something is not on flash yet.
func (u *Unit) Busy() bool { return u.inFlight || len(u.ready)+len(u.trims) > 0 }

// NextBatch gives everything that arrived since the last batch, or nil if one is in
// flight or nothing arrived: a lone page goes at once, and what arrives during a flush goes together (group commit).
func (u *Unit) NextBatch() *Batch {
	if u.inFlight || len(u.ready)+len(u.trims) == 0 {
		return nil
	}
	b := &u.batch
	n := min(len(u.ready), MaxBatch)
	b.addrs = append(b.addrs[:0], u.ready[:n]...)
	u.ready = u.ready[:copy(u.ready, u.ready[n:])]
	n = min(len(u.trims), MaxBatch)
	b.trims = append(b.trims[:0], u.trims[:n]...)
	u.trims = u.trims[:copy(u.trims, u.trims[n:])]

	b.Records = b.Records[:0]
	for _, a := range b.addrs {
		u.cell(a).stage = writing
		b.Records = append(b.Records, Record{a, u.ringPage(a)})
	}
	for _, t := range b.trims {
		b.Records = append(b.Records, Record{t.address, t.page})
	}
	slices.SortFunc(b.Records, func(x, y Record) int { return cmp.Compare(x.Address, y.Address) })
	u.inFlight = true
	return b
}

// Flushed ends the batch in flight. With ok all of it is on flash: words become
// terminal and acks go out, in that order and not before (rule R3). Else it is queued again.
func (u *Unit) Flushed(ok bool) {
	b := &u.batch
	u.inFlight = false
	if !ok {
		for _, a := range b.addrs {
			u.cell(a).stage = waiting
		}
		u.ready = slices.Insert(u.ready, 0, b.addrs...)
		u.trims = slices.Insert(u.trims, 0, b.trims...)
		b.addrs, b.trims = b.addrs[:0], b.trims[:0]
		return
	}
	for _, a := range b.addrs {
		// A prefix may have been trimmed meanwhile.
		if a < u.trimmed {
			u.settle(a, wire.Trimmed)
		} else {
			u.settle(a, u.cell(a).goal)
		}
	}
	u.flushed += uint64(len(b.addrs))
	for _, t := range b.trims {
		u.settleTrim(t)
	}
	b.addrs, b.trims = b.addrs[:0], b.trims[:0]
	u.advance()
	u.release()
}

// settle makes the word of an ingested address terminal, and tells everybody who asked.
func (u *Unit) settle(a layout.Address, s wire.State) {
	c := u.cell(a)
	if w := u.word(a); w != c.seen {
		u.tampered(a, w)
	}
	// The generation is the address's own, whatever a hostile client put there.
	u.store(a, wire.MakeWord(s, u.geo.Generation(a), c.seen.Tag()))
	c.stage = settled

	owner := u.owner(c.seen)
	if owner != 0 {
		u.ack(owner, a, c.shadow)
	}
	if c.ringer == 0 {
		return
	}
	if c.ringer != owner {
		u.ack(c.ringer, a, c.shadow)
	}
	if len(u.ringers) > 0 {
		for _, s := range u.ringers[a] {
			if s != owner {
				u.ack(s, a, c.shadow)
			}
		}
		delete(u.ringers, a)
	}
}

// owner is the session that gets its staging slot back with the ack (rule R6).
func (u *Unit) owner(w wire.Word) Session {
	i := int(wire.TagUse(w.Tag()).Slot) / u.geo.SessionSlots
	if w.State() != wire.Written || i >= len(u.owners) {
		return 0
	}
	return u.owners[i]
}

func (u *Unit) ack(to Session, a layout.Address, w wire.Word) {
	u.out.Acks = append(u.out.Acks, Ack{to, wire.Ack{Address: a, Use: wire.TagUse(w.Tag()), State: w.State()}})
}
