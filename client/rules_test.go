package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"corfu/internal/devcluster"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/fabric"
	"corfu/rdma/tcp"
)

// rig is a cluster of one chain of two units, and clients of it.
type rig struct {
	*devcluster.Cluster
	t   testing.TB
	dev rdma.Device
	ctx context.Context
}

func newRig(t testing.TB, d layout.Durability) *rig {
	t.Helper()
	return rigOf(t, devcluster.Options{Chains: 1, Durability: d})
}

// rigOf is a rig of a cluster with these options, and what all rigs have.
func rigOf(t testing.TB, o devcluster.Options) *rig {
	t.Helper()
	var dev rdma.Device
	var err error
	if os.Getenv("CORFU_LAB") == "1" {
		dev, _, err = fabric.Open(fabric.Options{Provider: fabric.Verbs})
	} else {
		dev, err = tcp.Open(tcp.Options{ReuseKeys: true}) // as mlx5 does: dead keys must not be what keeps the rules
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close the device: %v", err)
		}
	})
	o.Device, o.Dir, o.Replicas, o.Logger = dev, t.TempDir(), 2, testLog()
	o.Geometry = layout.Geometry{PageSize: 4096, Window: 128, SessionSlots: 8, MaxSessions: 8}
	c, err := devcluster.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // generous: emulated machines too
	t.Cleanup(cancel)
	return &rig{c, t, dev, ctx}
}

// testLog shows what happens if CORFU_TEST_LOG is set.
func testLog() *slog.Logger {
	if os.Getenv("CORFU_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (r *rig) open() *Log {
	r.t.Helper()
	l, err := Open(r.ctx, Options{LayoutServers: []string{r.LayoutAddr()}, Device: r.dev, Logger: testLog()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			r.t.Errorf("close the log: %v", err)
		}
	})
	return l
}

// half begins an append of payload: it takes a token, and with head publishes at the head; there it stops.
func (r *rig) half(l *Log, payload string, head bool) (*attempt, *view) {
	r.t.Helper()
	a, err := l.attempts.get(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	a.load([]byte(payload))
	v, err := try(r.ctx, l, func(v *view) (*view, error) { // on a slow machine a session may take several tries
		if err := a.token(r.ctx, v); err != nil || !head {
			return v, err
		}
		reps := a.replicas(len(a.place.Chain.Units))
		if err := a.prepare(r.ctx, v, reps); err != nil {
			a.settleSlots()
			return v, err
		}
		if out, err := a.publishHead(r.ctx, v, &reps[0]); out != outDone {
			return v, fmt.Errorf("publish at the head: outcome %d: %v", out, err)
		}
		return v, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return a, v
}

// words are the states of p at the head and at the tail.
func (r *rig) words(l *Log, p layout.Position) []string {
	r.t.Helper()
	f, err := l.frames.get()
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.put(f)
	states, err := try(r.ctx, l, func(v *view) (states []string, err error) {
		place, err := v.layout.Locate(p)
		if err != nil {
			return nil, err
		}
		for _, id := range place.Chain.Units {
			s, err := v.unit(r.ctx, id)
			if err != nil {
				return nil, err
			}
			e, err := l.inspect(r.ctx, v, spot{s, place.Address, p}, f)
			if err != nil {
				return nil, err
			}
			states = append(states, e.String())
		}
		return states, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return states
}

// String is the payload of a page, or what else an entry is.
func (e *entry) String() string {
	switch e.kind {
	case entryPage:
		return string(e.payload())
	case entryJunk:
		return "JUNK"
	case entryNone:
		return "EMPTY"
	}
	return e.word.String()
}

func (r *rig) wantWords(l *Log, p layout.Position, want ...string) {
	r.t.Helper()
	if got := r.words(l, p); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("position %d holds %q from head to tail, want %q", p, got, want)
	}
}

func (r *rig) wantRead(l *Log, p layout.Position, want string) {
	r.t.Helper()
	if got, err := l.Read(r.ctx, p); err != nil || string(got) != want {
		r.t.Errorf("read %d: %q, %v; want %q", p, got, err, want)
	}
}

func both(t *testing.T, test func(*testing.T, layout.Durability)) { Durabilities(t, test) }

// broke is how an operation ends whose completion was lost.
var broke = &sessionError{"unit 1", &rdma.OpError{Kind: rdma.OpCompareSwap, Err: rdma.ErrBroken}}

// A writer that dies between the head and the tail: a reader completes the chain, from the head down.
func TestR2R10HelperCompletesFromTheHead(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		writer, reader := r.open(), r.open()
		a, _ := r.half(writer, "half written", true)
		r.wantWords(reader, a.pos, "half written", "EMPTY")
		r.wantRead(reader, a.pos, "half written")
		r.wantWords(reader, a.pos, "half written", "half written")
		a.recycle(false)
	})
}

// A writer that dies between the head and the tail, and a trim: the entry is decided down the chain first. Else nobody could decide
// the tail behind a head that is trimmed, and its window would stand still there (R4).
func TestR4TrimDecidesTheWholeChainFirst(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		for name, trim := range map[string]func(*Log, layout.Position) error{
			"one":    func(l *Log, p layout.Position) error { return l.Trim(t.Context(), p) },
			"prefix": func(l *Log, p layout.Position) error { return l.TrimPrefix(t.Context(), p+1) },
		} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, d)
				writer, other := r.open(), r.open()
				a, v := r.half(writer, "half written", true)
				head, err := v.unit(r.ctx, a.place.Chain.Head())
				if err != nil {
					t.Fatal(err)
				}
				f, err := writer.frames.get()
				if err != nil {
					t.Fatal(err)
				}
				if err := writer.awaitDurableAt(r.ctx, v, spot{head, a.place.Address, a.pos}, f); err != nil {
					t.Fatal(err)
				}
				writer.put(f)
				if err := trim(other, a.pos); err != nil {
					t.Fatal(err)
				}
				for i, w := range r.words(other, a.pos) {
					if !strings.HasPrefix(w, "TRIMMED") {
						t.Errorf("replica %d holds %s", i, w)
					}
				}
				a.recycle(false)
			})
		}
	})
}

// The writer finds that a helper was at the later replica before it: the same entry, so it goes on.
func TestR2WriterMeetsHelper(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		writer, helper := r.open(), r.open()
		a, v := r.half(writer, "mine", true)
		if err := helper.Fill(r.ctx, a.pos); err != nil {
			t.Fatal(err)
		}
		next := &a.reps[1]
		if err := next.s.appends.post(r.ctx, next.write); err != nil {
			t.Fatal(err)
		}
		if err := a.publishNext(r.ctx, v, next); !errors.Is(err, errOther) {
			t.Fatalf("publish where a helper was: %v", err)
		}
		if mine, err := a.settle(r.ctx, v, errOther); !mine || err != nil {
			t.Fatalf("settle: mine %v, %v", mine, err)
		}
		r.wantRead(helper, a.pos, "mine")
		a.recycle(false)
	})
}

// A different entry at a later replica is impossible under the rules: made here by a CAS that skips the head, it stops the client.
func TestR2AnotherEntryBehindTheHeadStops(t *testing.T) {
	r := newRig(t, layout.Flash)
	writer, villain := r.open(), r.open()
	a, v := r.half(writer, "mine", true)
	f, _ := villain.frames.get()
	defer villain.put(f)
	s, err := villain.current().unit(r.ctx, a.place.Chain.Tail())
	if err != nil {
		t.Fatal(err)
	}
	if won, err := villain.junkHead(r.ctx, villain.current(), spot{s, a.place.Address, a.pos}, f); !won || err != nil {
		t.Fatalf("junk at the tail: %v, %v", won, err)
	}
	if mine, err := a.settle(r.ctx, v, errOther); mine || !errors.Is(err, ErrInvariant) {
		t.Errorf("settle: mine %v, %v; want ErrInvariant", mine, err)
	}
	a.recycle(false)
}

func TestR8EpochNeverGoesBack(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	old := l.Layout()
	stale, v := r.half(l, "of the old epoch", false)
	now, err := r.Reconfigure(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.refresh(r.ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := l.install(old); err != nil {
		t.Fatal(err)
	}
	if got := l.Layout().Epoch; got < now.Epoch {
		t.Errorf("epoch %d after an older layout came, want %d", got, now.Epoch)
	}
	// The token is good in its own epoch only: with it nothing is published any more.
	if out, err := stale.write(r.ctx, v); out == outDone || err == nil {
		t.Errorf("a token of epoch %d was used in %d: outcome %d, %v", old.Epoch, now.Epoch, out, err)
	}
	r.wantWords(l, stale.pos, "EMPTY", "EMPTY")
	stale.recycle(false)
}

func TestR9SameEpoch(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()

		a, v := r.half(l, "published", true)
		if mine, err := a.settle(r.ctx, v, broke); !mine || err != nil {
			t.Fatalf("published at the head: mine %v, %v", mine, err)
		}
		r.wantWords(other, a.pos, "published", "published")

		b, v := r.half(l, "not published", false)
		for {
			if mine, err := b.settle(r.ctx, v, broke); mine || err != nil {
				t.Fatalf("not published: mine %v, %v", mine, err)
			}
			if l.current().epoch() == v.epoch() {
				break
			}
			b.recycle(false) // a slow machine: a member seemed dead, and there is another epoch
			b, v = r.half(l, "not published", false)
		}
		// EMPTY proves nothing: a packet on its way could still land. So it is decided for ever.
		if out, err := b.write(r.ctx, v); out != outLost {
			t.Errorf("the CAS that was on its way landed: outcome %d, %v", out, err)
		}
		if _, err := other.Read(r.ctx, b.pos); !errors.Is(err, ErrJunk) {
			t.Errorf("read a lost position: %v, want ErrJunk", err)
		}

		c, v := r.half(l, "filled by another", false)
		if err := other.Fill(r.ctx, c.pos); err != nil {
			t.Fatal(err)
		}
		if mine, err := c.settle(r.ctx, v, broke); mine || err != nil {
			t.Errorf("filled by another: mine %v, %v", mine, err)
		}
		for _, x := range []*attempt{a, b, c} {
			x.recycle(false)
		}
	})
}

func TestR9NewerEpoch(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l, other := r.open(), r.open()
		a, v := r.half(l, "published", true)
		b, _ := r.half(l, "not published", false)
		if _, err := r.Reconfigure(r.ctx); err != nil {
			t.Fatal(err)
		}
		if mine, err := a.settle(r.ctx, v, broke); !mine || err != nil {
			t.Errorf("published at the old head: mine %v, %v", mine, err)
		}
		r.wantRead(other, a.pos, "published")
		if mine, err := b.settle(r.ctx, v, broke); mine || err != nil {
			t.Errorf("EMPTY in the new epoch: mine %v, %v", mine, err)
		}
		r.wantWords(other, b.pos, "EMPTY", "EMPTY") // read, not written: it is somebody else's now
		a.recycle(false)
		b.recycle(false)
	})
}

// A client whose connections break in the middle of appends goes on, and nothing is there twice.
func TestR9ConnectionsBreakUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, d layout.Durability) {
		r := newRig(t, d)
		l := r.open()
		const n = 200
		results := make(chan layout.Position, n)
		for i := range n {
			err := l.AppendAsync(r.ctx, fmt.Append(nil, i), func(p layout.Position, err error) {
				if err != nil {
					t.Errorf("append %d: %v", i, err)
				}
				results <- p
			})
			if err != nil {
				t.Fatal(err)
			}
			if i%50 == 25 { // cut off in mid-flight
				Break(l)
			}
		}
		for range n {
			<-results
		}
		tail, err := l.Tail(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]layout.Position{}
		for e, err := range l.ReadRange(r.ctx, 0, tail) {
			if err != nil {
				t.Fatal(err)
			}
			if p, twice := seen[string(e.Payload)]; twice {
				t.Errorf("entry %s at %d and at %d", e.Payload, p, e.Position)
			}
			seen[string(e.Payload)] = e.Position
		}
		if len(seen) != n {
			t.Errorf("%d entries read, %d appended", len(seen), n)
		}
	})
}

func TestR10FillOfAnOldEpochChangesNothing(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	a, v := r.half(l, "never", false)
	if _, err := r.Reconfigure(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.fillIn(r.ctx, v, a.pos); err == nil {
		t.Error("a fill in the old epoch succeeded")
	}
	r.wantWords(r.open(), a.pos, "EMPTY", "EMPTY")
	a.recycle(false)
}

// wantDurable checks the word of p at the tail.
func (r *rig) wantDurable(l *Log, p layout.Position, after string) {
	r.t.Helper()
	place, _ := l.Layout().Locate(p)
	s, err := l.current().unit(r.ctx, place.Chain.Tail())
	if err != nil {
		r.t.Fatal(err)
	}
	f, _ := l.frames.get()
	defer l.put(f)
	if w, err := l.readWord(r.ctx, s, place.Address, f); err != nil || w.State() != wire.Durable {
		r.t.Errorf("after the %s of %d its word at the tail is %v, %v", after, p, w, err)
	}
}

func TestR3AppendIsAcknowledgedOnceDurable(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	for range 50 {
		p, err := l.Append(r.ctx, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		r.wantDurable(l, p, "append")
	}
}

// Under flash a reader returns what is durable at the tail, not what is only published there.
func TestR11OnlyDurableIsReturned(t *testing.T) {
	r := newRig(t, layout.Flash)
	writer, l := r.open(), r.open()
	for range 20 {
		a, v := r.half(writer, "published", true)
		next := &a.reps[1]
		next.pub.Ops = next.pub.Ops[:next.cas+1] // no doorbell: the unit is in no hurry
		if err := next.s.appends.post(r.ctx, next.write); err != nil {
			t.Fatal(err)
		}
		if err := a.publishNext(r.ctx, v, next); err != nil {
			t.Fatal(err)
		}
		r.wantRead(l, a.pos, "published")
		r.wantDurable(l, a.pos, "read")
		a.recycle(false)
	}
}

// A client that knows only the old epoch does not call unwritten what was written in the new one.
func TestR12UnwrittenAndTailAreOfTheNewEpoch(t *testing.T) {
	r := newRig(t, layout.Flash)
	left, other := r.open(), r.open()
	if _, err := left.Read(r.ctx, 0); !errors.Is(err, ErrUnwritten) {
		t.Fatalf("read of an empty log: %v", err)
	}
	if _, err := r.Reconfigure(r.ctx); err != nil {
		t.Fatal(err)
	}
	p, err := other.Append(r.ctx, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	r.wantRead(left, p, "new")
	if tail, err := left.Tail(r.ctx); err != nil || tail != p+1 {
		t.Errorf("tail %d, %v; want %d", tail, err, p+1)
	}
	f, _ := left.frames.get()
	defer left.put(f)
	v := left.current()
	if _, err := r.Reconfigure(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := left.chainShowsEpoch(r.ctx, v, v.layout.Segments[0].Chains[0], f); err == nil {
		t.Error("a sealed chain shows the old epoch")
	}
}

// A unit that is sealed while a trim is on its way to it refuses it as one that makes no sense. That is no answer: the trim goes on in the next
// epoch. Of a unit that serves the epoch it is one.
func TestR12ATrimRefusedByASealedUnitIsTriedAgain(t *testing.T) {
	r := newRig(t, layout.Flash)
	l := r.open()
	if _, err := l.Append(r.ctx, []byte("a")); err != nil {
		t.Fatal(err)
	}
	v := l.current()
	f, err := l.frames.get()
	if err != nil {
		t.Fatal(err)
	}
	defer l.put(f)
	s, err := v.unit(r.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.trimAnswered(r.ctx, v, s, f, 0, wire.StatusBadQuery); err == nil || transient(err) {
		t.Errorf("refused by a unit that is open: %v", err)
	}
	if _, err := r.Reconfigure(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.trimAnswered(r.ctx, v, s, f, 0, wire.StatusBadQuery); !transient(err) {
		t.Errorf("refused by a unit that was sealed: %v", err)
	}
}
