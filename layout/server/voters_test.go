package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// standingOf waits until a server says of itself what is wanted.
func (c *trio) standingOf(id uint16, want standing) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("layout server %d stands as %s", id, want), func() error {
		got, err := stateService{s: c.servers[id]}.State(context.Background(), nil)
		if err != nil || got.Standing != string(want) {
			return fmt.Errorf("it is %q (%q), %v", got.GetStanding(), got.GetTrouble(), err)
		}
		return nil
	})
}

// newEpoch makes an epoch, so that the store holds one record more, and returns the layout.
func (c *trio) newEpoch() *layout.Layout {
	c.t.Helper()
	var made *layout.Layout
	await(c.t, "a new epoch", func() (err error) {
		made, err = c.reconfigure()
		return err
	})
	return c.open(made.Epoch)
}

// gateOf is the gate of a server.
func (c *trio) gateOf(id uint16) *gate { return c.servers[id].store.raft.(*raftLog).gate }

// refusesToElect waits until a server has asked the empty one for its vote often, and has not been
// elected.
func (c *trio) refusesToElect(candidate, empty uint16) {
	c.t.Helper()
	g := c.gateOf(empty)
	before := g.refused.Load()
	await(c.t, "elections that come to nothing", func() error {
		if n := g.refused.Load() - before; n < 10 {
			return fmt.Errorf("%d requests were refused", n)
		}
		return nil
	})
	for _, id := range []uint16{candidate, empty} {
		if c.servers[id].store.elected() {
			c.t.Errorf("layout server %d leads, by the vote of one that forgot", id)
		}
	}
}

func (c *trio) dirOf(id uint16) string { return filepath.Join(c.cfg.Dir, fmt.Sprint(id)) }

func (c *trio) wipe(id uint16) {
	c.t.Helper()
	if err := os.RemoveAll(c.dirOf(id)); err != nil {
		c.t.Fatal(err)
	}
}

// TestWipedServerDoesNotElectAStaleOne: server 3 misses an epoch, server 2 loses its store, server
// 1, which has the record, is down. The two elect nobody, since the epoch would be forgotten, and
// they say for whom they wait. With server 1 all is there, and server 2 votes again.
func TestWipedServerDoesNotElectAStaleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		c.agree()
		c.stopServer(3)
		want := c.newEpoch()
		c.stopServer(1)
		c.stopServer(2)
		c.wipe(2)
		c.restart(2)
		c.restart(3)
		c.refusesToElect(3, 2)
		err := c.servers[2].Health()
		if err == nil || !strings.Contains(err.Error(), "this layout server is empty, and layout server 3 is not: it has no vote until a leader, elected by the others, "+
			"has brought it up to date; layout server 1 does not answer: start it") {
			t.Errorf("the empty server says: %v", err)
		}
		m, _ := c.servers[3].Status(context.Background())
		if len(m.GetProblems()) != 1 || !strings.Contains(m.Problems[0].Todo, "start layout server 1") || !strings.Contains(m.Problems[0].What, "layout server 2 is empty") {
			t.Errorf("status says %v", m.GetProblems())
		}
		c.restart(1)
		c.standingOf(2, standsMember)
		if got := c.agree(); got.Active() == nil || got.Active().Epoch < want.Epoch {
			t.Errorf("the latest epoch is %d, want %d or later", got.Latest(), want.Epoch)
		}
		c.stopServer(1) // the vote of server 2 counts again
		c.newEpoch()
	})
}

// TestHalfFilledServerHasNoVote: a server that was being filled when the leader died has entries
// that name it a voter, as many as the stale server. It has no vote, after a restart as before.
func TestHalfFilledServerHasNoVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		c.agree()
		c.stopServer(3)
		want := c.newEpoch()
		c.stopServer(1)
		c.stopServer(2)
		c.wipe(2)
		if err := os.CopyFS(c.dirOf(2), os.DirFS(c.dirOf(3))); err != nil { // entries as far as server 3 has them
			t.Fatal(err)
		}
		store, err := openBolt(filepath.Join(c.dirOf(2), raftFile))
		if err != nil {
			t.Fatal(err)
		}
		r, err := readIdentity(store, true, layout.LogID{})
		if err == nil {
			err = r.set(func(i *identity) { i.Incarnation, i.Standing, i.Without = "filled", standsLearning, 1<<20 })
		}
		if err = errors.Join(err, store.Close()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c.restart(2)
			c.standingOf(2, standsLearning)
			if _, ok := c.servers[3]; !ok {
				c.restart(3)
			}
			c.refusesToElect(3, 2)
			c.stopServer(2)
		}
		c.restart(2)
		c.restart(1)
		await(t, "the epoch that server 3 missed", func() error {
			l, _, _, err := c.leader().store.active()
			if err != nil || l == nil || l.Epoch < want.Epoch {
				return fmt.Errorf("%v, %v", l, err)
			}
			return nil
		})
	})
}

// TestWipedServerIsFilled while the others work, and when its fill is broken off it goes on.
func TestWipedServerIsFilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		c.stopServer(2)
		c.wipe(2)
		want := c.newEpoch()
		c.restart(2)
		c.standingOf(2, standsMember)
		c.agree()
		lead := c.leader().cfg.ID
		if lead == 2 {
			lead = 1
		}
		c.stopServer(lead)
		if got := c.newEpoch(); got.Epoch <= want.Epoch {
			t.Errorf("epoch %d after %d", got.Epoch, want.Epoch)
		}
	})
}

// TestFoundingHearsEveryServer: a log is not founded while one of the listed servers has not said
// that it is empty.
func TestFoundingHearsEveryServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		for id := range c.servers {
			c.stopServer(id)
		}
		c.wipe(1)
		c.wipe(2) // the third has the only copy
		c.restart(1)
		c.restart(2)
		for _, id := range []uint16{1, 2} {
			await(t, "it says whom it waits for", func() error {
				if err := c.servers[id].Health(); err == nil || !strings.Contains(err.Error(), "a log is founded once every layout server has said that it is empty, too; layout server 3 does not answer: start it") {
					return fmt.Errorf("it says: %v", err)
				}
				return nil
			})
		}
		c.restart(3)
		await(t, "server 1 knows that server 3 is not empty", func() error {
			if err := c.servers[1].Health(); err == nil || !strings.Contains(err.Error(), "layout server 3 is not: it has no vote") {
				return fmt.Errorf("it says: %v", err)
			}
			return nil
		})
		if st := c.servers[1].store.raft.Standing(); st.Term != 0 || c.servers[3].store.elected() {
			t.Errorf("somebody was elected: %+v", st)
		}
		c.stopServer(3)
		c.wipe(3)
		c.restart(3) // now all of them are empty, and the log, another one, begins
		c.leader()
	})
}

// TestFoundingGoesOn where it was broken off: server 2 has begun already.
func TestFoundingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		for id := range c.servers {
			c.stopServer(id)
			c.wipe(id)
		}
		c.restart(2)
		c.restart(3)
		s := stateService{s: c.servers[2]}
		st, err := s.State(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := clusterID{7}
		if _, err := s.Found(context.Background(), &pb.FoundServersRequest{Cluster: want[:], Incarnation: st.Incarnation}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Found(context.Background(), &pb.FoundServersRequest{Cluster: want[:], Incarnation: "another"}); err == nil {
			t.Error("a word for a store that is gone was taken")
		}
		c.restart(1)
		c.leader()
		for id, s := range c.servers {
			c.standingOf(id, standsMember)
			if got := s.store.raft.(*raftLog).id.get().Cluster; got != want {
				t.Errorf("server %d belongs to %s, want %s", id, got, want)
			}
		}
	})
}

// TestGateLetsNothingThroughThatAnEmptyServerMustNotDo, request by request.
func TestGateLetsNothingThroughThatAnEmptyServerMustNotDo(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	vote, take := []any{&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}, &raft.TimeoutNowRequest{}}, []any{&raft.AppendEntriesRequest{}, &raft.InstallSnapshotRequest{}}
	for name, x := range map[string]struct {
		g          *gate
		vote, take error
	}{
		"empty":    {&gate{mayTake: no, mayVote: no}, errEmptyStore, errEmptyStore},
		"learning": {&gate{mayTake: yes, mayVote: no}, errNoVote, nil},
		"member":   {&gate{mayTake: yes, mayVote: yes}, nil, nil},
	} {
		for _, q := range vote {
			if err := x.g.refuse(q); !errors.Is(err, x.vote) {
				t.Errorf("%s: %T: %v, want %v", name, q, err, x.vote)
			}
		}
		for _, q := range take {
			if err := x.g.refuse(q); !errors.Is(err, x.take) {
				t.Errorf("%s: %T: %v, want %v", name, q, err, x.take)
			}
		}
		if x.vote == nil {
			continue
		}
		for what, err := range map[string]error{"vote": x.g.RequestVote("", "", nil, nil), "pre-vote": x.g.RequestPreVote("", "", nil, nil),
			"entries": x.g.AppendEntries("", "", nil, nil)} {
			if !errors.Is(err, errNoVote) {
				t.Errorf("%s asks for %s: %v", name, what, err)
			}
		}
	}
}
