package layout

import (
	"errors"
	"fmt"
	"slices"

	"corfu/internal/mutant"
)

// Owner names who wrote a layout record: one reconfigurer in one term of leadership. 0 is none.
type Owner uint64

// Verdict is the second record of an epoch. It is written once (rule R13).
type Verdict uint8

// The verdicts.
const (
	Undecided Verdict = iota
	Active
	Aborted
)

func (v Verdict) String() string {
	switch v {
	case Undecided:
		return "UNDECIDED"
	case Active:
		return "ACTIVE"
	case Aborted:
		return "ABORTED"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Record is what the store holds of one epoch. Owner, Base and Layout are written at once, and once; Verdict once.
type Record struct {
	Epoch   Epoch
	Owner   Owner   // 0: no layout was proposed, or the record is ACTIVE and was recovered (Recover)
	Base    Epoch   // the ACTIVE epoch that the layout follows
	Layout  *Layout // nil: none was proposed
	Verdict Verdict

	ID           RecordID      // 0: of a release that drew none
	Stores       []MemberStore // of the layout's units, as they were sealed (rule R21); by ascending units
	AcceptedLoss bool          // an operator gave up what other stores may hold (rule R27)
	Left         []Settled     // of units of the base that the layout does not name; by ascending units
}

// Ref returns the record's name.
func (r Record) Ref() RecordRef { return RecordRef{r.Epoch, r.ID} }

// MaxRecords is how many of the newest records a State keeps; older ones are decided and nothing asks for them.
const MaxRecords = 64

// State is the layout store's state machine: the founding layout, the two write-once records of every epoch, and the
// client ids handed out. It changes by Apply alone. What it gives out belongs to it: callers must not change it.
//
// Invariants, at all times:
//   - every epoch up to decided has a verdict, the latest ACTIVE one (latest ≤ decided) included
//   - every ACTIVE record follows the ACTIVE one before it (Base), and all epochs between them are ABORTED; a recovered one is the first
//   - what a record says never changes (rule R13)
type State struct {
	founding *Layout
	clients  ClientID // the last one handed out
	latest   Epoch    // latest ACTIVE epoch; 0: none
	decided  Epoch    // every epoch up to it has a verdict: ABORTED, unless a record says ACTIVE
	records  map[Epoch]Record

	writtenRecords []WrittenRecord // every layout record with an id, by ascending epochs and ids; never forgotten (rule R25)
	attempted      Epoch           // no unit was asked to promise more (rule R25); 0: of a release that did not write it down
	loss           Epoch           // latest ACTIVE epoch that was made with an accepted loss (rule R27); 0: none
	notes          []MemberNote    // by ascending units (rule R23)
	left           []LeftMember    // units that left, and may come back with what they have; by ascending units
}

// NewState is the state before the first command.
func NewState() *State { return &State{records: map[Epoch]Record{}} }

// What Apply refuses. Nothing changed then.
var (
	// ErrFounded: the log has a founding layout already. Use that one.
	ErrFounded = errors.New("the log is founded already")
	// ErrNotFounded: there is no log yet. Found it first.
	ErrNotFounded = errors.New("no log was founded")
	// ErrRecorded: the epoch has a layout record already (rule R13). Pick a higher epoch.
	ErrRecorded = errors.New("the epoch has a layout record")
	// ErrDecided: the epoch has another verdict already, or none can be given any more (rule R13). Get the state, pick a
	// higher epoch.
	ErrDecided = errors.New("the epoch is decided")
	// ErrBase: the base is not the latest ACTIVE epoch. Get the state and start again.
	ErrBase = errors.New("the base is not the latest active epoch")
	// ErrGap: an epoch between the base and the proposed one has no verdict. Abort it first.
	ErrGap = errors.New("an epoch in between is undecided")
	// ErrOwner: another owner wrote the layout record, or nobody did. Only the owner makes it ACTIVE.
	ErrOwner = errors.New("not the owner of the layout record")
	// ErrInvalid: the command makes no sense. A bug of the caller.
	ErrInvalid = errors.New("invalid command")
	// ErrNoClients: all client ids are handed out.
	ErrNoClients = errors.New("no client id is left")
)

// Command changes a State. It is one of the types below.
type Command interface {
	apply(*State) (Result, error)
	appendTo(b []byte) []byte
}

// Result of a command that took effect.
type Result struct {
	Client ClientID // of NewClient and LeaseClients: the first
	Last   ClientID // of them, the last
}

// Found writes the founding layout: identity, geometry, durability and first members of the log. Its epoch is 0.
// It fails with ErrFounded or ErrInvalid.
type Found struct{ Layout *Layout }

// Propose writes the layout record of the layout's epoch. It fails with ErrNotFounded, ErrInvalid, ErrBase, ErrGap,
// ErrRecorded or ErrDecided.
type Propose struct {
	Owner  Owner
	Base   Epoch
	Layout *Layout

	// ID names the record, and Stores the stores of all units of the layout, by ascending units (rule R21). Both or neither: a
	// release that knows them not cannot read them.
	ID           RecordID
	Stores       []MemberStore
	AcceptedLoss bool // rule R27

	// Resized: the layout's geometry is not the founding layout's (Geometry.Follows). A release that does not know that cannot read the command.
	Resized bool

	// Left says of each unit of the base that the layout names no more up to where its store is settled, so that it need not be wiped
	// when it comes back; by ascending units. Empty where no unit leaves, or where nobody knows.
	Left []Settled
}

// Decide writes the verdict of an epoch: ACTIVE, which only the record's owner may, or ABORTED, which anybody may. To write
// the verdict that stands already is no error. It fails with ErrNotFounded, ErrInvalid, ErrDecided or ErrOwner.
type Decide struct {
	Epoch   Epoch
	Owner   Owner
	Verdict Verdict
}

// AbortBelow writes ABORTED for every undecided epoch below Epoch: one command, however far an epoch leaps (a unit's
// promise may be far ahead). It fails with ErrNotFounded or ErrInvalid.
type AbortBelow struct{ Epoch Epoch }

// Begin is AbortBelow, and writes down that units will be asked to promise Epoch, before the first of them is: a promise above every
// attempt then proves that the layout store went back (rule R25).
type Begin struct{ Epoch Epoch }

// NewClient hands out the next client id. It fails with ErrNoClients.
type NewClient struct{}

// Apply executes a command. A command that fails changes nothing.
func (s *State) Apply(c Command) (Result, error) { return c.apply(s) }

// Founding is the founding layout (epoch 0), or nil.
func (s *State) Founding() *Layout { return s.founding }

// Active is the layout of the latest ACTIVE epoch, or nil.
func (s *State) Active() *Layout { return s.records[s.latest].Layout }

// Latest is the latest ACTIVE epoch; 0 if there is none.
func (s *State) Latest() Epoch { return s.latest }

// Highest is the highest epoch that has any record, or a verdict.
func (s *State) Highest() Epoch {
	h := s.decided
	for e := range s.records {
		h = max(h, e)
	}
	return h
}

// Record is what is known of epoch e. Of an old epoch (MaxRecords) only the verdict is known, and of that only that there
// is one: ok is false.
func (s *State) Record(e Epoch) (r Record, ok bool) {
	if r, ok := s.records[e]; ok {
		return r, true
	}
	if e != 0 && e > s.latest {
		v := Undecided
		if e <= s.decided {
			v = Aborted
		}
		return Record{Epoch: e, Verdict: v}, true
	}
	return Record{}, false
}

func (c Found) apply(s *State) (Result, error) {
	if s.founding != nil {
		return Result{}, ErrFounded
	}
	if c.Layout == nil || c.Layout.Epoch != 0 {
		return Result{}, fmt.Errorf("%w: a founding layout has epoch 0", ErrInvalid)
	}
	if err := c.Layout.Next(1, 0).Validate(); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	s.founding = c.Layout.clone()
	return Result{}, nil
}

func (c Propose) apply(s *State) (Result, error) {
	if s.founding == nil {
		return Result{}, ErrNotFounded
	}
	if err := s.checkProposed(c); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	n := c.Layout.Epoch
	if c.Base != s.latest || n <= s.latest {
		return Result{}, fmt.Errorf("epoch %d on base %d: %w: that is %d", n, c.Base, ErrBase, s.latest)
	}
	r, _ := s.Record(n)
	switch {
	case r.Verdict != Undecided:
		return Result{}, fmt.Errorf("epoch %d is %v: %w", n, r.Verdict, ErrDecided)
	case r.Owner != 0:
		return Result{}, fmt.Errorf("epoch %d, of owner %#x: %w", n, uint64(r.Owner), ErrRecorded)
	case s.decided+1 != n:
		return Result{}, fmt.Errorf("epoch %d, before %d: %w", s.decided+1, n, ErrGap)
	}
	s.records[n] = Record{Epoch: n, Owner: c.Owner, Base: c.Base, Layout: c.Layout.clone(), ID: c.ID, Stores: slices.Clone(c.Stores),
		AcceptedLoss: c.AcceptedLoss, Left: slices.Clone(c.Left)}
	s.noteWritten(n, c.ID, false)
	return Result{}, nil
}

// checkProposed refuses what no reconfigurer may propose, whatever the records say.
func (s *State) checkProposed(c Propose) error {
	if c.Owner == 0 || c.Layout == nil {
		return errors.New("no owner or no layout")
	}
	if err := c.Layout.Validate(); err != nil {
		return err
	}
	if err := checkStores(c); err != nil {
		return err
	}
	if c.Layout.Log != s.founding.Log || !c.Layout.Geometry.Follows(s.founding.Geometry) {
		return errors.New("another log or another geometry than the founding layout's")
	}
	if resized := c.Layout.Geometry != s.founding.Geometry; resized != c.Resized || (resized && c.ID == 0) {
		return errors.New("another number of sessions than the founding layout's, and the record does not say so")
	}
	if a := s.Active(); a != nil && c.Layout.Start < a.Start {
		return fmt.Errorf("the sequencer would start at %d, before %d (rule R20)", c.Layout.Start, a.Start)
	}
	return nil
}

// checkStores refuses a record that does not name the store of each of its units (rule R21).
func checkStores(c Propose) error {
	if c.ID == 0 {
		if len(c.Stores) > 0 || c.AcceptedLoss || len(c.Left) > 0 {
			return errors.New("a record without an id names stores")
		}
		return nil
	}
	if len(c.Stores) != len(c.Layout.Units) {
		return fmt.Errorf("%d stores of %d units", len(c.Stores), len(c.Layout.Units))
	}
	for i, m := range c.Stores {
		if !c.Layout.IsMember(m.Unit) || (i > 0 && c.Stores[i-1].Unit >= m.Unit) {
			return fmt.Errorf("the store of unit %d, which is no member, or not in order", m.Unit)
		}
	}
	if c.Base == 0 && len(c.Left) > 0 {
		return errors.New("units have left a base that has no members")
	}
	for i, m := range c.Left {
		if c.Layout.IsMember(m.Unit) || (i > 0 && c.Left[i-1].Unit >= m.Unit) {
			return fmt.Errorf("unit %d has left and is a member, or not in order", m.Unit)
		}
	}
	return nil
}

func (c Decide) apply(s *State) (Result, error) {
	if s.founding == nil {
		return Result{}, ErrNotFounded
	}
	if (c.Verdict != Active && c.Verdict != Aborted) || c.Epoch == 0 || c.Epoch > MaxEpoch {
		return Result{}, fmt.Errorf("%w: epoch %d %v", ErrInvalid, c.Epoch, c.Verdict)
	}
	r, ok := s.Record(c.Epoch)
	switch {
	case !ok:
		return Result{}, fmt.Errorf("epoch %d is older than the active %d: %w", c.Epoch, s.latest, ErrDecided)
	case c.Verdict == Active && (r.Owner == 0 || r.Owner != c.Owner):
		return Result{}, fmt.Errorf("epoch %d, of owner %#x: %w", c.Epoch, uint64(r.Owner), ErrOwner)
	case r.Verdict == c.Verdict:
		return Result{}, nil
	case r.Verdict != Undecided && !mutant.R13:
		return Result{}, fmt.Errorf("epoch %d is %v: %w", c.Epoch, r.Verdict, ErrDecided)
	}
	// An undecided record above the latest ACTIVE epoch still has that as its base: a later proposal would have needed a
	// verdict here first.
	r.Verdict = c.Verdict
	s.records[c.Epoch] = r
	if c.Verdict == Active {
		s.latest = c.Epoch
		s.noteActive(r)
	}
	s.settle(s.decided)
	return Result{}, nil
}

func (c Begin) apply(s *State) (Result, error) {
	r, err := AbortBelow(c).apply(s)
	if err == nil {
		s.attempted = max(s.attempted, c.Epoch)
	}
	return r, err
}

func (c AbortBelow) apply(s *State) (Result, error) {
	if s.founding == nil {
		return Result{}, ErrNotFounded
	}
	if c.Epoch == 0 || c.Epoch > MaxEpoch {
		return Result{}, fmt.Errorf("%w: abort below epoch %d", ErrInvalid, c.Epoch)
	}
	for e, r := range s.records {
		if e < c.Epoch && r.Verdict == Undecided {
			r.Verdict = Aborted
			s.records[e] = r
		}
	}
	s.settle(c.Epoch - 1)
	return Result{}, nil
}

// settle raises decided to at least d and over what is decided above it, and forgets the oldest records.
func (s *State) settle(d Epoch) {
	s.decided = max(s.decided, d)
	for s.records[s.decided+1].Verdict != Undecided {
		s.decided++
	}
	for len(s.records) > MaxRecords {
		oldest := MaxEpoch
		for e := range s.records {
			if e != s.latest {
				oldest = min(oldest, e)
			}
		}
		if oldest > s.decided {
			return
		}
		delete(s.records, oldest)
	}
}
