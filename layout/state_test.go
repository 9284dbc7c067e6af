package layout

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
)

// founded is a state with two's founding layout.
func founded(t testing.TB) *State {
	s := NewState()
	must(t, s, Found{two().Next(0, 0)})
	return s
}

func must(t testing.TB, s *State, c Command) Result {
	t.Helper()
	r, err := s.Apply(c)
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return r
}

// refused checks that the command fails with want and changes nothing.
func refused(t *testing.T, s *State, c Command, want error) {
	t.Helper()
	before := s.Snapshot()
	if _, err := s.Apply(c); !errors.Is(err, want) {
		t.Errorf("%+v: %v, want %v", c, err, want)
	}
	if !bytes.Equal(before, s.Snapshot()) {
		t.Errorf("%+v was refused and changed the state", c)
	}
}

func propose(o Owner, base, n Epoch) Propose {
	return Propose{Owner: o, Base: base, Layout: two().Next(n, 0)}
}

func TestR13RecordsAreWrittenOnce(t *testing.T) {
	s := founded(t)
	must(t, s, propose(1, 0, 1))
	refused(t, s, propose(1, 0, 1), ErrRecorded)
	refused(t, s, propose(2, 0, 1), ErrRecorded)
	refused(t, s, Decide{1, 2, Active}, ErrOwner)
	must(t, s, Decide{1, 1, Active})
	must(t, s, Decide{1, 1, Active}) // what stands may be written again
	refused(t, s, Decide{1, 1, Aborted}, ErrDecided)
	refused(t, s, propose(2, 1, 1), ErrBase)

	must(t, s, propose(2, 1, 2))
	must(t, s, Decide{2, 9, Aborted}) // by anybody
	refused(t, s, Decide{2, 2, Active}, ErrDecided)
	refused(t, s, propose(3, 1, 2), ErrDecided)
	must(t, s, AbortBelow{2}) // changes nothing

	want := &State{founding: two().Next(0, 0), latest: 1, decided: 2, records: map[Epoch]Record{
		1: {Epoch: 1, Owner: 1, Layout: two().Next(1, 0), Verdict: Active},
		2: {Epoch: 2, Owner: 2, Base: 1, Layout: two().Next(2, 0), Verdict: Aborted},
	}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("state is %+v, want %+v", s, want)
	}
}

func TestR13ActiveNeedsALayoutOnTheLatestBase(t *testing.T) {
	s := founded(t)
	refused(t, s, Decide{1, 1, Active}, ErrOwner) // no layout was proposed
	refused(t, s, propose(1, 0, 3), ErrGap)
	must(t, s, Decide{1, 0, Aborted})
	refused(t, s, propose(1, 0, 3), ErrGap)
	must(t, s, Decide{2, 0, Aborted})
	refused(t, s, propose(1, 2, 3), ErrBase) // 2 is not active
	must(t, s, propose(1, 0, 3))
	refused(t, s, propose(2, 0, 4), ErrGap) // 3 may still become active
	must(t, s, Decide{3, 1, Active})
	refused(t, s, propose(2, 0, 4), ErrBase)
	must(t, s, propose(2, 3, 4))
	if s.Latest() != 3 || s.Active().Epoch != 3 || s.Highest() != 4 {
		t.Errorf("latest %d, highest %d", s.Latest(), s.Highest())
	}
}

func TestR13AbortBelowLeapsOverEpochsThatNobodyTouched(t *testing.T) {
	s := founded(t)
	must(t, s, propose(1, 0, 1))
	const far = 1 << 35
	must(t, s, Decide{far + 3, 0, Aborted})
	must(t, s, AbortBelow{far})
	refused(t, s, Decide{1, 1, Active}, ErrDecided)
	refused(t, s, Decide{far - 1, 1, Active}, ErrOwner)
	must(t, s, propose(2, 0, far))
	refused(t, s, propose(2, 0, far+1), ErrGap)
	must(t, s, Decide{far, 2, Active})
	must(t, s, AbortBelow{far + 3})
	must(t, s, propose(3, far, far+4))
	if r, ok := s.Record(far + 1); !ok || r.Verdict != Aborted {
		t.Errorf("epoch %d: %+v, %v", far+1, r, ok)
	}
}

func TestStateRefusesWhatMakesNoSense(t *testing.T) {
	s := NewState()
	refused(t, s, propose(1, 0, 1), ErrNotFounded)
	refused(t, s, Decide{1, 1, Aborted}, ErrNotFounded)
	refused(t, s, AbortBelow{1}, ErrNotFounded)
	refused(t, s, Found{nil}, ErrInvalid)
	refused(t, s, Found{two()}, ErrInvalid) // epoch 5
	refused(t, s, Found{&Layout{}}, ErrInvalid)
	must(t, s, Found{two().Next(0, 0)})
	refused(t, s, Found{two().Next(0, 0)}, ErrFounded)

	refused(t, s, Propose{Owner: 0, Base: 0, Layout: two().Next(1, 0)}, ErrInvalid)
	refused(t, s, Propose{Owner: 1, Base: 0, Layout: nil}, ErrInvalid)
	refused(t, s, propose(1, 0, 0), ErrInvalid)
	refused(t, s, propose(1, 0, MaxEpoch+1), ErrInvalid)
	other := two().Next(1, 0)
	other.Log = LogID{9}
	refused(t, s, Propose{Owner: 1, Base: 0, Layout: other}, ErrInvalid)
	other = two().Next(1, 0)
	other.Geometry.Window *= 2
	refused(t, s, Propose{Owner: 1, Base: 0, Layout: other}, ErrInvalid)
	refused(t, s, Decide{1, 1, Undecided}, ErrInvalid)
	refused(t, s, Decide{0, 1, Aborted}, ErrInvalid)
	refused(t, s, Decide{1, 1, 7}, ErrInvalid)
	refused(t, s, AbortBelow{0}, ErrInvalid)

	must(t, s, Propose{Owner: 1, Base: 0, Layout: two().Next(1, 10)})
	must(t, s, Decide{1, 1, Active})
	refused(t, s, Propose{Owner: 1, Base: 1, Layout: two().Next(2, 9)}, ErrInvalid) // R20: the start never goes back
}

func TestClientIDsAreHandedOutOnce(t *testing.T) {
	s := NewState()
	for want := ClientID(1); want <= 3; want++ {
		if got := must(t, s, NewClient{}).Client; got != want {
			t.Errorf("client %d, want %d", got, want)
		}
	}
	for _, x := range []struct {
		lease       LeaseClients
		first, last ClientID
	}{{LeaseClients{Count: 10}, 4, 13}, {LeaseClients{Count: 10, Above: 5}, 14, 23}, {LeaseClients{Count: 2, Above: 100}, 101, 102}} {
		if got := must(t, s, x.lease); got.Client != x.first || got.Last != x.last {
			t.Errorf("%+v: clients %d to %d, want %d to %d", x.lease, got.Client, got.Last, x.first, x.last)
		}
	}
	if got := must(t, s, NewClient{}).Client; got != 103 {
		t.Errorf("client %d, want 103", got)
	}
	s.clients = MaxClient - 3
	if got := must(t, s, LeaseClients{Count: 10}); got.Client != MaxClient-2 || got.Last != MaxClient {
		t.Errorf("the last clients are %d to %d", got.Client, got.Last)
	}
	refused(t, s, LeaseClients{Count: 10}, ErrNoClients)
	refused(t, s, LeaseClients{Count: 1, Above: MaxClient + 7}, ErrNoClients)
	refused(t, s, NewClient{}, ErrNoClients)
}

func TestStateForgetsOldRecordsOnly(t *testing.T) {
	s := founded(t)
	for n := Epoch(1); n <= 3*MaxRecords; n++ {
		must(t, s, propose(1, s.Latest(), n))
		if n%2 == 0 {
			must(t, s, Decide{n, 1, Active})
		} else {
			must(t, s, Decide{n, 1, Aborted})
		}
	}
	if len(s.records) != MaxRecords {
		t.Errorf("%d records are kept, want %d", len(s.records), MaxRecords)
	}
	if _, ok := s.Record(1); ok {
		t.Error("the first record is still there")
	}
	refused(t, s, Decide{1, 1, Active}, ErrDecided)
	refused(t, s, Decide{1, 1, Aborted}, ErrDecided)
	for range 2 * MaxRecords { // the active one stays, however many fail after it
		n := s.Highest() + 1
		must(t, s, propose(1, s.Latest(), n))
		must(t, s, AbortBelow{n + 1})
	}
	if s.Latest() != 3*MaxRecords || s.Active() == nil {
		t.Errorf("the active epoch is %d, %v", s.Latest(), s.Active())
	}
}

// TestR13UnderRandomCommands drives a state by commands from several owners who know nothing of each other, and
// compares it with the rule: verdicts and records never change, and the active epochs form one line.
func TestR13UnderRandomCommands(t *testing.T) {
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := founded(t)
		seen := map[Epoch]Record{}
		var line []Epoch // active epochs, in the order in which they became so
		for range 200 {
			n, o := Epoch(1+r.IntN(12)+len(line)), Owner(1+r.IntN(3))
			switch r.IntN(6) {
			case 0, 1:
				_, _ = s.Apply(propose(o, Epoch(r.IntN(int(n))), n))
			case 2:
				_, _ = s.Apply(propose(o, s.Latest(), s.decided+1))
			case 3:
				_, _ = s.Apply(Decide{n, o, Verdict(r.IntN(3))})
			case 4:
				_, _ = s.Apply(Decide{s.decided + 1, o, Active})
			case 5:
				if r.IntN(4) == 0 {
					_, _ = s.Apply(AbortBelow{n})
				}
			}
			if l := s.Latest(); l != 0 && (len(line) == 0 || line[len(line)-1] != l) {
				line = append(line, l)
			}
			checkHistory(t, seed, s, seen, line)
			again, err := Restore(s.Snapshot())
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Fatalf("seed %d: restored to %+v, %v; was %+v", seed, again, err, s)
			}
		}
		if seed == 0 && len(line) < 3 {
			t.Errorf("only %v became active: the test drives nothing", line)
		}
	}
}

func checkHistory(t *testing.T, seed uint64, s *State, seen map[Epoch]Record, line []Epoch) {
	t.Helper()
	for n := Epoch(1); n <= s.Highest(); n++ {
		r, ok := s.Record(n)
		if !ok {
			continue // older than the active one: nobody can write it any more
		}
		was := seen[n]
		if (was.Owner != 0 && (r.Owner != was.Owner || r.Base != was.Base || !reflect.DeepEqual(r.Layout, was.Layout))) ||
			(was.Verdict != Undecided && r.Verdict != was.Verdict) {
			t.Fatalf("seed %d: record of epoch %d was %+v, is %+v", seed, n, was, r)
		}
		if r.Verdict == Active && r.Layout == nil {
			t.Fatalf("seed %d: epoch %d is active without a layout", seed, n)
		}
		seen[n] = r
	}
	base := Epoch(0)
	for _, e := range line {
		if seen[e].Base != base || e <= base {
			t.Fatalf("seed %d: active epochs %v: %d is based on %d", seed, line, e, seen[e].Base)
		}
		for n := base + 1; n < e; n++ {
			if seen[n].Verdict == Active || seen[n].Verdict == Undecided && n > s.Latest() {
				t.Fatalf("seed %d: epoch %d between %d and %d is %v", seed, n, base, e, seen[n].Verdict)
			}
		}
		base = e
	}
}
