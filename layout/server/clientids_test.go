package server

import (
	"context"
	"testing"
	"testing/synctest"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// ids asks for n client ids.
func (c *trio) ids(n int) (list []layout.ClientID) {
	c.t.Helper()
	for range n {
		await(c.t, "a client id", func() error {
			r, err := service{s: c.leader()}.NewClientID(context.Background(), &pb.NewClientIDRequest{})
			if err == nil {
				list = append(list, layout.ClientID(r.Client))
			}
			return err
		})
	}
	return list
}

// TestClientIDsAreLeasedInBlocks: many ids cost one command. What is left of a block is not used by
// another leader, nor by the same one later, so that no id is handed out twice; ids that were seen
// in use, which the store does not know of, are passed over.
func TestClientIDsAreLeasedInBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, calm)
		c.open(1)
		await(t, "all servers have said what they read", func() error {
			if !c.leader().store.allRead(commandLeaseClients) {
				return errNotLeader
			}
			return nil
		})
		var first layout.ClientID
		var list []layout.ClientID
		var before uint64
		for led := false; !led; { // until one server led all the time
			term, _ := c.leader().store.raft.Leader()
			first, before = c.ids(1)[0], c.leader().store.raft.Standing().Commit
			list = c.ids(100)
			now, leads := c.leader().store.raft.Leader()
			led = leads && now == term
		}
		seen := map[layout.ClientID]bool{first: true}
		for i, id := range list {
			if want := first + layout.ClientID(i) + 1; id != want {
				t.Errorf("client %d, want %d", id, want)
			}
			seen[id] = true
		}
		// What the members have is noted once a second (rule R23), besides.
		if after := c.leader().store.raft.Standing().Commit; after > before+10 {
			t.Errorf("100 ids cost %d commands; want one for a block of %d", after-before, clientBlock)
		}
		old := c.leader()
		if err := old.store.raft.HandOver(); err != nil {
			t.Fatal(err)
		}
		for _, id := range c.ids(10) {
			if seen[id] || id < first+clientBlock {
				t.Errorf("client %d, of the block of the leader before, or twice", id)
			}
			seen[id] = true
		}
		c.leader().store.clients.raise(5000)
		c.leader().store.clients.raise(layout.MaxClient + 9) // drawn by a reader
		if got := c.ids(1)[0]; got != 5001 {
			t.Errorf("client %d after 5000 was seen, want 5001", got)
		}
		c.leader().store.clients.raise(layout.MaxClient) // a lie
		if got := c.ids(1)[0]; got > 5001+2*clientLeap {
			t.Errorf("client %d: one that lied used up most of all ids", got)
		}
	})
}

// TestCommandsWaitForOlderServers: a command that a server cannot read would end it.
func TestCommandsWaitForOlderServers(t *testing.T) {
	var r releases
	states := []*pb.LayoutServerState{{Commands: commandsRead}, {Standing: "member"}}
	for n, want := range []uint32{0, 0, 0} {
		if got := r.commands(2); got != want { // the one of the release before holds it down
			t.Errorf("after %d of 2 servers were heard, the last of the release before: %d, want %d", n, got, want)
		}
		if n < len(states) {
			r.heard(uint16(n+2), states[n])
		}
	}
	r.heard(3, &pb.LayoutServerState{Commands: commandsRead + 1})
	if got := r.commands(2); got != commandsRead {
		t.Errorf("%d, want %d", got, commandsRead)
	}
}
