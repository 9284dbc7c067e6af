package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/internal/wire"
	"corfu/layout"
)

const testParts = 4096 - wire.HeaderSize - wire.FragmentSize // bytes in a fragment

// largeOf is a payload of n fragments, each of another letter.
func largeOf(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, strings.Repeat(string(rune('a'+i)), testParts)...)
	}
	return b[:len(b)-1]
}

// begun takes the positions of a payload of n fragments; nothing is published.
func (r *rig) begun(l *Log, n int) *tearing {
	r.t.Helper()
	t := l.newTearing(r.ctx, 0, []byte(largeOf(n)), testParts)
	t.v = l.current()
	var err error
	if t.first, err = l.positions(r.ctx, t.v, n); err != nil {
		r.t.Fatal(err)
	}
	id, err := l.attemptID(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	t.frag.Entry = id
	return t
}

// loaded is an attempt with fragment i of t.
func (r *rig) loaded(t *tearing, i int) *attempt {
	r.t.Helper()
	a, err := t.l.large.fragments.get(r.ctx)
	if err == nil {
		err = a.take(r.ctx, t.v, t.first+layout.Position(i))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if i == 0 {
		a.id = t.frag.Entry
	}
	f := t.frag
	f.Number = i
	a.loadFragment(f, largeOf(t.frag.Count)[i*testParts:min((i+1)*testParts, t.frag.Length)])
	return a
}

// put publishes fragments of t.
func (r *rig) put(t *tearing, numbers ...int) {
	r.t.Helper()
	for _, i := range numbers {
		if out, err := r.loaded(t, i).fragment(r.ctx); out != outDone {
			r.t.Fatalf("fragment %d: outcome %d, %v", i, out, err)
		}
	}
}

// wantReads checks what is read at positions 0, 1, …: "junk", "in F", "+N" for a whole entry of N fragments, or a payload.
func (r *rig) wantReads(l *Log, want ...string) {
	r.t.Helper()
	var got []string
	entries := map[layout.Position]string{}
	for p := range layout.Position(len(want)) {
		b, err := l.Read(r.ctx, p)
		var inside *FragmentError
		switch {
		case errors.As(err, &inside) && inside.Position == p:
			got = append(got, fmt.Sprint("in ", inside.First))
			continue
		case errors.Is(err, ErrJunk):
			got = append(got, "junk")
			continue
		case err != nil:
			got = append(got, err.Error())
			continue
		}
		got = append(got, asText(b))
		entries[p] = asText(b)
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		r.t.Errorf("read   %q\nwant   %q", got, want)
	}
	// What an iterator gives is just that, without the gaps.
	ranged := map[layout.Position]string{}
	for e, err := range l.ReadRange(r.ctx, 0, layout.Position(len(want))) {
		if err != nil {
			r.t.Errorf("range at %d: %v", e.Position, err)
			break
		}
		ranged[e.Position] = asText(e.Payload)
	}
	if fmt.Sprint(ranged) != fmt.Sprint(entries) {
		r.t.Errorf("ranged %v\nread   %v", ranged, entries)
	}
}

func asText(b []byte) string {
	if n := (len(b) + 1) / testParts; n > 1 && bytes.Equal(b, largeOf(n)) {
		return fmt.Sprint("+", n)
	}
	return string(b)
}

// A hole inside that somebody fills makes junk of the whole entry, wherever it is.
func TestTornByAFillInside(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		for hole := range 4 {
			if os.Getenv("CORFU_LAB") == "1" && hole%3 != 0 {
				continue // a cluster takes seconds there
			}
			r := newRig(t, d)
			l, other := r.open(), r.open()
			e := r.begun(l, 4)
			for i := range 4 {
				if i != hole {
					r.put(e, i)
				}
			}
			if _, err := l.Append(r.ctx, []byte("next")); err != nil {
				t.Fatal(err)
			}
			if hole%2 == 0 { // else the reader does it, after the hole time-out
				if err := other.Fill(r.ctx, layout.Position(hole)); err != nil {
					t.Fatal(err)
				}
			}
			r.wantReads(other, "junk", "junk", "junk", "junk", "next")
			r.wantReads(l, "junk", "junk", "junk", "junk", "next")
			// The writer's fragment comes too late.
			if out, err := r.loaded(e, hole).fragment(r.ctx); out != outLost {
				t.Errorf("fragment %d after the fill: outcome %d, %v", hole, out, err)
			}
			if err := other.Trim(r.ctx, layout.Position((hole+1)%4)); err != nil { // the torn ones can be given up together
				t.Fatal(err)
			}
			for i := range 4 {
				want := ErrTrimmed
				if i == hole {
					want = ErrJunk
				}
				page := reading{l: l, p: layout.Position(i)} // Read would take one that is trimmed for all
				if _, err := page.run(r.ctx); !errors.Is(err, want) {
					t.Errorf("hole %d: page %d after the trim: %v, want %v", hole, i, err, want)
				}
			}
		}
	})
}

// An append that loses one of its positions is torn there, and appended again as a whole.
func TestTornAppendIsMadeAgain(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		for _, p := range []layout.Position{2, 4} { // of positions not handed out yet: whoever gets them loses them
			if err := other.fill(r.ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := l.Append(r.ctx, largeOf(3)); err != nil || p != 6 { // 0 to 2 torn, 3 to 5 as well
			t.Fatalf("position %d, %v; want 6", p, err)
		}
		r.wantReads(other, "junk", "junk", "junk", "junk", "junk", "junk", "+3", "in 6", "in 6")
		if got := testutil.ToFloat64(l.m.torn); got != 2 {
			t.Errorf("%v attempts torn, want 2", got)
		}
	})
}

// Fragments of different attempts are never joined, however well they would fit.
func TestFragmentsOfDifferentAttempts(t *testing.T) {
	r := newRig(t, layout.Flash)
	l, other := r.open(), r.open()
	e := r.begun(l, 3)
	r.put(e, 0, 2)
	alien := &tearing{l: l, v: e.v, first: e.first, frag: e.frag, parts: e.parts}
	alien.frag.Entry++
	r.put(alien, 1)
	r.wantReads(other, "junk", "junk", "junk")
}

// Positions that a newer epoch has not handed out will never hold the fragments of the older one: torn, at once and for ever.
func TestTornByANewEpoch(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		e := r.begun(l, 4)
		r.put(e, 0, 1)
		late := r.loaded(e, 2)
		if _, err := r.Reconfigure(r.ctx); err != nil {
			t.Fatal(err)
		}
		for p := range layout.Position(2) {
			if _, err := other.Read(r.ctx, p); !errors.Is(err, ErrJunk) {
				t.Errorf("read %d: %v, want ErrJunk", p, err)
			}
		}
		if _, err := other.Read(r.ctx, 2); !errors.Is(err, ErrUnwritten) {
			t.Errorf("read 2: %v, want ErrUnwritten", err)
		}
		if out, err := late.fragment(r.ctx); out == outDone {
			t.Errorf("a fragment of the old epoch was published: %v", err)
		}
		for _, payload := range [][]byte{[]byte("new"), largeOf(2)} {
			if _, err := other.Append(r.ctx, payload); err != nil {
				t.Fatal(err)
			}
		}
		r.wantReads(l, "junk", "junk", "new", "+2", "in 3")
	})
}

// Rule R9 for each fragment: what stood at the heads when the epoch ended is completed, and the append acknowledged, if that is all of them.
func TestR9LargeAppendThroughASeal(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		e := r.begun(l, 3)
		r.put(e, 0)
		e.ends[0] = ending{out: outDone}
		var halves []*attempt
		for i := 1; i < 3; i++ {
			a := r.loaded(e, i)
			reps := a.replicas(len(a.place.Chain.Units))
			if err := a.prepare(r.ctx, e.v, reps); err != nil {
				t.Fatal(err)
			}
			if out, err := a.publishHead(r.ctx, e.v, &reps[0]); out != outDone {
				t.Fatalf("publish at the head: outcome %d, %v", out, err)
			}
			halves = append(halves, a)
		}
		if _, err := r.Reconfigure(r.ctx); err != nil {
			t.Fatal(err)
		}
		for i, a := range halves {
			mine, err := a.settle(r.ctx, e.v, broke)
			if !mine || err != nil {
				t.Fatalf("fragment %d: mine %v, %v", i+1, mine, err)
			}
			e.ends[i+1] = ending{out: outDone}
			a.recycle(false)
		}
		if out, err := e.verdict(nil); out != outDone || err != nil {
			t.Errorf("verdict %d, %v", out, err)
		}
		r.wantReads(other, "+3", "in 0", "in 0")
	})
}

func TestVerdictOfFragments(t *testing.T) {
	NotInLab(t, "what outcomes make of each other")
	r := newRig(t, layout.Memory)
	l := r.open()
	doubt, fatal := errors.New("doubt"), errors.New("fatal")
	for _, c := range []struct {
		ends  string // d done, l lost, n nothing, t nothing after a transient error, f nothing after another, u unknown
		cause error
		out   outcome
		err   error
	}{
		{"ddd", nil, outDone, nil},
		{"dud", nil, outUnknown, doubt},
		{"dld", nil, outLost, nil},
		{"lud", nil, outLost, nil}, // whatever became of the unknown one
		{"dnn", nil, outLost, nil},
		{"udn", context.Canceled, outNothing, context.Canceled},
		{"dtd", nil, outNothing, errStale},
		{"tfd", nil, outNothing, fatal},
		{"ftd", nil, outNothing, fatal},
	} {
		e := &tearing{l: l, v: l.current(), first: 1000}
		for _, x := range c.ends {
			e.ends = append(e.ends, map[rune]ending{'d': {outDone, nil}, 'l': {outLost, nil}, 'n': {outNothing, nil},
				't': {outNothing, errStale}, 'f': {outNothing, fatal}, 'u': {outUnknown, doubt}}[x])
		}
		if out, err := e.verdict(c.cause); out != c.out || err != c.err {
			t.Errorf("%s: %d, %v; want %d, %v", c.ends, out, err, c.out, c.err)
		}
	}
}

// A writer that goes on slowly is not torn by those who read right behind it: each fragment has the hole time-out for itself.
func TestReadersWaitForASlowLargeAppend(t *testing.T) {
	r := newRig(t, layout.Memory)
	l, reader := r.open(), r.open()
	reader.o.HoleTimeout = 800 * time.Millisecond // for a fragment 8 s
	e := r.begun(l, 5)
	r.put(e, 0)
	read := make(chan string, 2)
	go func() {
		got, err := reader.Read(r.ctx, 0)
		read <- fmt.Sprint(asText(got), err)
	}()
	go func() {
		for e, err := range reader.Follow(r.ctx, 0) {
			read <- fmt.Sprint(asText(e.Payload), err)
			return
		}
	}()
	for i := 1; i < 5; i++ {
		time.Sleep(2200 * time.Millisecond) // more than the time-out all together
		r.put(e, i)
	}
	for range 2 {
		if got := <-read; got != "+5<nil>" {
			t.Errorf("read %s, want the whole entry", got)
		}
	}
}

// A large entry comes in slowly: one who follows takes each fragment as it comes, once, and sleeps between them.
func TestFollowerTakesALargeEntryAsItComes(t *testing.T) {
	r := newRig(t, layout.Flash)
	l, reader := r.open(), r.open()
	f := follows(t, r.ctx, reader, 0)
	asleep(t, reader)
	const n = 6
	e := r.begun(l, n)
	for i := range n - 1 {
		r.put(e, i)
		Until(t, "a fragment to be read", func() bool { return testutil.ToFloat64(reader.m.reads) >= float64(i+1) })
		asleep(t, reader)
	}
	r.put(e, n-1)
	select {
	case got := <-f.entries:
		if asText(got.Payload) != "+6" || got.Position != 0 {
			t.Errorf("%.20q at %d; want the whole entry", got.Payload, got.Position)
		}
	case err := <-f.ended:
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(reader.m.reads); got > n {
		t.Errorf("%v pages were read; want each of %d once", got, n)
	}
}

// A writer dies in the middle of a large entry: what is behind it is given once its holes are filled.
func TestFollowerPassesATornEntry(t *testing.T) {
	r := newRig(t, layout.Flash)
	l, reader := r.open(), r.open()
	f := follows(t, r.ctx, reader, 0)
	asleep(t, reader)
	r.put(r.begun(l, 20), 0, 1, 2)
	f.want(r.append(l, "behind"), "behind")
}

// Appends that are cut short: what fails with another error than ErrUnknown is never read.
func TestLargeAppendsCutShort(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		const n = 60
		where := map[string]layout.Position{} // acknowledged
		maybe := map[string]layout.Position{}
		for i := range n {
			ctx, cancel := context.WithTimeout(r.ctx, time.Duration(rand.IntN(4000))*time.Microsecond)
			tag := fmt.Sprintf("%03d", i)
			p, err := l.Append(ctx, append([]byte(tag), largeOf(2+i%11)...))
			cancel()
			var unknown *UnknownError
			switch {
			case err == nil:
				where[tag] = p
			case errors.As(err, &unknown):
				maybe[tag] = unknown.Position
			case !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("append %s: %v", tag, err)
			}
		}
		tail, err := other.Tail(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range other.ReadRange(r.ctx, 0, tail) {
			if err != nil {
				t.Fatal(err)
			}
			tag, rest := string(e.Payload[:3]), asText(e.Payload[3:])
			p, ok := where[tag]
			q, may := maybe[tag]
			if !(ok && p == e.Position) && !(may && q == e.Position) || rest[0] != '+' {
				t.Errorf("%s is at %d; acknowledged %v at %d, unknown %v at %d", tag, e.Position, ok, p, may, q)
			}
			delete(where, tag)
		}
		if len(where) > 0 {
			t.Errorf("acknowledged and not read: %v", where)
		}
		t.Logf("%d of %d unknown", len(maybe), n)
	})
}
