package unit

import (
	"cmp"
	"slices"

	"corfu/internal/wire"
	"corfu/layout"
)

const (
	// MaxBatch is the largest number of pages in one flush.
	MaxBatch = 512
	// MaxInFlight is how many batches may be on their way to flash at a time.
	MaxInFlight = 3
)

// Batch is what is to be written to flash in one go: pages, or trims, never both, so that no page waits for a trim. It and
// its pages belong to the writer until Flushed.
type Batch struct {
	Records []Record // by address
	Trims   []Trim   // in the order of their arrival; an address may be there twice

	addrs []layout.Address // of Records: the core's own, also while a writer has those
	retry bool             // its pages were refused before
}

// Trim is an address to be given up, and who asked.
type Trim struct {
	Address layout.Address
	Failed  bool // set by the writer: its mark is not known to be on flash

	session Session
	request wire.RequestID
}

// refused is what flash did not take. It waits for Retry, and holds up nothing else.
type refused struct {
	pages []layout.Address // in the order in which they were refused
	trims []Trim
	again int // how many of pages are to be tried again now
	taken int // how many of them flash took at the last try; 0: it took none
}

// Busy reports whether something is not on flash yet.
func (u *Unit) Busy() bool {
	return len(u.flying)+len(u.ready)+len(u.trims)+len(u.refused.pages)+len(u.refused.trims) > 0
}

// Retry has NextBatch return what flash refused once more. Pages that were refused go in batches of their own, so that no other page waits
// for a part of the disk that answers late, or not at all. One goes first, since pages that are written together are refused together; twice
// as many each time that flash takes them.
func (u *Unit) Retry() {
	u.refused.again = len(u.refused.pages)
	u.trims = append(u.trims, u.refused.trims...)
	u.refused.trims = u.refused.trims[:0]
}

// NextBatch returns everything that arrived since the last batch, or nil if nothing arrived or MaxInFlight batches are on
// their way. A lone page goes at once; what arrives while the disk has enough to do goes together (group commit).
// Batches may end in any order: no address is in two of them. Trims have a batch of their own, one at a time; so has what was refused, after
// Retry.
func (u *Unit) NextBatch() *Batch {
	if len(u.flying) == MaxInFlight {
		return nil
	}
	switch {
	case len(u.trims) > 0 && !u.trimming():
		b := u.takeBatch()
		n := min(len(u.trims), MaxBatch)
		b.Trims = append(b.Trims, u.trims[:n]...)
		u.trims = u.trims[:copy(u.trims, u.trims[n:])]
		u.flying = append(u.flying, b)
		return b
	case len(u.ready) > 0:
		n := min(len(u.ready), MaxBatch)
		b := u.pages(u.ready[:n])
		u.ready = u.ready[:copy(u.ready, u.ready[n:])]
		return b
	case u.refused.again > 0 && !u.retrying():
		n := min(u.refused.again, max(1, 2*u.refused.taken), MaxBatch)
		b := u.pages(u.refused.pages[:n])
		b.retry = true
		u.refused.pages = slices.Delete(u.refused.pages, 0, n)
		u.refused.again -= n
		return b
	}
	return nil
}

// pages returns a batch of these addresses, which is on its way from now on.
func (u *Unit) pages(addrs []layout.Address) *Batch {
	b := u.takeBatch()
	for _, a := range addrs {
		u.cell(a).stage = writing
		b.addrs = append(b.addrs, a)
		b.Records = append(b.Records, Record{Address: a, Bytes: u.flushed(a)})
	}
	slices.SortFunc(b.Records, func(x, y Record) int { return cmp.Compare(x.Address, y.Address) })
	u.flying = append(u.flying, b)
	return b
}

// retrying reports whether a batch of what was refused is on its way.
func (u *Unit) retrying() bool {
	return slices.ContainsFunc(u.flying, func(b *Batch) bool { return b.retry })
}

// trimming tells whether a batch of trims is on its way.
func (u *Unit) trimming() bool {
	for _, b := range u.flying {
		if len(b.Trims) > 0 {
			return true
		}
	}
	return false
}

// takeBatch gives an empty batch, one used before if there is one.
func (u *Unit) takeBatch() *Batch {
	n := len(u.idle)
	if n == 0 {
		return &Batch{Records: make([]Record, 0, MaxBatch)}
	}
	b := u.idle[n-1]
	u.idle = u.idle[:n-1]
	b.Records, b.Trims, b.addrs, b.retry = b.Records[:0], b.Trims[:0], b.addrs[:0], false
	return b
}

// Flushed ends a batch. What is not marked Failed is on flash, page and mark together: words become terminal
// and acks go out, in that order and not before (rule R3). The rest waits for Retry.
func (u *Unit) Flushed(b *Batch) {
	i := slices.Index(u.flying, b)
	if i < 0 {
		return // of before a Load
	}
	u.flying = slices.Delete(u.flying, i, i+1)
	if b.retry {
		u.refused.taken = len(b.Records)
	}
	for _, r := range b.Records {
		switch {
		case r.Failed:
			u.refused.taken = 0
			u.cell(r.Address).stage = waiting
			u.refused.pages = append(u.refused.pages, r.Address)
		case r.Address < u.trimmed: // the prefix was trimmed meanwhile
			u.settle(r.Address, wire.Trimmed)
		default:
			u.settle(r.Address, u.cell(r.Address).goal)
		}
	}
	for _, t := range b.Trims {
		if !t.Failed {
			u.settleTrim(t)
			continue
		}
		t.Failed = false
		u.refused.trims = append(u.refused.trims, t)
	}
	u.idle = append(u.idle, b)
	u.advance()
	u.release()
}

// oldest is the arrival of the first address that is not on flash: all that arrived before are.
func (u *Unit) oldest() uint64 {
	oldest := u.arrivals
	for _, list := range [][]layout.Address{u.ready, u.refused.pages} {
		for _, a := range list {
			oldest = min(oldest, u.cell(a).arrival)
		}
	}
	for _, b := range u.flying {
		for _, a := range b.addrs {
			oldest = min(oldest, u.cell(a).arrival)
		}
	}
	return oldest
}

// waiting counts the addresses that are ingested and not on flash.
func (u *Unit) waiting() int {
	n := len(u.ready) + len(u.refused.pages)
	for _, b := range u.flying {
		n += len(b.addrs)
	}
	return n
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
	u.top = max(u.top, a+1)
	u.moves++
	if s == wire.Corrupt {
		u.corrupt(a)
	}

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
	i := int(wire.TagUse(w.Tag()).Slot)
	if w.State() != wire.Written || i >= len(u.owners) {
		return 0
	}
	return u.owners[i]
}

func (u *Unit) ack(to Session, a layout.Address, w wire.Word) {
	u.out.Acks = append(u.out.Acks, Ack{to, wire.Ack{Address: a, Use: wire.TagUse(w.Tag()), State: w.State()}})
}
