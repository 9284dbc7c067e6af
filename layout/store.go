package layout

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"corfu/internal/mutant"
)

// StoreID names one store of a unit, whatever it holds. It is drawn at random when the store is
// formatted (rule R21). The zero id belongs to stores of a release that drew none.
type StoreID [16]byte

func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id is unset.
func (id StoreID) IsZero() bool { return id == StoreID{} }

// MarshalText implements encoding.TextMarshaler.
func (id StoreID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *StoreID) UnmarshalText(b []byte) error {
	l, err := ParseLogID(string(b))
	if err != nil {
		return fmt.Errorf("store id %q is not 32 hexadecimal digits", b)
	}
	*id = StoreID(l)
	return nil
}

// RecordID tells a layout record from another one of the same epoch: epoch numbers repeat where the
// layout store went back. Its reconfigurer draws it at random. 0 is a record of a release that drew
// none.
type RecordID uint64

// StartID names one start of a unit (rule R24). The unit draws it at random and keeps it in memory
// alone. 0 is none.
type StartID uint64

// RecordRef names a layout record. The zero value names none.
type RecordRef struct {
	Epoch Epoch
	ID    RecordID `json:",omitzero"`
}

// IsZero reports whether no record is named.
func (r RecordRef) IsZero() bool { return r == RecordRef{} }

func (r RecordRef) String() string {
	return fmt.Sprintf("epoch %d (record %016x)", uint64(r.Epoch), uint64(r.ID))
}

// StoreState is what a unit says of its store, beside what is in it. Only Start is volatile.
type StoreState struct {
	Store      StoreID
	Start      StartID
	Reconciled RecordRef // the note of rule R22: the last record for which the unit confirmed that it was reconciled
	Active     RecordRef // the newest record that the unit knows to be, or to have been, ACTIVE (rule R25)
	Changes    uint64    // durable changes (rule R23): addresses that hold something, and those that are trimmed once more
	Client     ClientID  // no client id above this one has had a session at the unit; 0: not known
	Entries    bool      // the store holds entries, junk or trims
	Singles    bool      // addresses may have been trimmed there one by one
	Kept       Address   // the unit came back once with what it had, and kept what lies below; 0: it did not
}

// Blank reports whether the store holds nothing and knows nothing of any epoch (rule R26). What was
// promised does not count: a store that is empty may have been sealed for an attempt that was given
// up.
func (s StoreState) Blank() bool { return !s.Entries && s.Reconciled.IsZero() && s.Active.IsZero() }

// MemberStore names the store of a member, as it was sealed for the record that holds this (rule
// R21).
type MemberStore struct {
	Unit  UnitID
	Store StoreID
}

// MemberNote is what the layout store has noted of a member: its note of rule R22, and how much it
// had durable then (rule R23).
type MemberNote struct {
	Unit       UnitID
	Reconciled RecordRef
	Changes    uint64
}

// Settled says that what a unit has at addresses From … Below-1 is decided: every member that was
// sealed as the unit left had it durably.
type Settled struct {
	Unit        UnitID
	From, Below Address
}

// LeftMember is what the layout store keeps of a unit that left its chains: enough to tell whether
// it comes back with what it had.
type LeftMember struct {
	Settled
	At    Position     // that lived at address From: the unit may join another chain, where others live at its addresses
	Base  Record       // of the last epoch in which it was a member; without a layout, and with its store alone
	Noted []MemberNote // what was noted of it last; at most one
}

// Whole reports whether the store is the one with which the unit left, with all that is known to
// have been durable there. A later note alone does not show that: an attempt that came to nothing may
// have wiped the unit, and raised it (rule R22). One that did not wipe it noted what it kept.
func (l LeftMember) Whole(s StoreState) bool {
	trust, _ := l.Base.Judge(l.Unit, s, l.Noted)
	untouched := s.Reconciled == l.Base.Ref() || s.Kept != 0
	return untouched && l.Base.ID != 0 && len(l.Base.Stores) == 1 && !l.Base.Stores[0].Store.IsZero() && trust == Trusted
}

// Left returns what is known of a unit that left. ok is false for one that never was a member, or
// is one.
func (s *State) Left(u UnitID) (l LeftMember, ok bool) {
	i, ok := slices.BinarySearchFunc(s.left, u, func(l LeftMember, u UnitID) int { return cmp.Compare(l.Unit, u) })
	if !ok {
		return l, false
	}
	return s.left[i], true
}

// SettledAt returns which addresses of a unit hold what was decided, by the seals with which it is
// left out: all sealed members of its chains have them durably (rule R17). They begin at its first
// address and end at the first one that is not settled, or not its own.
func SettledAt(base *Layout, u UnitID, seals Seals) Settled {
	x := Settled{Unit: u, From: base.First(u), Below: base.First(u)}
	for i, s := range base.Segments {
		for j, c := range s.Chains {
			if !contains(c.Units, u) || c.Base != x.Below {
				continue
			}
			sealed := func(v UnitID) bool { _, ok := seals[v]; return ok }
			if !slices.ContainsFunc(c.Units, sealed) {
				return x // its entries were given up
			}
			from, _ := Doubt(base, i, j, seals)
			if x.Below = from; from < base.limit(i, j) {
				return x
			}
		}
	}
	return x
}

// Trust says what the store of a member counts for.
type Trust uint8

const (
	// Trusted stores have everything that the member made durable, as far as anybody knows.
	Trusted Trust = iota
	// Stale stores lack something that the layout store knows to have been durable there (rule
	// R23): the member counts for nothing in rule R16. It remains a source, and is completed in
	// place.
	Stale
	// Stranger: the store is not the one that was a member, or it went back to before it was (rules
	// R21, R22). It counts for nothing in rule R16, is no source, and is wiped and copied like a
	// spare once rule R16 holds without it.
	Stranger
)

func (t Trust) String() string {
	switch t {
	case Trusted:
		return "trusted"
	case Stale:
		return "stale"
	case Stranger:
		return "stranger"
	}
	return fmt.Sprintf("Trust(%d)", uint8(t))
}

// PastError says why the store of a member does not count.
type PastError struct {
	Unit  UnitID
	Trust Trust // Stale or Stranger
	Why   string
}

func (e *PastError) Error() string {
	return fmt.Sprintf("the store of unit %d has lost its past: %s", e.Unit, e.Why)
}

// Judge reports whether the store of unit u counts as the one that was a member in the epoch of the
// record (rules R21 to R23), and why not. A record without an id was written for a release that
// showed no stores: nothing can be judged, and the store counts. Where a record names no store of
// u, because u could not be asked, the note alone decides.
func (r Record) Judge(u UnitID, s StoreState, notes []MemberNote) (Trust, error) {
	if r.ID == 0 {
		return Trusted, nil
	}
	i := slices.IndexFunc(r.Stores, func(m MemberStore) bool { return m.Unit == u })
	if i < 0 || (r.Stores[i].Store.IsZero() && s.Store.IsZero()) {
		return Trusted, nil
	}
	stranger := func(format string, args ...any) (Trust, error) {
		return Stranger, &PastError{u, Stranger, fmt.Sprintf(format, args...)}
	}
	was := r.Stores[i].Store
	other := !was.IsZero() && s.Store != was && !mutant.R21
	switch {
	case was.IsZero() && s.Blank():
		return stranger("it is empty (store %v), and it was a member in epoch %d. Is the volume mounted, and the right one?", s.Store, r.Epoch)
	case other && s.Blank():
		return stranger("it is empty (store %v), and epoch %d had store %v. Is the volume mounted, and the right one?", s.Store, r.Epoch, was)
	case other:
		return stranger("it is store %v, and epoch %d had store %v", s.Store, r.Epoch, was)
	case s.Reconciled.Epoch < r.Epoch && !mutant.R22:
		return stranger("store %v is as it was in epoch %d, and was in epoch %d since: an old copy", s.Store, s.Reconciled.Epoch, r.Epoch)
	}
	for _, n := range notes {
		if n.Unit == u && n.Reconciled == s.Reconciled && s.Changes < n.Changes && !mutant.R23 {
			return Stale, &PastError{u, Stale, fmt.Sprintf("store %v has %d changes of epoch %d, and had %d: an old copy", s.Store, s.Changes,
				r.Epoch, n.Changes)}
		}
	}
	return Trusted, nil
}

// ErrWentBack: a unit proves that the layout store lacks what it once held (rule R25). Nothing may
// be decided or wiped: restore the layout store, or build it from what the units hold (corfu layout
// recover).
var ErrWentBack = errors.New("the layout store has lost its past")

// CheckPast fails with ErrWentBack if the unit was reconciled for a record that the state does not
// know, knows an epoch to be ACTIVE that is not ACTIVE here, or promised an epoch that was never
// attempted here (rule R25).
func (s *State) CheckPast(u UnitID, x StoreState, promise Epoch) error {
	if mutant.R25 {
		return nil
	}
	if r := x.Reconciled; !r.IsZero() && !s.wrote(r) {
		return fmt.Errorf("unit %d was reconciled for %v, of which there is no record here: %w", u, r, ErrWentBack)
	}
	if r := x.Active; !r.IsZero() && !s.knowsActive(r) {
		return fmt.Errorf("unit %d knows that %v was active, and here it was not: %w", u, r, ErrWentBack)
	}
	if s.attempted != 0 && promise > s.attempted {
		return fmt.Errorf("unit %d promised epoch %d, and here %d is the last that was attempted: %w", u, promise, s.attempted, ErrWentBack)
	}
	return nil
}

// wrote reports whether the layout record was written here. Of one without an id only its epoch can
// be compared.
func (s *State) wrote(r RecordRef) bool {
	if r.ID == 0 {
		return r.Epoch <= s.Highest()
	}
	_, ok := s.written(r)
	return ok
}

func (s *State) knowsActive(r RecordRef) bool {
	if r.ID == 0 {
		return r.Epoch <= s.latest
	}
	i, ok := s.written(r)
	return ok && s.writtenRecords[i].Active
}

// MayFound reports whether a log may be founded over the store (rule R26): it is blank, or all that
// it knows is an attempt to found this very log, which came to nothing.
func (s *State) MayFound(x StoreState) bool {
	return mutant.R26 || !x.Entries && x.Active.IsZero() && (x.Reconciled.IsZero() || (x.Reconciled.ID != 0 && s.wrote(x.Reconciled)))
}

// MayWipe reports whether a unit that is no member of the latest ACTIVE epoch may be wiped for
// epoch n (rule R27). It may not if its store holds something and has not been reconciled since an
// operator accepted a loss: it may have what was given up. loss reports whether epoch n itself is
// made so.
func (s *State) MayWipe(x StoreState, n Epoch, loss bool) bool {
	last := s.loss
	if loss {
		last = max(last, n)
	}
	return mutant.R27 || x.Blank() || !x.Entries || x.Reconciled.Epoch >= last
}

// written returns where among the written records the one of that name stands, or would stand.
func (s *State) written(r RecordRef) (i int, ok bool) {
	return slices.BinarySearchFunc(s.writtenRecords, r, func(w WrittenRecord, r RecordRef) int { return cmpRef(w.Ref, r) })
}

// noteWritten keeps that a record was written, and whether it is ACTIVE.
func (s *State) noteWritten(e Epoch, id RecordID, active bool) {
	if id == 0 {
		return
	}
	i, known := s.written(RecordRef{e, id})
	if !known {
		s.writtenRecords = slices.Insert(s.writtenRecords, i, WrittenRecord{Ref: RecordRef{e, id}})
	}
	s.writtenRecords[i].Active = s.writtenRecords[i].Active || active
}

// noteActive keeps that the record's verdict is ACTIVE and which units it leaves out, and forgets
// what was noted of those that are no members any more, and of those that are again.
func (s *State) noteActive(r Record) {
	s.left = slices.DeleteFunc(s.left, func(l LeftMember) bool { return r.Layout.IsMember(l.Unit) })
	base := s.records[r.Base]
	for _, x := range r.Left {
		l := LeftMember{Settled: x}
		l.At, _ = base.Layout.PositionAt(x.Unit, x.From)
		for _, n := range s.notes {
			if n.Unit == x.Unit {
				l.Noted = []MemberNote{n}
			}
		}
		l.Base = Record{Epoch: base.Epoch, ID: base.ID, Verdict: Active, AcceptedLoss: base.AcceptedLoss}
		l.Base.Stores = slices.DeleteFunc(slices.Clone(base.Stores), func(m MemberStore) bool { return m.Unit != x.Unit })
		s.left = slices.DeleteFunc(s.left, func(l LeftMember) bool { return l.Unit == x.Unit })
		i, _ := slices.BinarySearchFunc(s.left, x.Unit, func(l LeftMember, u UnitID) int { return cmp.Compare(l.Unit, u) })
		s.left = slices.Insert(s.left, i, l)
	}
	s.noteWritten(r.Epoch, r.ID, true)
	if r.AcceptedLoss {
		s.loss = max(s.loss, r.Epoch)
	}
	s.notes = slices.DeleteFunc(s.notes, func(n MemberNote) bool { return !r.Layout.IsMember(n.Unit) })
}

// Note writes down what members had durable in the latest ACTIVE epoch (rule R23). What is known
// already of the same note of a member never goes down. It fails with ErrNotFounded, ErrBase if
// another epoch is the latest ACTIVE one, or ErrInvalid.
type Note struct {
	Epoch   Epoch
	Members []MemberNote
}

func (c Note) apply(s *State) (Result, error) {
	if s.founding == nil {
		return Result{}, ErrNotFounded
	}
	if c.Epoch == 0 || c.Epoch != s.latest {
		return Result{}, fmt.Errorf("note of epoch %d: %w: that is %d", c.Epoch, ErrBase, s.latest)
	}
	for _, n := range c.Members {
		if !s.Active().IsMember(n.Unit) {
			return Result{}, fmt.Errorf("%w: note of unit %d, which is no member", ErrInvalid, n.Unit)
		}
	}
	for _, n := range c.Members {
		i, known := slices.BinarySearchFunc(s.notes, n.Unit, func(m MemberNote, u UnitID) int { return cmp.Compare(m.Unit, u) })
		switch {
		case !known:
			s.notes = slices.Insert(s.notes, i, n)
		case s.notes[i].Reconciled == n.Reconciled:
			s.notes[i].Changes = max(s.notes[i].Changes, n.Changes)
		default:
			s.notes[i] = n
		}
	}
	return Result{}, nil
}

// Notes returns what was noted of the members, by ascending units. It must not be changed.
func (s *State) Notes() []MemberNote { return s.notes }

// KnowsStores reports whether anything was written here that names stores: then every layout server
// reads such commands.
func (s *State) KnowsStores() bool {
	return len(s.writtenRecords) > 0 || len(s.notes) > 0 || s.attempted > 0
}
