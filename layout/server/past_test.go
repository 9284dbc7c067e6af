package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// paired is a cluster of the chains 1, 2 and 3, 4 without spares, whose chains may get shorter,
// open in epoch 1.
func paired(t *testing.T) (*cluster, *layout.Layout) {
	c := withSpare(t)
	c.template.Spares, c.template.Standbys = nil, nil
	return c, c.start().open(1)
}

// stands waits until the manager says why nothing goes on, with these parts.
func (c *cluster) stands(parts ...string) {
	c.t.Helper()
	await(c.t, "the log stands and says why", func() error {
		m, err := c.client().Status(context.Background(), &pb.StatusRequest{})
		for _, p := range parts {
			if err == nil && !strings.Contains(m.Phase, p) {
				err = fmt.Errorf("%q lacks %q", m.Phase, p)
			}
		}
		return err
	})
}

// advises waits until the first problem of the cluster's status is Down and its advice contains
// todo.
func (c *cluster) advises(todo string) {
	c.t.Helper()
	await(c.t, "status says: "+todo, func() error {
		m, err := service{s: c.server}.Cluster(context.Background(), &pb.ClusterStatusRequest{})
		if err == nil && (len(m.Problems) == 0 || m.Problems[0].Severity != clusterstatus.Down || !strings.Contains(m.Problems[0].Todo, todo)) {
			err = fmt.Errorf("%v", m.Problems)
		}
		return err
	})
}

// highest is the highest epoch that the layout store knows of.
func (c *cluster) highest() (e layout.Epoch) {
	c.server.store.fsm.view(func(s *layout.State) { e = s.Highest() })
	return e
}

// wipes are how often each unit was wiped.
func (c *cluster) wipes() (all [6]int) {
	for id, u := range c.units {
		all[id], _ = u.watched()
	}
	return all
}

// TestR21RecordNamesWhatWasSealed: the record of each epoch has an id, and the store of each unit
// as it was sealed.
func TestR21RecordNamesWhatWasSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.start().open(1)
		if _, err := c.reconfigure(); err != nil {
			t.Fatal(err)
		}
		c.open(2)
		var want []layout.MemberStore
		for id := layout.UnitID(1); id <= 4; id++ {
			want = append(want, layout.MemberStore{Unit: id, Store: c.units[id].store.id})
		}
		one, two := c.record(1), c.record(2)
		if !reflect.DeepEqual(one.Stores, want) || !reflect.DeepEqual(two.Stores, want) {
			t.Errorf("the records name %v and %v; want %v", one.Stores, two.Stores, want)
		}
		if one.ID == 0 || two.ID == 0 || one.ID == two.ID {
			t.Errorf("records %016x and %016x; want two ids", uint64(one.ID), uint64(two.ID))
		}
		for id, u := range c.units {
			if got := u.copied().reconciled; got != two.Ref() {
				t.Errorf("unit %d was reconciled for %v; want %v", id, got, two.Ref())
			}
		}
	})
}

// TestR22StrangerIsReplacedOnceTheChainHoldsWithoutIt: unit 2, the tail, comes back with an empty
// store, or an old copy of its own. It is named, wiped, and a member again; the entry that it
// acknowledged comes from the head.
func TestR22StrangerIsReplacedOnceTheChainHoldsWithoutIt(t *testing.T) {
	for what, says := range map[string]string{"empty": "it is empty", "old": "an old copy"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := paired(t)
				store := c.units[2].copied()
				if _, err := c.reconfigure(); err != nil { // so that the copy is of an epoch before
					t.Fatal(err)
				}
				l := c.open(2)
				c.put(l, 0, wire.Durable, 100, 1, 2)
				if what == "empty" {
					store = newStore()
				}
				c.units[2].crashed(store)
				got := c.active("unit 2 is a member again", func(l *layout.Layout) bool {
					return l.Epoch > 3 && l.IsMember(2) && len(l.Behind()) == 0
				})
				if wipes, _ := c.units[2].watched(); wipes < 2 {
					t.Errorf("unit 2 was wiped %d times; want once more than at the founding", wipes)
				}
				want := map[uint64]string{0: "entry 100"}
				if h := c.held(1); !reflect.DeepEqual(h, want) {
					t.Errorf("unit 1 holds %v; want %v", h, want)
				}
				if h := c.held(2); !reflect.DeepEqual(h, want) {
					t.Errorf("unit 2 holds %v; want %v", h, want)
				}
				named := false
				for e := layout.Epoch(1); e <= got.Epoch; e++ {
					h := c.history(e)
					named = named || strings.Contains(h, says)
				}
				if !named {
					t.Errorf("no epoch was made since unit 2 %q", says)
				}
			})
		})
	}
}

// history is why an epoch was made, as the status tells.
func (c *cluster) history(e layout.Epoch) string {
	for _, x := range c.status().Reconfigurations {
		if x.Epoch == uint64(e) {
			return fmt.Sprint(x)
		}
	}
	return ""
}

// TestR22StrangerCountsForNothing: the tail has an empty store and the head was restarted. Nothing
// is decided or wiped before the true store is back.
func TestR22StrangerCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := paired(t)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		was := c.units[2].copied()
		c.units[1].die()
		c.units[2].crashed(newStore())
		c.units[1].restart()
		c.stands("unit 2", "it is empty", "R16")
		c.advises("corfu unit remove 2 --accept-loss")
		for _, text := range []string{"", "the leader's words for it"} { // the advice depends on the store, not on a text
			x := shownMember{unit: 2, report: report{state: stateClosed, err: text}}
			if got := c.server.unitStatus(time.Now(), x, 4096).Past; got != clusterstatus.PastLost {
				t.Errorf("status of a unit with error %q: past %q; want %q", text, got, clusterstatus.PastLost)
			}
		}
		if e := c.highest(); e != 1 {
			t.Errorf("epoch %d was tried; want none", e)
		}
		if _, err := c.reconfigure(); err == nil || !strings.Contains(err.Error(), "it is empty") {
			t.Errorf("asked for an epoch: %v; want the store named", err)
		}
		c.units[2].crashed(was)
		if got := c.open(2); !got.IsMember(2) || !got.IsMember(1) {
			t.Errorf("with the true store: %+v; want both units", got)
		}
		if got, want := c.wipes(), [6]int{0, 1, 1, 1, 1}; got != want {
			t.Errorf("wiped %v; want %v, at the founding alone", got, want)
		}
	})
}

// TestR23StaleMemberIsCompletedInPlace: the store of the tail goes back within the epoch. It counts
// for nothing, is not wiped, and gets what it lacks, a trim below its watermark as well.
func TestR23StaleMemberIsCompletedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := paired(t)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.put(l, 2, wire.Durable, 101, 1, 2)
		old := c.units[2].copied()
		c.put(l, 0, wire.Trimmed, 0, 1, 2)
		c.put(l, 4, wire.Durable, 102, 1, 2)
		c.units[2].mu.Lock()
		c.units[2].store.changes = 1
		c.units[2].mu.Unlock()
		await(t, "what unit 2 has is noted", func() error {
			for _, n := range c.server.store.past(nil).notes {
				if n.Unit == 2 && n.Changes >= 4 {
					return nil
				}
			}
			return fmt.Errorf("%v", c.server.store.past(nil).notes)
		})
		for _, u := range []layout.UnitID{1, 2} {
			c.units[u].mu.Lock()
			c.units[u].watermark = 2
			c.units[u].mu.Unlock()
		}
		c.units[2].crashed(old)
		got := c.open(2)
		if !got.IsMember(2) {
			t.Errorf("%+v; want unit 2 a member", got)
		}
		want := map[uint64]string{0: "trimmed 0", 1: "entry 101", 2: "entry 102"}
		for _, u := range []layout.UnitID{1, 2} {
			if h := c.held(u); !reflect.DeepEqual(h, want) {
				t.Errorf("unit %d holds %v; want %v", u, h, want)
			}
		}
		if got, want := c.wipes(), [6]int{0, 1, 1, 1, 1}; got != want {
			t.Errorf("wiped %v; want %v", got, want)
		}
	})
}

// TestR23StaleTailCountsForNothing beside a head that was restarted: under durability memory, and
// under flash if the head is away.
func TestR23StaleTailCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := paired(t)
		old := c.units[2].copied()
		c.put(l, 0, wire.Durable, 100, 1, 2)
		await(t, "what unit 2 has is noted", func() error {
			for _, n := range c.server.store.past(nil).notes {
				if n.Unit == 2 && n.Changes >= 1 {
					return nil
				}
			}
			return fmt.Errorf("%v", c.server.store.past(nil).notes)
		})
		was := c.units[2].copied()
		c.units[1].die()
		c.units[2].crashed(old)
		c.stands("R23")
		if e := c.highest(); e != 1 {
			t.Errorf("epoch %d was tried; want none", e)
		}
		c.units[2].crashed(was)
		got := c.active("with the true store", func(l *layout.Layout) bool { return l.Epoch > 1 && l.IsMember(2) })
		if h := c.held(2); !reflect.DeepEqual(h, map[uint64]string{0: "entry 100"}) {
			t.Errorf("epoch %d: unit 2 holds %v; want the entry", got.Epoch, h)
		}
	})
}

// TestR25LayoutStoreThatWentBackDecidesNothing: whatever a unit knows more than the layout store, a
// spare included, nothing is decided or wiped, although a unit is gone that the log could do
// without.
func TestR25LayoutStoreThatWentBackDecidesNothing(t *testing.T) {
	for what, knows := range map[string]func(*fakeUnit){
		"a record that is not known":         func(u *fakeUnit) { u.store.reconciled = layout.RecordRef{Epoch: 2, ID: 22} },
		"another record of the epoch":        func(u *fakeUnit) { u.store.reconciled.ID++ },
		"an active epoch that is not known":  func(u *fakeUnit) { u.store.active = layout.RecordRef{Epoch: 2, ID: 22} },
		"a promise of an epoch never begun":  func(u *fakeUnit) { u.promise = 9 },
		"the release before knows an active": func(u *fakeUnit) { u.store.active = layout.RecordRef{Epoch: 5} },
	} {
		for _, id := range []layout.UnitID{2, 5} {
			t.Run(fmt.Sprintf("%s, unit %d", what, id), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := withSpare(t)
					c.start().open(1)
					c.units[5] = c.spare
					was := c.highest()
					before := c.wipes()
					u := c.units[id]
					u.mu.Lock()
					promise, store := u.promise, u.store
					if knows(u); id == 5 && strings.HasPrefix(what, "another") {
						u.store.reconciled = layout.RecordRef{Epoch: 1, ID: 99}
					}
					u.mu.Unlock()
					c.stands(fmt.Sprintf("unit %d", id), "the layout store has lost its past", "corfu layout recover")
					c.units[4].die()
					c.stands(fmt.Sprintf("unit %d", id), "the layout store has lost its past")
					if _, err := c.reconfigure(); err == nil || !strings.Contains(err.Error(), "lost its past") {
						t.Errorf("asked for an epoch: %v; want that the layout store lost its past", err)
					}
					if got := c.wipes(); got != before || c.highest() != was {
						t.Errorf("epoch %d, wiped %v; want %d and %v", c.highest(), got, was, before)
					}
					u.mu.Lock()
					u.promise, u.store = promise, store
					u.mu.Unlock()
					delete(c.units, 4)
					c.active("without unit 4", func(l *layout.Layout) bool { return !l.IsMember(4) })
				})
			})
		}
	}
}

// TestR25RestoredServerSaysSo: the directory of the only layout server is an old copy. The units
// know of a newer epoch.
func TestR25RestoredServerSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.start().open(1)
		c.stop()
		old := filepath.Join(t.TempDir(), "old")
		if err := os.CopyFS(old, os.DirFS(c.cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		c.start().open(1)
		if _, err := c.reconfigure(); err != nil {
			t.Fatal(err)
		}
		l := c.open(2)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.stop()
		now := c.cfg.Dir
		c.cfg.Dir = old
		c.start().stands("the layout store has lost its past")
		c.stop()
		c.cfg.Dir = now
		c.start().open(2)
		if got, want := c.wipes(), [6]int{0, 1, 1, 1, 1}; got != want {
			t.Errorf("wiped %v; want %v", got, want)
		}
	})
}

// TestR25LoneServerHearsAllMembersFirst: a single layout server that was started anew leaves nobody
// out before it has heard all members of its active layout; an operator's word stands for what it
// has not heard.
func TestR25LoneServerHearsAllMembersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := paired(t)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		c.stop()
		c.units[2].die()
		c.start().stands("unit 2", "has not answered since this layout server started", "corfu unit remove 2 --accept-loss")
		if e := c.highest(); e != 1 {
			t.Errorf("epoch %d was tried; want none", e)
		}
		if _, err := c.ask(&pb.ReconfigureRequest{Remove: []uint32{2}, AcceptLoss: true}); err != nil {
			t.Fatal(err)
		}
		c.active("without unit 2", func(l *layout.Layout) bool { return !l.IsMember(2) })
	})
}

// TestR26FoundedOverBlankUnitsAlone: a unit with entries, or one that knows of a log, forbids it, a
// spare too; one that is silent is waited for.
func TestR26FoundedOverBlankUnitsAlone(t *testing.T) {
	for what, spoil := range map[string]func(*fakeUnit){
		"entries":      func(u *fakeUnit) { u.entries[7] = &pb.Entry{Address: 7, State: uint32(wire.Durable), Attempt: 1} },
		"a note":       func(u *fakeUnit) { u.store.reconciled = layout.RecordRef{Epoch: 3, ID: 33} },
		"active epoch": func(u *fakeUnit) { u.store.active = layout.RecordRef{Epoch: 3, ID: 33} },
		"silent":       nil,
	} {
		for _, id := range []layout.UnitID{2, 5} {
			t.Run(fmt.Sprintf("%s, unit %d", what, id), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := withSpare(t)
					c.units[5] = c.spare
					u := c.units[id]
					if spoil == nil {
						u.die()
					} else {
						spoil(u)
					}
					c.start()
					if spoil == nil {
						c.stands(fmt.Sprintf("unit %d", id), "founded once all units of the list answer")
						u.start()
					} else {
						c.stands(fmt.Sprintf("unit %d", id), "corfu layout recover")
						if got := c.wipes(); got != [6]int{} || c.highest() != 0 {
							t.Errorf("epoch %d was tried, wiped %v; want nothing", c.highest(), got)
						}
						u.crashed(newStore())
					}
					delete(c.units, 5)
					c.open(1)
				})
			})
		}
	}
}

// TestR26AttemptThatCameToNothingIsNoObstacle: units were reconciled for the first epoch, which was
// aborted.
func TestR26AttemptThatCameToNothingIsNoObstacle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var failed atomic.Bool
		c.units[4].setHook(func(call string, e layout.Epoch) error {
			if call == "reconciled" && failed.CompareAndSwap(false, true) {
				await(t, "unit 1 is reconciled", func() error {
					if c.units[1].copied().reconciled.IsZero() {
						return fmt.Errorf("not yet")
					}
					return nil
				})
				return errRefusedOnce
			}
			return nil
		})
		if got := c.start().open(2); got.Epoch < 2 {
			t.Errorf("epoch %d; want one after the first", got.Epoch)
		}
		if r := c.record(1); r.Verdict != layout.Aborted {
			t.Errorf("epoch 1: %+v; want it aborted", r)
		}
	})
}

// TestR27WhatWasGivenUpIsNotWiped: unit 2, with the only copy, is removed with --accept-loss. When
// it comes back it is added, and neither wiped nor used, unless somebody says so.
func TestR27WhatWasGivenUpIsNotWiped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := paired(t)
		c.put(l, 0, wire.Durable, 100, 2)
		c.units[2].die()
		c.units[1].crashed(newStore())
		c.stands("unit 1", "it is empty")
		if _, err := c.ask(&pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 1, Control: c.units[1].addr}}, Remove: []uint32{2}, AcceptLoss: true}); err != nil {
			t.Fatal(err)
		}
		got := c.active("without unit 2", func(l *layout.Layout) bool { return l.Epoch > 1 && !l.IsMember(2) && l.IsMember(1) })
		loss := false
		for e := layout.Epoch(2); e <= got.Epoch; e++ {
			loss = loss || c.record(e).AcceptedLoss
		}
		if !loss {
			t.Error("no record says that a loss was accepted")
		}
		before := c.wipes()
		c.units[2].restart()
		add := &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 2, Control: c.units[2].addr}}}
		if _, err := c.ask(add); err != nil {
			t.Fatal(err)
		}
		for range 3 { // epochs pass, and the chain lacks a unit
			if _, err := c.reconfigure(); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.active("unit 2 stands by", func(l *layout.Layout) bool { return !l.IsMember(2) }); c.wipes() != before {
			t.Errorf("epoch %d: wiped %v; want %v", got.Epoch, c.wipes(), before)
		}
		if h := c.held(2); len(h) != 1 {
			t.Errorf("unit 2 holds %v; want the entry that was given up", h)
		}
		add.AcceptLoss = true
		if _, err := c.ask(add); err != nil {
			t.Fatal(err)
		}
		c.active("unit 2 joined", func(l *layout.Layout) bool { return l.IsMember(2) })
		if wipes, _ := c.units[2].watched(); wipes != before[2]+1 {
			t.Errorf("unit 2 was wiped %d times; want once more than %d", wipes, before[2])
		}
	})
}
