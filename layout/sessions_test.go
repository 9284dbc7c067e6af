package layout

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"corfu/internal/golden"
)

// resized is the record of epoch n with another number of sessions than the founding layout.
func resized(base, n Epoch, sessions int) Propose {
	p := Propose{Owner: 1, Base: base, Layout: two().Next(n, 0), ID: RecordID(n), Resized: true}
	p.Layout.Geometry.MaxSessions = sessions
	for _, u := range p.Layout.Units {
		p.Stores = append(p.Stores, MemberStore{u.ID, StoreID{0: byte(u.ID)}})
	}
	return p
}

// An epoch may change the number of sessions, up and down, and nothing else of the geometry.
func TestAnEpochMayChangeTheSessionsAlone(t *testing.T) {
	g := DefaultGeometry()
	for _, n := range []int{1, 4096} {
		to, err := g.WithSessions(n)
		if err != nil || to.MaxSessions != n || !to.Follows(g) || !g.Follows(to) {
			t.Errorf("%d sessions: %+v, %v", n, to, err)
		}
	}
	for name, spoil := range map[string]func(*Geometry){
		"page size": func(g *Geometry) { g.PageSize *= 2 }, "window": func(g *Geometry) { g.Window *= 2 }, "slots": func(g *Geometry) { g.SessionSlots *= 2 },
	} {
		if to := g; !to.Follows(g) {
			t.Errorf("%s: a geometry does not follow itself", name)
		} else if spoil(&to); to.Follows(g) {
			t.Errorf("%s: %+v follows %+v", name, to, g)
		}
	}
}

// The tag of an index word has 24 bits for a staging slot, and one value of them means that nobody knows the slot.
func TestSessionsHaveSlotsThatAWordCanName(t *testing.T) {
	for _, c := range []struct {
		slots, sessions int
		want            string // of the error; "": none
	}{
		{64, 0, "max sessions is 0: must be 1 to 4096"},
		{64, -1, "max sessions is -1: must be 1 to 4096"},
		{64, 4097, "max sessions is 4097: must be 1 to 4096"},
		{4096, 4095, ""},
		{4096, 4096, "16777216 staging slots, and an index word can name 16777215: must be at most 4095"},
	} {
		g := Geometry{PageSize: 4096, Window: 64, SessionSlots: c.slots, MaxSessions: 1}
		_, err := g.WithSessions(c.sessions)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d sessions of %d slots: %v, want %q", c.sessions, c.slots, err, c.want)
		}
	}
}

func TestChangeOfSessions(t *testing.T) {
	l := healing(2)
	n, err := l.With(Change{MaxSessions: 512}, 2, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := l.Next(2, 7)
	want.Geometry.MaxSessions = 512
	if !reflect.DeepEqual(n, want) {
		t.Errorf("%+v, want %+v", n, want)
	}
	if l.Geometry != DefaultGeometry() {
		t.Error("the base changed")
	}
	if (Change{MaxSessions: 1}).IsZero() {
		t.Error("another number of sessions is called no change")
	}
	if _, err := l.With(Change{MaxSessions: 4097}, 2, 7); err == nil {
		t.Error("4097 sessions were taken")
	}
}

// A record with another number of sessions says so, in a format that a release before does not read: it would refuse the record, and have
// another state than the others.
func TestR13RecordsWithOtherSessionsSaySo(t *testing.T) {
	s := founded(t)
	silent := resized(0, 1, 99)
	silent.Resized = false
	refused(t, s, silent, ErrInvalid)
	same := resized(0, 1, two().Geometry.MaxSessions)
	refused(t, s, same, ErrInvalid)
	nameless := resized(0, 1, 99)
	nameless.ID, nameless.Stores = 0, nil
	refused(t, s, nameless, ErrInvalid)
	wider := resized(0, 1, 99)
	wider.Layout.Geometry.Window *= 2
	refused(t, s, wider, ErrInvalid)

	p := resized(0, 1, 99)
	b := EncodeCommand(p)
	golden.Equal(t, "propose-sessions", b)
	if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, p) || b[0] != formatVersion {
		t.Errorf("decoded to %+v, %v; want %+v", got, err, p)
	}
	must(t, s, p)
	must(t, s, Decide{1, 1, Active})
	snap := s.Snapshot()
	if got, err := Restore(snap); err != nil || !reflect.DeepEqual(got, s) || snap[0] != formatVersion {
		t.Errorf("restored to %+v, %v; want %+v", got, err, s)
	}

	// Back to the founding number: the release before reads all that follows once no record differs.
	back := resized(1, 2, two().Geometry.MaxSessions)
	back.Resized = false
	must(t, s, back)
	must(t, s, Decide{2, 1, Active})
	if b := EncodeCommand(back); b[0] != formatStores {
		t.Errorf("a record with the founding geometry has format %d", b[0])
	}
	if _, err := Restore(bytes.Clone(s.Snapshot())); errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}
