package layout

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// recovered is what a state is built from that had sample active.
func recovered() Recover {
	l := sample()
	c := Recover{Layout: l, ID: 77, Attempted: 9, Clients: 5000}
	for _, u := range l.Units {
		c.Stores = append(c.Stores, MemberStore{u.ID, StoreID{byte(u.ID)}})
	}
	c.Written = []WrittenRecord{{RecordRef{6, 66}, true}, {RecordRef{7, 77}, true}, {RecordRef{9, 90}, false}, {RecordRef{9, 91}, false}}
	return c
}

// knowing are the units of sample, as they answer when nothing but the layout store was lost.
func knowing() (all []Known) {
	l := sample()
	for _, u := range l.Units {
		all = append(all, Known{Unit: u.ID, Log: l.Log, Promise: 7, Layout: l, Active: l, Store: StoreState{Store: StoreID{byte(u.ID)}, Entries: true,
			Reconciled: RecordRef{7, 77}, Active: RecordRef{7, 77}, Client: ClientID(1000 * u.ID)}})
	}
	return all
}

// TestR25RecoveredStoreGoesOnAboveAllThatUnitsKnow: the epoch that units know to be active is the
// base, nothing up to the highest promise can be decided, and every record that units name is
// known.
func TestR25RecoveredStoreGoesOnAboveAllThatUnitsKnow(t *testing.T) {
	for name, before := range map[string][]Command{
		"empty": nil, "founded": {Found{two().Next(0, 0)}},
		"founded, with an attempt": {Found{two().Next(0, 0)}, propose(9, 0, 1)},
	} {
		s := NewState()
		for _, c := range before {
			must(t, s, c)
		}
		must(t, s, recovered())
		l := s.Active()
		if !reflect.DeepEqual(l, sample()) || s.Latest() != 7 || s.Highest() != 9 || s.Founding().Epoch != 0 || s.Founding().Log != l.Log {
			t.Fatalf("%s: epoch %d of %+v, highest %d", name, s.Latest(), l, s.Highest())
		}
		if r, ok := s.Record(7); !ok || !r.Recovered() || r.Ref() != (RecordRef{7, 77}) || len(r.Stores) != 6 {
			t.Errorf("%s: record %+v, %v", name, r, ok)
		}
		if r := must(t, s, NewClient{}); r.Client != 5001 {
			t.Errorf("%s: client %d, want 5001", name, r.Client)
		}
		refused(t, s, recovered(), ErrFounded)
		refused(t, s, Decide{1, 9, Active}, ErrDecided)
		refused(t, s, Propose{Owner: 9, Base: 7, Layout: l.Next(9, 25)}, ErrDecided)
		for _, known := range []StoreState{
			{Reconciled: RecordRef{7, 77}, Active: RecordRef{7, 77}}, {Reconciled: RecordRef{9, 90}, Active: RecordRef{6, 66}}, {Reconciled: RecordRef{9, 91}},
		} {
			if err := s.CheckPast(1, known, 9); err != nil {
				t.Errorf("%s: %+v: %v", name, known, err)
			}
		}
		for _, foreign := range []StoreState{{Reconciled: RecordRef{9, 92}}, {Active: RecordRef{9, 90}}, {Active: RecordRef{8, 1}}} {
			if err := s.CheckPast(1, foreign, 9); !errors.Is(err, ErrWentBack) {
				t.Errorf("%s: %+v: %v, want ErrWentBack", name, foreign, err)
			}
		}
		if err := s.CheckPast(1, StoreState{}, 10); !errors.Is(err, ErrWentBack) {
			t.Errorf("%s: promise 10: %v, want ErrWentBack", name, err)
		}
		if got, err := Restore(s.Snapshot()); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: restored to %+v, %v; want %+v", name, got, err, s)
		}
		must(t, s, Begin{Epoch: 10})
		must(t, s, Propose{Owner: 9, Base: 7, Layout: l.Next(10, 25), ID: 100, Stores: recovered().Stores})
		must(t, s, Decide{10, 9, Active})
		if r, _ := s.Record(10); r.Recovered() {
			t.Errorf("%s: epoch 10 is a recovered one", name)
		}
	}
}

func TestRecoverRefusesWhatMakesNoSense(t *testing.T) {
	for name, spoil := range map[string]func(*Recover){
		"no layout":           func(c *Recover) { c.Layout = nil },
		"epoch 0":             func(c *Recover) { c.Layout.Epoch = 0 },
		"attempted below":     func(c *Recover) { c.Attempted = 6 },
		"no epoch left":       func(c *Recover) { c.Attempted = MaxEpoch },
		"a store missing":     func(c *Recover) { c.Stores = c.Stores[1:] },
		"stores out of order": func(c *Recover) { slices.Reverse(c.Stores) },
		"records unordered":   func(c *Recover) { slices.Reverse(c.Written) },
		"record without id":   func(c *Recover) { c.Written[0].Ref.ID = 0 },
		"record not written":  func(c *Recover) { c.Written = c.Written[2:] },
		"record not active":   func(c *Recover) { c.Written[1].Active = false },
	} {
		c := recovered()
		spoil(&c)
		s := NewState()
		before := s.Snapshot()
		if _, err := s.Apply(c); !errors.Is(err, ErrInvalid) || string(before) != string(s.Snapshot()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestR27RecoveredStoreWipesNothingThatMayHaveBeenGivenUp: what was left out before the newest
// epoch is not wiped without a word, and where a member was given up, nothing that was reconciled
// before the next epoch is.
func TestR27RecoveredStoreWipesNothingThatMayHaveBeenGivenUp(t *testing.T) {
	for _, x := range []struct {
		loss bool
		note Epoch
		may  bool
	}{{false, 6, false}, {false, 7, true}, {true, 7, false}, {true, 9, false}, {true, 10, true}} {
		c := recovered()
		c.AcceptedLoss = x.loss
		s := NewState()
		must(t, s, c)
		if got := s.MayWipe(StoreState{Entries: true, Reconciled: RecordRef{Epoch: x.note, ID: 1}}, 11, false); got != x.may {
			t.Errorf("loss %v, note of epoch %d: may be wiped %v", x.loss, x.note, got)
		}
		if !s.MayWipe(StoreState{}, 11, false) {
			t.Error("an empty store is kept")
		}
	}
}

// TestR22StoreThatWasNotFoundIsJudgedByItsNote: a recovered record does not name the store of a
// member that was given up.
func TestR22StoreThatWasNotFoundIsJudgedByItsNote(t *testing.T) {
	c := recovered()
	c.Stores[1].Store = StoreID{}
	s := NewState()
	must(t, s, c)
	r, _ := s.Record(7)
	if !r.Needs(1) || r.Needs(2) || r.Needs(7) {
		t.Error("units that the next epoch needs: want those whose stores were found")
	}
	for _, x := range []struct {
		state StoreState
		want  Trust
	}{
		{StoreState{Store: StoreID{2}, Reconciled: RecordRef{7, 77}, Entries: true}, Trusted},
		{StoreState{Store: StoreID{2}, Reconciled: RecordRef{9, 90}, Entries: true}, Trusted},
		{StoreState{Store: StoreID{2}, Reconciled: RecordRef{6, 66}, Entries: true}, Stranger},
		{StoreState{Store: StoreID{2}}, Stranger},
	} {
		if got, err := r.Judge(2, x.state, nil); got != x.want || (err == nil) != (x.want == Trusted) {
			t.Errorf("%+v: %v, %v; want %v", x.state, got, err, x.want)
		}
	}
}

func TestPlanRecovery(t *testing.T) {
	older := sample().Next(6, 20)
	newer := sample().Next(8, 30)
	for _, x := range []struct {
		name    string
		spoil   func([]Known) []Known
		givenUp []UnitID
		fails   string   // "": it is planned
		missing []UnitID // that have to be given up
		unsure  string   // "": it is proven
		loss    bool
		tried   Epoch
	}{
		{name: "nothing but the layout store was lost", tried: 7},
		{name: "a spare is empty", tried: 7, spoil: func(a []Known) []Known { return append(a, Known{Unit: 7}) }},
		{name: "a member is empty", tried: 7, missing: []UnitID{2}, spoil: func(a []Known) []Known { a[1] = Known{Unit: 2}; return a }},
		{name: "a member that is empty is given up", tried: 7, givenUp: []UnitID{2}, loss: true, spoil: func(a []Known) []Known { a[1] = Known{Unit: 2}; return a }},
		{name: "members do not answer", tried: 7, missing: []UnitID{4, 6}, spoil: func(a []Known) []Known { return append(a[:3:3], a[4]) }},
		{name: "one of them is given up", tried: 7, missing: []UnitID{6}, givenUp: []UnitID{4}, loss: true, spoil: func(a []Known) []Known { return append(a[:3:3], a[4]) }},
		{name: "a member that answers is given up, too", tried: 7, givenUp: []UnitID{4}},
		{name: "a member's store is an old copy", tried: 7, missing: []UnitID{1}, spoil: func(a []Known) []Known {
			a[0].Store.Reconciled, a[0].Store.Active, a[0].Layout, a[0].Active = RecordRef{6, 66}, RecordRef{6, 66}, older, older
			return a
		}},
		{name: "a member promised more", tried: 12, unsure: "unit 3 promised epoch 12", spoil: func(a []Known) []Known { a[2].Promise = 12; return a }},
		{name: "a spare promised more", tried: 12, spoil: func(a []Known) []Known { return append(a, Known{Unit: 7, Promise: 12}) }},
		{name: "members were reconciled for more, and none opened it", tried: 8, unsure: "promised epoch 8", spoil: func(a []Known) []Known {
			for i := range a[:5] {
				a[i].Promise, a[i].Store.Reconciled, a[i].Layout = 8, RecordRef{8, 88}, newer
			}
			return a
		}},
		{name: "one member alone opened the newest", tried: 7, missing: []UnitID{1, 2, 3, 4, 5}, spoil: func(a []Known) []Known {
			for i := range a[:5] {
				a[i].Promise, a[i].Store.Reconciled, a[i].Store.Active, a[i].Layout, a[i].Active = 6, RecordRef{6, 66}, RecordRef{6, 66}, older, older
			}
			return a
		}},
		{name: "members that missed the activation have its layout", tried: 7, spoil: func(a []Known) []Known {
			for i := range a {
				a[i].Store.Active, a[i].Active = RecordRef{6, 66}, older
			}
			return append(a, Known{Unit: 7, Log: sample().Log, Promise: 7, Store: StoreState{Active: RecordRef{7, 77}}})
		}},
		{name: "nobody has the newest layout", fails: "no unit that answered has its layout", spoil: func(a []Known) []Known {
			return append(a, Known{Unit: 7, Log: sample().Log, Promise: 9, Store: StoreState{Active: RecordRef{9, 90}}})
		}},
		{name: "two stores ran the log", fails: "two layout stores ran this log", spoil: func(a []Known) []Known { a[3].Store.Active.ID = 78; return a }},
		{name: "another log", fails: "unit 1 holds log 01000000000000000000000000000000, and unit 2 holds log 02", spoil: func(a []Known) []Known { a[1].Log = LogID{2}; return a }},
		{name: "all are empty", fails: "no unit that answered knows of an active epoch", spoil: func(a []Known) []Known { return []Known{{Unit: 1}, {Unit: 2}} }},
	} {
		t.Run(x.name, func(t *testing.T) {
			all := knowing()
			if x.spoil != nil {
				all = x.spoil(all)
			}
			p, err := PlanRecovery(all, x.givenUp)
			if x.fails != "" {
				if err == nil || !strings.Contains(err.Error(), x.fails) {
					t.Fatalf("%v, want %q", err, x.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var missing []UnitID
			for _, m := range p.Missing {
				missing = append(missing, m.Unit)
			}
			if p.Active != (RecordRef{7, 77}) || p.Layout.Epoch != 7 || !slices.Equal(missing, x.missing) || p.AcceptedLoss != x.loss || p.Attempted != x.tried {
				t.Errorf("%v, missing %v, loss %v, attempted %d; want 7, %v, %v, %d", p.Active, p.Missing, p.AcceptedLoss, p.Attempted, x.missing, x.loss, x.tried)
			}
			if got := strings.Join(p.Unsure, "; "); (got == "") != (x.unsure == "") || !strings.Contains(got, x.unsure) {
				t.Errorf("unsure: %q, want %q", got, x.unsure)
			}
			for _, m := range p.Stores {
				gone := slices.ContainsFunc(p.Missing, func(x Missing) bool { return x.Unit == m.Unit }) || (x.loss && contains(x.givenUp, m.Unit))
				if m.Store.IsZero() != gone {
					t.Errorf("unit %d: store %v", m.Unit, m.Store)
				}
			}
			if p.Clients < 1000+recoveredClients {
				t.Errorf("client ids go on after %d", p.Clients)
			}
			s := NewState()
			must(t, s, p.Recover)
			for _, k := range all {
				if err := s.CheckPast(k.Unit, k.Store, k.Promise); err != nil {
					t.Errorf("what the store was built from proves that it went back: %v", err)
				}
			}
		})
	}
}
