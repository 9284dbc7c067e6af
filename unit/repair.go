package unit

import (
	"errors"
	"fmt"
	"slices"

	"corfu/internal/wire"
	"corfu/layout"
)

// MaxCorrupt bounds how many addresses with a CORRUPT copy a unit keeps in mind. A scrub finds those beyond it again.
const MaxCorrupt = 4096

// Errors of repairs. Test with errors.Is.
var (
	// ErrSound: the address is not CORRUPT here, or no longer. There is nothing to repair.
	ErrSound = errors.New("not corrupt here")

	// ErrRepairBusy: another repair runs, the address is just being trimmed, or it lies above what the meta file notes as
	// settled. Try again later.
	ErrRepairBusy = errors.New("cannot be repaired now")
)

// repair is the one that is on its way to flash.
type repair struct {
	on      bool
	address layout.Address
	state   wire.State // that the address gets
	page    []byte     // that was written
	held    []heldTrim // of the same address, that came meanwhile: their mark must not be overwritten
}

type heldTrim struct {
	session Session
	request wire.RequestID
}

// corrupt notes that the copy at a does not verify.
func (u *Unit) corrupt(a layout.Address) {
	if _, known := u.bad[a]; known {
		return
	}
	if len(u.bad) == MaxCorrupt {
		u.badMore, u.beyond = true, u.beyond+1
		return
	}
	u.bad[a] = struct{}{}
}

// Remember takes note of addresses below the window, ascending, whose copies were CORRUPT in a life before and were looked at again since; more: there
// were more of them. It follows Load, which finds those of the window itself.
func (u *Unit) Remember(list []layout.Address, more bool) {
	for _, a := range list {
		if _, mapped := u.position(a); mapped && a >= u.trimmed && a < u.base {
			u.corrupt(a)
		}
	}
	u.badMore = u.badMore || more
}

// forgetCorrupt forgets what is noted of addresses from … to−1.
func (u *Unit) forgetCorrupt(from, to layout.Address) {
	for a := range u.bad {
		if a >= from && a < to {
			delete(u.bad, a)
		}
	}
}

// Damaged takes note that flash has no whole page of a, which is decided and durable: the disk cannot read it, it
// does not verify, or it is gone. Its word becomes CORRUPT, so that readers go to another replica and the unit gets a new copy by
// Repair. The word holds an entry, so the CPU may store to it (rule R1). It reports whether that was news; an
// address that is not durable, was trimmed or is just being written is none.
func (u *Unit) Damaged(a layout.Address) bool {
	_, mapped := u.position(a)
	_, known := u.bad[a]
	if u.phase != Open || !mapped || known || a < u.trimmed || u.changing(a) {
		return false
	}
	if a >= u.base {
		if !u.inWindow(a) || u.cell(a).stage != settled {
			return false
		}
		u.check(a)
		w := u.cell(a).shadow
		if w.State() == wire.Trimmed {
			return false // nobody lacks anything; once it has left the window it is found again
		}
		u.store(a, w.With(wire.Corrupt))
	}
	u.corrupt(a)
	u.stats.Damaged++
	u.alarm(Alarm{What: "damaged", Address: a, Err: errDamaged})
	return true
}

// changing tells whether the page of a settled address is on its way to flash.
func (u *Unit) changing(a layout.Address) bool {
	if u.repair.on && u.repair.address == a {
		return true
	}
	is := func(t Trim) bool { return t.Address == a }
	if slices.ContainsFunc(u.trims, is) || slices.ContainsFunc(u.refused.trims, is) {
		return true
	}
	for _, b := range u.flying {
		if slices.ContainsFunc(b.Trims, is) {
			return true
		}
	}
	return false
}

// Corrupt lists up to limit addresses from a on whose copy here is known to be CORRUPT, in order.
func (u *Unit) Corrupt(from layout.Address, limit int) []layout.Address {
	var all []layout.Address
	for a := range u.bad {
		if a >= from {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return all[:min(limit, len(all))]
}

// MoreCorrupt tells whether there may be more addresses with a CORRUPT copy than Corrupt lists.
func (u *Unit) MoreCorrupt() bool { return u.badMore || u.doubt || len(u.bad) == MaxCorrupt }

// Beyond tells whether addresses were found CORRUPT for which there was no room, in this life or one before, and how often there was none in
// this one. They are to be looked for again; until all of flash was looked at the unit does not count for them (rule R16).
func (u *Unit) Beyond() (more bool, times uint64) { return u.badMore, u.beyond }

// NoneBeyond says that all settled addresses were looked at since Beyond told times: those that are CORRUPT are known, unless there was no room again.
func (u *Unit) NoneBeyond(times uint64) {
	if u.beyond == times {
		u.badMore = false
	}
}

// BeginRepair checks that in, what another member of the chain holds durably in epoch e, may replace the CORRUPT copy here, and makes
// out the page to be written; have is what flash has there now, zero if it cannot be read. noted is the address below
// which the meta file says that everything is settled. With write, out is to be written, and nothing else is written to
// the address until EndRepair; without, there is nothing to write: the address was trimmed at the source, and is now here.
//
// Nothing is carried across epochs: unit and source were both open in e. In it the copies of an address are one
// entry (rule R2), so that this is the entry which was CORRUPT. What a crash tears of the write is CORRUPT again
// at the next start, since the address is below noted; above it the start would take it for never written.
//
// It fails with ErrNotOpen, ErrOtherLog, ErrBadEntry, ErrSound, ErrRepairBusy, or ErrConflict if flash holds another, whole entry.
func (u *Unit) BeginRepair(log layout.LogID, e layout.Epoch, in Entry, have, out []byte, noted layout.Address) (write bool, err error) {
	if err := u.CheckOpen(log, e); err != nil {
		return false, err
	}
	a := in.Address
	p, mapped := u.position(a)
	_, known := u.bad[a]
	switch {
	case !mapped || a > u.geo.MaxAddress() || len(out) != u.geo.PageSize:
		return false, fmt.Errorf("unit %d: repair of address %d: not mapped: %w", u.id, a, ErrBadEntry)
	case in.State != wire.Durable && in.State != wire.DurableJunk && in.State != wire.Trimmed:
		return false, fmt.Errorf("unit %d: repair of address %d with state %v: %w", u.id, a, in.State, ErrBadEntry)
	case a < u.trimmed, a >= u.base && !u.isCorrupt(a), a < u.base && !known:
		delete(u.bad, a)
		return false, fmt.Errorf("unit %d: address %d: %w", u.id, a, ErrSound)
	case u.repair.on, u.changing(a), a >= noted:
		return false, fmt.Errorf("unit %d: address %d: %w", u.id, a, ErrRepairBusy)
	}
	if in.State == wire.Trimmed {
		u.Trim(0, 0, a) // for no session
		return false, nil
	}
	put, err := Merge(in, have, out, u.log, p, e)
	if err != nil {
		return false, err
	}
	if !put {
		// Flash holds that very entry, or a trim; whether that is stable nobody knows. It is written once more.
		copy(out, have)
	}
	u.repair = repair{on: true, address: a, page: out}
	u.repair.state, _ = Classify(out, u.log, p)
	return true, nil
}

// IsCorrupt tells whether the copy of a is known to be CORRUPT.
func (u *Unit) IsCorrupt(a layout.Address) bool {
	_, known := u.bad[a]
	return known || u.isCorrupt(a)
}

// isCorrupt tells whether the word of a, an address of the window, is CORRUPT.
func (u *Unit) isCorrupt(a layout.Address) bool {
	return u.mem != nil && u.inWindow(a) && u.cell(a).stage == settled && u.cell(a).shadow.State() == wire.Corrupt
}

// EndRepair ends what BeginRepair began. With durable the page is on flash and was read back (rule R3): page and word become what they
// should be, from CORRUPT, which holds an entry (rule R1). Without, the address stays CORRUPT.
func (u *Unit) EndRepair(durable bool) {
	r := u.repair
	u.repair = repair{}
	defer func() {
		for _, t := range r.held {
			u.Trim(t.session, t.request, r.address)
		}
	}()
	if !r.on || !durable {
		return
	}
	delete(u.bad, r.address)
	u.stats.Repaired++
	// The window may have moved on, and the prefix may have been trimmed; then the word is another's, or says so.
	if r.address < u.trimmed || !u.isCorrupt(r.address) {
		return
	}
	u.check(r.address)
	if r.state == wire.Durable {
		copy(u.ringPage(r.address), r.page)
	}
	u.store(r.address, u.cell(r.address).shadow.With(r.state))
}
