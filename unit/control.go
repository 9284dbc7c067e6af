package unit

import (
	"fmt"

	"corfu/internal/mutant"
	"corfu/layout"
)

// Phase of a unit's life.
type Phase uint8

const (
	Closed Phase = iota // started, or sealing: serves nobody
	Sealed              // at Epoch: has answered with its snapshot
	Open                // in Epoch
)

func (p Phase) String() string {
	switch p {
	case Closed:
		return "closed"
	case Sealed:
		return "sealed"
	case Open:
		return "open"
	}
	return fmt.Sprintf("Phase(%d)", uint8(p))
}

// control is the part of the state by which epochs change.
type control struct {
	id      layout.UnitID
	log     layout.LogID // zero until the first seal
	promise layout.Epoch // rule R14: durable before it is set here. Serves no epoch below

	phase      Phase
	epoch      layout.Epoch // Open: served. Sealed, or Closed while sealing: the promise made in this life; else 0
	answer     Snapshot     // to the last seal
	intact     layout.Epoch // rule R16: opened in it and not restarted since, but for clean stops; 0: none
	reconciled layout.Epoch // rule R18: since the last seal; 0: not
}

// CheckSeal tells whether the unit may seal at n: n is above its promise, or is what it was sealed
// at in this life (again is true then: an idempotent answer, or a seal that failed half-way). It
// fails with ErrOtherLog or a *PromiseError (rules R14, R19).
func (u *Unit) CheckSeal(log layout.LogID, n layout.Epoch) (again bool, err error) {
	switch {
	case !u.log.IsZero() && u.log != log:
		return false, fmt.Errorf("unit %d is of log %v: %w", u.id, u.log, ErrOtherLog)
	case log.IsZero() || n == 0 || n > layout.MaxEpoch:
		return false, fmt.Errorf("unit %d: seal of log %v at epoch %d: %w", u.id, log, n, ErrBadEntry)
	case n > u.promise || mutant.R14Lower:
		return false, nil
	case n == u.promise && u.epoch == n && u.phase != Open:
		return true, nil
	}
	return false, &PromiseError{u.promise}
}

// BeginSeal starts to seal at n, after CheckSeal, and after the promise and the log id are durable (rule R14).
// From now on nothing opens below n. base is the latest ACTIVE epoch as the sealer knows
// it: a unit that was reconciled for it, and only missed the order to open it, is intact in it.
func (u *Unit) BeginSeal(log layout.LogID, n, base layout.Epoch) {
	if u.reconciled != 0 && u.reconciled == base && u.phase == Sealed {
		u.intact = base
	}
	u.log, u.promise, u.epoch = log, n, n
	u.phase, u.reconciled = Closed, 0
}

// Snapshot is the answer to a seal.
type Snapshot struct {
	Intact       layout.Epoch
	Watermark    layout.Address // all below are durable, junk or trimmed
	End          layout.Address // first above all entries
	TrimmedBelow layout.Address
}

// EndSeal takes the snapshot. The index must be out of reach (rule R15), all sessions ended, and all that they
// published on flash; else it fails with ErrNotFlushed. It fails with ErrOutdated if reconciling was begun and not ended.
func (u *Unit) EndSeal(n layout.Epoch) (Snapshot, error) {
	if u.epoch != n || u.phase == Open {
		return Snapshot{}, fmt.Errorf("unit %d: end of seal at epoch %d: %w", u.id, n, ErrNotSealed)
	}
	if u.mem != nil && (u.ScanAll() > 0 || u.Busy()) {
		return Snapshot{}, fmt.Errorf("unit %d: %d pages: %w", u.id, u.View().Waiting, ErrNotFlushed)
	}
	if u.outdated {
		return Snapshot{}, fmt.Errorf("unit %d: %w", u.id, ErrOutdated)
	}
	u.phase = Sealed
	v := u.View()
	u.answer = Snapshot{v.Intact, v.Watermark, v.End, v.TrimmedBelow}
	return u.answer, nil
}

// CheckSealed fails with ErrNotSealed unless the unit is sealed at n and has answered.
func (u *Unit) CheckSealed(n layout.Epoch) error {
	if u.phase != Sealed || u.epoch != n || u.promise != n {
		return fmt.Errorf("unit %d is %v at epoch %d, not sealed at %d: %w", u.id, u.phase, u.epoch, n, ErrNotSealed)
	}
	return nil
}

// StoppedIn says, right after New, that the unit stopped cleanly when it was intact in epoch e: it closed, brought all that was
// published to flash, and only then wrote that down. Nothing was lost by that restart, so it is intact in e still (rules R16, R19;
// docs/model, stop). It is closed all the same, and what was written down is erased before it opens again.
func (u *Unit) StoppedIn(e layout.Epoch) { u.intact = e }

// Forget notes that all entries are about to be wiped: the unit is intact in no epoch any more.
func (u *Unit) Forget() {
	u.intact, u.reconciled, u.trimmed, u.counted, u.answer = 0, 0, 0, 0, Snapshot{}
	clear(u.bad)
	u.badMore = false
	u.noted = notes{}
}

// Answer is the snapshot of the last seal: what the unit lists entries from while it is reconciled.
func (u *Unit) Answer() Snapshot { return u.answer }

// Outdate says that flash is about to change below the window. Until Load nothing is answered that
// may be wrong, even if reconciling ends half-way. What Durable said counts on: reconciling takes nothing away.
func (u *Unit) Outdate() { u.counted, u.outdated, u.reconciled = u.Durable(), true, 0 }

// Reconciled notes that all entries of epoch n are on flash (rule R17). It fails with
// ErrNotSealed, and with ErrOutdated unless Load was called since.
func (u *Unit) Reconciled(n layout.Epoch) error {
	if err := u.CheckSealed(n); err != nil {
		return err
	}
	if u.outdated {
		return fmt.Errorf("unit %d: %w", u.id, ErrOutdated)
	}
	u.reconciled = n
	return nil
}

// Prepare makes the index ready for epoch n: every EMPTY word may be written in n, and the epoch word says n. The
// index must not be registered (rules R1, R18). It fails with ErrNotSealed or ErrNotReconciled. If the unit
// serves n already, ready is true and nothing is to be done.
func (u *Unit) Prepare(n layout.Epoch) (ready bool, err error) {
	if u.phase == Open && u.epoch == n {
		return true, nil
	}
	if err := u.CheckSealed(n); err != nil {
		return false, err
	}
	if u.reconciled != n || u.mem == nil {
		return false, fmt.Errorf("unit %d: epoch %d: %w", u.id, n, ErrNotReconciled)
	}
	u.rewriteEmpty(n)
	u.mem.StoreEpoch(n)
	return false, nil
}

// Activate opens epoch n, after Prepare, once the index is registered.
func (u *Unit) Activate(n layout.Epoch) {
	u.phase, u.epoch, u.intact, u.doubt = Open, n, n, false
	u.noted.open(n)
}

// CheckOpen fails with ErrNotOpen or ErrOtherLog unless the unit serves n.
func (u *Unit) CheckOpen(log layout.LogID, n layout.Epoch) error {
	if u.log != log {
		return fmt.Errorf("unit %d is of log %v: %w", u.id, u.log, ErrOtherLog)
	}
	if u.phase != Open || u.epoch != n {
		return fmt.Errorf("unit %d is %v at epoch %d, not open in %d: %w", u.id, u.phase, u.epoch, n, ErrNotOpen)
	}
	return nil
}
