package layout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// storeA and storeB are two stores of tests.
var storeA, storeB = StoreID{0xa}, StoreID{0xb}

// named is the layout record of epoch n by owner 1, with an id and a store for each unit: unit u
// has StoreID{u}.
func named(base, n Epoch, id RecordID) Propose {
	p := propose(1, base, n)
	p.ID = id
	for _, u := range p.Layout.Units {
		p.Stores = append(p.Stores, MemberStore{u.ID, StoreID{byte(u.ID)}})
	}
	return p
}

// TestR21RecordsNameTheStoreOfEachUnit: a record names all stores, each once and in order, and
// keeps what it says.
func TestR21RecordsNameTheStoreOfEachUnit(t *testing.T) {
	s := founded(t)
	for what, spoil := range map[string]func(*Propose){
		"no store":               func(p *Propose) { p.Stores = nil },
		"one is missing":         func(p *Propose) { p.Stores = p.Stores[1:] },
		"one is twice":           func(p *Propose) { p.Stores[1] = p.Stores[0] },
		"not in order":           func(p *Propose) { slices.Reverse(p.Stores) },
		"one is of no member":    func(p *Propose) { p.Stores[2].Unit = 9 },
		"stores without an id":   func(p *Propose) { p.ID = 0 },
		"a loss without an id":   func(p *Propose) { p.ID, p.Stores, p.AcceptedLoss = 0, nil, true },
		"more stores than units": func(p *Propose) { p.Stores = append(p.Stores, MemberStore{9, storeA}) },
	} {
		p := named(0, 1, 77)
		spoil(&p)
		before := s.Snapshot()
		if _, err := s.Apply(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", what, err)
		}
		if string(s.Snapshot()) != string(before) {
			t.Errorf("%s: refused, and the state has changed", what)
		}
	}
	p := named(0, 1, 77)
	must(t, s, p)
	p.Stores[0].Store = storeB // what the caller does to its own list afterwards changes no record
	back := restored(t, s)
	for _, x := range []*State{s, back} {
		r, _ := x.Record(1)
		if want := named(0, 1, 77).Stores; r.ID != 77 || !slices.Equal(r.Stores, want) {
			t.Errorf("record %016x with stores %v; want 77 with %v", uint64(r.ID), r.Stores, want)
		}
	}
}

// restored is the state after a snapshot and a restart.
func restored(t testing.TB, s *State) *State {
	t.Helper()
	back, err := Restore(s.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// TestR21R22R23Judge says what the store of a member counts for: unit 1 was store A in the record
// of epoch 5.
func TestR21R22R23Judge(t *testing.T) {
	record := Record{Epoch: 5, ID: 55, Stores: []MemberStore{{1, storeA}, {2, storeB}, {3, StoreID{}}}}
	at := func(e Epoch, id RecordID) RecordRef { return RecordRef{e, id} }
	noted := []MemberNote{{1, at(5, 55), 100}, {2, at(5, 55), 7}}
	for _, c := range []struct {
		name  string
		unit  UnitID
		store StoreState
		notes []MemberNote
		want  Trust
		says  string
	}{
		{"as it was", 1, StoreState{Store: storeA, Reconciled: at(5, 55), Changes: 100, Entries: true}, noted, Trusted, ""},
		{"with more", 1, StoreState{Store: storeA, Reconciled: at(5, 55), Changes: 101, Entries: true}, noted, Trusted, ""},
		{"nothing was noted yet", 1, StoreState{Store: storeA, Reconciled: at(5, 55), Changes: 1, Entries: true}, nil, Trusted, ""},
		{"what another unit had", 1, StoreState{Store: storeA, Reconciled: at(5, 55), Changes: 8, Entries: true}, noted[1:], Trusted, ""},

		{"R21: empty", 1, StoreState{Store: storeB}, noted, Stranger, "it is empty"},
		{"R21: another store, with entries", 1, StoreState{Store: storeB, Reconciled: at(5, 55), Changes: 900, Entries: true}, noted, Stranger, "it is store"},
		{"R21: the store of unit 2", 1, StoreState{Store: storeB, Reconciled: at(6, 66), Changes: 900, Entries: true}, nil, Stranger, "it is store"},

		{"R22: without a note", 1, StoreState{Store: storeA, Changes: 900, Entries: true}, noted, Stranger, "an old copy"},
		{"R22: with the note before", 1, StoreState{Store: storeA, Reconciled: at(4, 44), Changes: 900, Entries: true}, noted, Stranger, "an old copy"},
		{"R22: an aborted attempt raised the note", 1, StoreState{Store: storeA, Reconciled: at(6, 66), Changes: 1, Entries: true}, noted, Trusted, ""},

		{"R23: less than was noted", 1, StoreState{Store: storeA, Reconciled: at(5, 55), Changes: 99, Entries: true}, noted, Stale, "had 100"},
		{"R23: nothing any more", 1, StoreState{Store: storeA, Reconciled: at(5, 55)}, noted, Stale, "had 100"},
		{"R23: less, and noted of another note", 1, StoreState{Store: storeA, Reconciled: at(5, 55), Changes: 3}, []MemberNote{{1, at(4, 44), 100}}, Trusted, ""},

		{"no store is named", 3, StoreState{Store: storeB, Reconciled: at(5, 0), Entries: true}, nil, Trusted, ""},
		{"no store is named, and it is empty", 3, StoreState{Store: storeB}, nil, Stranger, "it is empty"},
		{"no member", 9, StoreState{Store: storeB}, nil, Trusted, ""},
	} {
		got, err := record.Judge(c.unit, c.store, c.notes)
		var past *PastError
		switch {
		case got != c.want:
			t.Errorf("%s: %v (%v); want %v", c.name, got, err, c.want)
		case (got == Trusted) != (err == nil):
			t.Errorf("%s: %v with the error %v", c.name, got, err)
		case err != nil && (!errors.As(err, &past) || past.Unit != c.unit || past.Trust != c.want || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v; want a PastError of unit %d that says %q", c.name, err, c.unit, c.says)
		}
	}
	record.ID = 0
	if got, err := record.Judge(1, StoreState{Store: storeB}, noted); got != Trusted || err != nil {
		t.Errorf("a record of the release before, which shows no store: %v, %v; want trusted", got, err)
	}
}

// TestR22R23StoresThatDoNotCount: a stranger or a stale member is nothing in rule R16, neither
// intact, nor the tail, nor among all.
func TestR22R23StoresThatDoNotCount(t *testing.T) {
	l := two() // epoch 5, chain 1, 2, 3
	for _, trust := range []Trust{Stranger, Stale} {
		for _, c := range []struct {
			name  string
			seals Seals
		}{
			{"an intact one", sealed(Seal{Unit: 1, Intact: 5, Trust: trust})},
			{"the tail", sealed(Seal{Unit: 3, Trust: trust})},
			{"an intact tail", sealed(Seal{Unit: 3, Intact: 5, Trust: trust})},
			{"all", sealed(Seal{Unit: 1}, Seal{Unit: 2}, Seal{Unit: 3, Trust: trust})},
		} {
			var un *UnsealedError
			if err := SealedEnough(l, c.seals, nil); !errors.As(err, &un) || len(un.Lost) != 1 {
				t.Errorf("%v: %s: %v; want an UnsealedError that names one lost store", trust, c.name, err)
			}
		}
		if err := SealedEnough(l, sealed(Seal{Unit: 1, Intact: 5, Trust: trust}, Seal{Unit: 3}), nil); err != nil {
			t.Errorf("%v beside the tail: %v; want enough", trust, err)
		}
		// Address 4 is corrupt at unit 1: above the watermark only a member that counts supplies
		// it.
		corrupt := Seal{Unit: 1, Watermark: 9, End: 10, Corrupt: []Address{4}}
		var bad *CorruptError
		if err := SoundEnough(l, sealed(corrupt, Seal{Unit: 3, Watermark: 2, Trust: trust}), nil); !errors.As(err, &bad) {
			t.Errorf("%v: the tail that does not count supplies an entry above its watermark: %v", trust, err)
		}
		if err := SoundEnough(l, sealed(corrupt, Seal{Unit: 3, Watermark: 2}), nil); err != nil {
			t.Errorf("the tail supplies it: %v", err)
		}
	}
}

// TestR23Notes: what was noted of a member never goes down while its note of rule R22 is the same,
// and begins anew with another one.
func TestR23Notes(t *testing.T) {
	s := founded(t)
	refused(t, s, Note{Epoch: 0}, ErrBase)
	must(t, s, named(0, 1, 11))
	must(t, s, Decide{1, 1, Active})
	ref := RecordRef{1, 11}
	note := func(e Epoch, list ...MemberNote) Note { return Note{Epoch: e, Members: list} }
	refused(t, s, note(2, MemberNote{1, ref, 5}), ErrBase)
	refused(t, s, note(1, MemberNote{1, ref, 5}, MemberNote{9, ref, 5}), ErrInvalid)
	must(t, s, note(1, MemberNote{2, ref, 5}, MemberNote{1, ref, 3}))
	must(t, s, note(1, MemberNote{2, ref, 4}))
	must(t, s, note(1, MemberNote{1, ref, 8}))
	wantNotes(t, s, "the most that was noted", MemberNote{1, ref, 8}, MemberNote{2, ref, 5})

	must(t, s, named(1, 2, 22))
	must(t, s, Decide{2, 1, Aborted})
	wantNotes(t, s, "after an attempt that came to nothing", MemberNote{1, ref, 8}, MemberNote{2, ref, 5})
	p := named(1, 3, 33)
	p.Layout.Units, p.Layout.Segments[0].Chains[0].Units, p.Stores = p.Layout.Units[:1], []UnitID{1}, p.Stores[:1]
	must(t, s, p)
	must(t, s, Decide{3, 1, Active})
	wantNotes(t, s, "of those that are members still", MemberNote{1, ref, 8})
	must(t, s, note(3, MemberNote{1, RecordRef{3, 33}, 2}))
	wantNotes(t, s, "of the note of epoch 3", MemberNote{1, RecordRef{3, 33}, 2})
}

// wantNotes compares the notes of a state, and those of the same state after a restart.
func wantNotes(t *testing.T, s *State, what string, want ...MemberNote) {
	t.Helper()
	for _, x := range []*State{s, restored(t, s)} {
		if got := x.Notes(); !slices.Equal(got, want) {
			t.Errorf("%s: %v; want %v", what, got, want)
		}
	}
}

// proof is something that a unit knows of the layout store, from the command with this index on.
type proof struct {
	what    string
	from    int
	state   StoreState
	promise Epoch
}

// life is a layout store's commands, and what units learn from each that took effect.
type life struct {
	commands []Command
	proofs   []proof
}

func (l *life) do(c Command) { l.commands = append(l.commands, c) }

func (l *life) learn(what string, x StoreState, promise Epoch) {
	l.proofs = append(l.proofs, proof{what, len(l.commands), x, promise})
}

// attempt is one epoch as a leader makes it, up to a step at which it may crash: 1 Begin, 2
// Propose, 3 the verdict.
func (l *life) attempt(base, n Epoch, id RecordID, verdict Verdict, steps int) {
	ref := RecordRef{n, id}
	l.do(Begin{n})
	l.learn(fmt.Sprintf("promised %d", n), StoreState{}, n)
	if steps < 2 {
		return
	}
	l.do(named(base, n, id))
	l.learn(fmt.Sprintf("reconciled for %v", ref), StoreState{Reconciled: ref}, n)
	if steps < 3 {
		return
	}
	l.do(Decide{n, 1, verdict})
	if verdict == Active {
		l.learn(fmt.Sprintf("opened %v", ref), StoreState{Reconciled: ref, Active: ref}, n)
		l.learn(fmt.Sprintf("sealed over %v", ref), StoreState{Active: ref}, 0)
	}
}

// state is the layout store after its first n commands.
func (l *life) state(t *testing.T, n int) *State {
	s := founded(t)
	for _, c := range l.commands[:n] {
		must(t, s, c)
	}
	return restored(t, s)
}

// TestR25Proofs: whatever a unit knows proves nothing against a store that has the command from
// which it knows it, wherever a leader crashed, and proves that every earlier state is an old one.
func TestR25Proofs(t *testing.T) {
	l := &life{}
	l.attempt(0, 1, 101, Active, 3)
	l.attempt(1, 2, 102, Aborted, 3)
	l.attempt(1, 3, 103, Active, 1) // crashed after Begin and the seals
	l.attempt(1, 4, 104, Active, 2) // crashed while units were reconciled
	l.attempt(1, 7, 107, Active, 3) // a unit had promised 6
	l.attempt(7, 8, 108, Active, 3)
	for n := range len(l.commands) + 1 {
		s := l.state(t, n)
		for _, p := range l.proofs {
			err := s.CheckPast(3, p.state, p.promise)
			switch {
			case n >= p.from && err != nil:
				t.Errorf("after %d commands, a unit that %s (command %d): %v; want nothing against the store", n, p.what, p.from, err)
			case n < p.from && n > 0 && !errors.Is(err, ErrWentBack):
				t.Errorf("after %d commands, a unit that %s (command %d): %v; want ErrWentBack", n, p.what, p.from, err)
			}
		}
	}
}

// TestR25NumbersRepeat: the store went back, and went on with other records of the same numbers.
// What units know of the first ones proves it still.
func TestR25NumbersRepeat(t *testing.T) {
	l := &life{}
	l.attempt(0, 1, 101, Active, 3)
	l.attempt(1, 2, 102, Active, 3)
	was := l.proofs[4:] // of epoch 2: reconciled, opened, sealed over it
	s := founded(t)
	for _, c := range []Command{Begin{1}, named(0, 1, 101), Decide{1, 1, Active}, Begin{2}, named(1, 2, 202), Decide{2, 1, Active}, Begin{3}, named(2, 3, 203)} {
		must(t, s, c)
	}
	n := 0
	for _, p := range was {
		if p.state == (StoreState{}) {
			continue // a promise: the number was promised here as well
		}
		n++
		if err := s.CheckPast(1, p.state, p.promise); !errors.Is(err, ErrWentBack) || !strings.Contains(err.Error(), "unit 1") {
			t.Errorf("a unit that %s: %v; want ErrWentBack, and the unit named", p.what, err)
		}
	}
	if n != 3 {
		t.Fatalf("%d proofs of epoch 2; want 3", n)
	}
	for _, x := range []StoreState{{Reconciled: RecordRef{2, 202}, Active: RecordRef{2, 202}}, {Reconciled: RecordRef{3, 203}}} {
		if err := s.CheckPast(1, x, 3); err != nil {
			t.Errorf("what is recorded here: %v", err)
		}
	}
	if err := s.CheckPast(1, StoreState{Active: RecordRef{3, 203}}, 3); !errors.Is(err, ErrWentBack) {
		t.Errorf("epoch 3 is undecided here, and a unit knows it as active: %v; want ErrWentBack", err)
	}
}

// TestR25RecordsAreNeverForgotten: the ids of all records stay, aborted ones too, however old they
// are.
func TestR25RecordsAreNeverForgotten(t *testing.T) {
	s := founded(t)
	base := Epoch(0)
	const last = 3 * MaxRecords
	for n := Epoch(1); n <= last; n++ {
		must(t, s, Begin{n})
		must(t, s, named(base, n, RecordID(1000+n)))
		v := Aborted
		if n%2 == 0 {
			v, base = Active, n
		}
		must(t, s, Decide{n, 1, v})
	}
	s = restored(t, s)
	for n := Epoch(1); n <= last; n++ {
		ref := RecordRef{n, RecordID(1000 + n)}
		if err := s.CheckPast(1, StoreState{Reconciled: ref}, n); err != nil {
			t.Errorf("reconciled for %v: %v", ref, err)
		}
		if err := s.CheckPast(1, StoreState{Active: ref}, n); (err == nil) != (n%2 == 0) {
			t.Errorf("%v known as active: %v; only even ones were", ref, err)
		}
	}
}

// TestR26MayFound: a log is founded over stores that hold nothing and know nothing, but for an
// attempt to found this very log.
func TestR26MayFound(t *testing.T) {
	s := founded(t)
	must(t, s, Begin{1})
	must(t, s, named(0, 1, 11))
	must(t, s, Decide{1, 0, Aborted})
	for _, c := range []struct {
		name  string
		store StoreState
		want  bool
	}{
		{"blank", StoreState{Store: storeA}, true},
		{"an attempt to found this log came to nothing", StoreState{Store: storeA, Reconciled: RecordRef{1, 11}}, true},
		{"entries", StoreState{Entries: true}, false},
		{"entries of that attempt", StoreState{Reconciled: RecordRef{1, 11}, Entries: true}, false},
		{"reconciled for another record of that number", StoreState{Reconciled: RecordRef{1, 12}}, false},
		{"reconciled for an epoch that is not known", StoreState{Reconciled: RecordRef{2, 22}}, false},
		{"reconciled by the release before", StoreState{Reconciled: RecordRef{Epoch: 1}}, false},
		{"knows an active epoch", StoreState{Active: RecordRef{1, 11}}, false},
	} {
		if got := s.MayFound(c.store); got != c.want {
			t.Errorf("%s: %v; want %v", c.name, got, c.want)
		}
	}
}

// TestR27MayWipe: what was given up is not wiped, neither later, nor in the very epoch that gives
// it up, nor after a restart.
func TestR27MayWipe(t *testing.T) {
	s := founded(t)
	must(t, s, named(0, 1, 11))
	must(t, s, Decide{1, 1, Active})
	old := StoreState{Store: storeA, Reconciled: RecordRef{1, 11}, Entries: true}
	if !s.MayWipe(old, 2, false) {
		t.Error("nothing was given up, and a unit may not be wiped")
	}
	if s.MayWipe(old, 2, true) {
		t.Error("the epoch that gives something up may wipe what may hold it")
	}
	p := named(1, 2, 22)
	p.AcceptedLoss = true
	must(t, s, p)
	if !s.MayWipe(old, 2, false) {
		t.Error("a loss counts before its epoch is active")
	}
	must(t, s, Decide{2, 1, Active})
	must(t, s, named(2, 3, 33))
	must(t, s, Decide{3, 1, Active})
	for what, x := range map[string]*State{"at once": s, "after a restart": restored(t, s)} {
		for _, c := range []struct {
			name  string
			store StoreState
			want  bool
		}{
			{"an older note, and entries", old, false},
			{"no note, and entries", StoreState{Store: storeA, Entries: true}, false},
			{"nothing in it", StoreState{Store: storeA, Reconciled: RecordRef{1, 11}}, true},
			{"blank", StoreState{Store: storeA}, true},
			{"reconciled in that epoch", StoreState{Store: storeA, Reconciled: RecordRef{2, 22}, Entries: true}, true},
			{"reconciled since", StoreState{Store: storeA, Reconciled: RecordRef{3, 33}, Entries: true}, true},
		} {
			if got := x.MayWipe(c.store, 4, false); got != c.want {
				t.Errorf("%s: %s: %v; want %v", what, c.name, got, c.want)
			}
		}
	}
}

// TestUnitsLeaveAMemberlessBaseNowhere: epoch 0 has no members, so that a record on it which names
// some that have left is refused.
func TestUnitsLeaveAMemberlessBaseNowhere(t *testing.T) {
	s := NewState()
	must(t, s, Found{sample().Next(0, 0)})
	p := Propose{Owner: 9, Layout: sample().Next(1, 0), ID: 5, Left: []Settled{{Unit: 9, Below: 3}}}
	for _, u := range p.Layout.Units {
		p.Stores = append(p.Stores, MemberStore{u.ID, StoreID{1}})
	}
	refused(t, s, p, ErrInvalid)
}

// Rule R22: a unit that left, and was wiped by an attempt that came to nothing, has the id and a
// later note, and is not whole.
func TestR22WipedUnitIsNotWhole(t *testing.T) {
	id := StoreID{1}
	left := LeftMember{Settled: Settled{Unit: 2, Below: 10}, Base: Record{Epoch: 5, ID: 50, Verdict: Active, Stores: []MemberStore{{2, id}}}}
	for name, c := range map[string]struct {
		s    StoreState
		want bool
	}{
		"as it left":               {StoreState{Store: id, Reconciled: RecordRef{5, 50}, Entries: true}, true},
		"wiped by an attempt":      {StoreState{Store: id, Reconciled: RecordRef{7, 70}, Entries: true}, false},
		"kept by an attempt":       {StoreState{Store: id, Reconciled: RecordRef{7, 70}, Entries: true, Kept: 10}, true},
		"an older copy":            {StoreState{Store: id, Reconciled: RecordRef{4, 40}, Entries: true}, false},
		"an older copy, that kept": {StoreState{Store: id, Reconciled: RecordRef{4, 40}, Entries: true, Kept: 3}, false},
	} {
		if got := left.Whole(c.s); got != c.want {
			t.Errorf("%s: whole %v, want %v", name, got, c.want)
		}
	}
}
