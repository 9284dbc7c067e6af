package layout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Recover builds the state from what units hold, after every layout server lost its store. It
// replaces a founding that came to nothing, and fails with ErrInvalid, or with ErrFounded once the
// state has an ACTIVE epoch. PlanRecovery makes one.
type Recover struct {
	Layout *Layout  // of the newest epoch that any unit knows to be ACTIVE
	ID     RecordID // of its record; 0: of a release that drew none
	// Stores are those of the layout's units, by ascending units, as they were found; the zero id
	// where nobody could be asked. None if ID is 0.
	Stores       []MemberStore
	Written      []WrittenRecord // every record that a unit names, by ascending epochs and ids (rule R25)
	Attempted    Epoch           // the highest promise of any unit, and at least the layout's epoch: nothing up to it is decided any more
	Clients      ClientID        // no id up to it is handed out again
	AcceptedLoss bool            // an operator gave up what units that were not found may hold (rule R27)
}

// WrittenRecord says of a layout record that it was written, and what is known of its verdict.
type WrittenRecord struct {
	Ref    RecordRef
	Active bool
}

// recoveredClients is how many client ids a recovery passes over: ids that were handed out, and
// that no unit has seen in a session yet.
const recoveredClients = 1 << 16

func (c Recover) apply(s *State) (Result, error) {
	if s.latest != 0 {
		return Result{}, fmt.Errorf("epoch %d is active: %w", s.latest, ErrFounded)
	}
	if err := c.check(); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e := c.Layout.Epoch
	s.founding = c.Layout.Next(0, 0)
	s.records = map[Epoch]Record{e: {Epoch: e, Layout: c.Layout.clone(), Verdict: Active, ID: c.ID, Stores: slices.Clone(c.Stores), AcceptedLoss: c.AcceptedLoss}}
	s.latest, s.notes, s.left = e, nil, nil
	// Nobody opened an epoch between: a unit makes durable that an epoch is ACTIVE before it opens
	// it, and none of those that were asked knows one.
	s.attempted = max(s.attempted, c.Attempted)
	s.decided = max(s.decided, s.attempted)
	s.clients = max(s.clients, c.Clients)
	for _, w := range c.Written {
		s.noteWritten(w.Ref.Epoch, w.Ref.ID, w.Active)
	}
	// Stores that were left out before may hold what some epoch gave up: which one, the lost store
	// knew (rule R27).
	s.loss = max(s.loss, e)
	if c.AcceptedLoss {
		s.loss = s.decided + 1 // a unit that was given up may have been reconciled for anything up to there
	}
	return Result{}, nil
}

// check refuses what no recovery can be.
func (c Recover) check() error {
	if c.Layout == nil {
		return errors.New("no layout")
	}
	if err := c.Layout.Validate(); err != nil {
		return err
	}
	if c.Attempted < c.Layout.Epoch || c.Attempted >= MaxEpoch || c.Clients > MaxClient {
		return fmt.Errorf("epoch %d was attempted, and %d was active", c.Attempted, c.Layout.Epoch)
	}
	if err := checkStores(Propose{ID: c.ID, Layout: c.Layout, Stores: c.Stores, AcceptedLoss: c.AcceptedLoss && c.ID != 0}); err != nil {
		return err
	}
	named := c.ID == 0
	for i, w := range c.Written {
		if w.Ref.ID == 0 || w.Ref.Epoch == 0 || (i > 0 && cmpRef(c.Written[i-1].Ref, w.Ref) >= 0) {
			return fmt.Errorf("%v: not a record's name, or not in order", w.Ref)
		}
		named = named || (w.Active && w.Ref == RecordRef{c.Layout.Epoch, c.ID})
	}
	if !named {
		return errors.New("the record of the layout is not among those that were written")
	}
	return nil
}

// Recovered reports whether a layout store was built with the record (Recover). The epoch after it
// needs all members whose stores the record names: what the lost store had noted of them (rule R23)
// is gone.
func (r Record) Recovered() bool { return r.Verdict == Active && r.Owner == 0 }

// Needs reports whether the epoch after a recovered record cannot do without a seal of unit u: its
// store was found when the record was made.
func (r Record) Needs(u UnitID) bool {
	if !r.Recovered() || !r.Layout.IsMember(u) {
		return false
	}
	i := slices.IndexFunc(r.Stores, func(m MemberStore) bool { return m.Unit == u })
	return i < 0 || !r.Stores[i].Store.IsZero()
}

// Known is what a unit holds that a layout store can be built from.
type Known struct {
	Unit    UnitID
	Log     LogID
	Promise Epoch
	Store   StoreState
	Layout  *Layout // that the unit was, or was to be, reconciled to last; nil: none
	Active  *Layout // of the record Store.Active; nil: the unit does not have it
}

// Plan is how a layout store would be built.
type Plan struct {
	Recover
	Active  RecordRef // the record of the layout
	Missing []Missing // members that did not answer, or whose stores do not count: an operator has to give up each (rule R16)
	Unsure  []string  // why a newer epoch may have been active; none: it is proven that there was none
}

// Missing is a member of the newest layout without which a newer epoch may have been active.
type Missing struct {
	Unit UnitID
	Why  string
}

// NewestActive returns the newest record that any of the units knows to be ACTIVE; the zero one if
// none does.
func NewestActive(all []Known) (r RecordRef) {
	for _, k := range all {
		if k.Store.Active.Epoch > r.Epoch {
			r = k.Store.Active
		}
	}
	return r
}

// PlanRecovery decides what a layout store is built from, given what units answered, by ascending
// units. givenUp are units that an operator does not wait for. It fails if the units hold different
// logs, if they know different records of one epoch as ACTIVE, or if none has the layout of the
// newest record that is known to be ACTIVE.
//
// If no member of a chain promised anything beyond the newest such epoch, and all of them hold that
// epoch's record, then no later epoch was ever active: by rule R16 it would have sealed one of
// them, and a promise is durable (rule R14).
func PlanRecovery(all []Known, givenUp []UnitID) (*Plan, error) {
	if err := oneLog(all); err != nil {
		return nil, err
	}
	ref := NewestActive(all)
	if ref.IsZero() {
		return nil, errors.New("no unit that answered knows of an active epoch: all of them are empty, or their stores are of a release that did not note it")
	}
	p := &Plan{Active: ref, Recover: Recover{ID: ref.ID, Attempted: ref.Epoch}}
	for _, k := range all {
		if a := k.Store.Active; a.Epoch == ref.Epoch && a != ref {
			return nil, fmt.Errorf("unit %d knows that %v was active, and other units know that %v was: two layout stores ran this log", k.Unit, a, ref)
		}
		if p.Layout == nil && k.Store.Active == ref && k.Active != nil {
			p.Layout = k.Active
		}
		p.note(k)
	}
	for _, k := range all {
		if p.Layout == nil && k.Store.Reconciled == ref && k.Layout != nil && k.Layout.Epoch == ref.Epoch {
			p.Layout = k.Layout
		}
	}
	if p.Layout == nil {
		return nil, fmt.Errorf("%v was active, and no unit that answered has its layout: start more of the units", ref)
	}
	p.members(all, givenUp)
	p.Clients = min(p.Clients+recoveredClients, MaxClient)
	return p, p.check()
}

// oneLog fails if stores that hold something are of different logs.
func oneLog(all []Known) error {
	var first *Known
	for i, k := range all {
		switch {
		case k.Store.Blank():
		case first == nil:
			first = &all[i]
		case k.Log != first.Log:
			return fmt.Errorf("unit %d holds log %v, and unit %d holds log %v: take the one that does not belong here out of the list, or give it its own "+
				"directory back", first.Unit, first.Log, k.Unit, k.Log)
		}
	}
	return nil
}

// note takes what a unit knows of records, promises and client ids.
func (p *Plan) note(k Known) {
	for _, r := range []RecordRef{k.Store.Reconciled, k.Store.Active} {
		i, known := slices.BinarySearchFunc(p.Written, r, func(w WrittenRecord, r RecordRef) int { return cmpRef(w.Ref, r) })
		if r.ID != 0 && !known {
			p.Written = slices.Insert(p.Written, i, WrittenRecord{Ref: r})
		}
		if r.ID != 0 && r == k.Store.Active {
			p.Written[i].Active = true
		}
		p.Attempted = max(p.Attempted, r.Epoch)
	}
	p.Attempted = max(p.Attempted, k.Promise)
	if k.Store.Client <= MaxClient { // ids above are drawn by clients
		p.Clients = max(p.Clients, k.Store.Client)
	}
}

// members looks at each member of the layout.
func (p *Plan) members(all []Known, givenUp []UnitID) {
	for _, u := range p.Layout.Units {
		i := slices.IndexFunc(all, func(k Known) bool { return k.Unit == u.ID })
		why, found := "it does not answer", MemberStore{Unit: u.ID}
		if i >= 0 {
			why = p.lacks(all[i])
		}
		switch {
		case why == "":
			found.Store = all[i].Store.Store
			if n := all[i].Promise; n > p.Active.Epoch {
				p.Unsure = append(p.Unsure, fmt.Sprintf("unit %d promised epoch %d: it, or one before it, may have been active at units that are not known here", u.ID, n))
			}
		case contains(givenUp, u.ID):
			p.AcceptedLoss = true
		default:
			p.Missing = append(p.Missing, Missing{u.ID, why})
		}
		p.Stores = append(p.Stores, found)
	}
	slices.SortFunc(p.Stores, func(a, b MemberStore) int { return cmp.Compare(a.Unit, b.Unit) })
	if p.ID == 0 {
		p.Stores = nil
	}
}

// lacks returns why the store of a member does not count as one (rule R22); "": it does.
func (p *Plan) lacks(k Known) string {
	switch r := k.Store.Reconciled; {
	case k.Store.Blank():
		return "its store is empty. Is the volume mounted, and the right one?"
	case r.Epoch < p.Active.Epoch:
		return fmt.Sprintf("its store is as it was in epoch %d: an old copy", r.Epoch)
	case r.Epoch == p.Active.Epoch && r != p.Active:
		return fmt.Sprintf("it was reconciled for %v", r)
	}
	return ""
}

// Names returns every unit that the layouts of what a unit knows name, spares included.
func (k Known) Names() (list []Unit) {
	for _, l := range []*Layout{k.Layout, k.Active} {
		if l != nil {
			list = append(append(list, l.Units...), l.Spares...)
		}
	}
	return list
}

func cmpRef(a, b RecordRef) int {
	switch {
	case a.Epoch != b.Epoch:
		return cmp.Compare(a.Epoch, b.Epoch)
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}
