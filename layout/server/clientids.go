package server

import (
	"sync"

	"corfu/layout"
)

// clientBlock is how many client ids the leader takes from the store at once: one command of Raft
// for so many clients.
const clientBlock = 256

// clientLeap is by how much at most one block begins above what the store handed out. A client may
// claim any id towards a unit: one that lies shall not use all of them up.
const clientLeap = 1 << 20

// clientIDs hands out client ids of blocks that this leader took from the store. The rest of a
// block is never used once another leads, or this one again: what was handed out of it is known
// here alone.
type clientIDs struct {
	mu         turns
	term       uint64
	next, last layout.ClientID // of the block; next > last: it is used up

	floorMu sync.Mutex
	floor   layout.ClientID // the highest id that was seen in use
}

// turns is a mutex on which a goroutine waits in a channel, made with room for one. It is held
// while Raft takes a command: a goroutine that waited for it in a sync.Mutex would stop the clock
// of a simulation, which runs while all wait for it.
type turns chan struct{}

func (t turns) Lock()   { t <- struct{}{} }
func (t turns) Unlock() { <-t }

// newClient returns an id that nobody has. It fails with what apply fails with, and with
// layout.ErrNoClients.
func (s *store) newClient() (layout.ClientID, error) {
	term, leads := s.raft.Leader()
	if !leads {
		return 0, s.notLeader()
	}
	if !s.allRead(commandLeaseClients) {
		r, err := s.apply(layout.NewClient{})
		return r.Client, err
	}
	c := &s.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	handedOut := s.handedOut()
	above := min(c.highest(), handedOut+clientLeap)
	if c.term != term || c.next > c.last || c.next <= above || c.last < handedOut { // the last: the store was built anew (layout.Recover)
		r, err := s.apply(layout.LeaseClients{Count: clientBlock, Above: above})
		if err != nil {
			return 0, err
		}
		c.term, c.next, c.last = term, r.Client, r.Last
	}
	c.next++
	return c.next - 1, nil
}

// handedOut is the highest client id that the store knows of.
func (s *store) handedOut() (id layout.ClientID) {
	s.fsm.view(func(st *layout.State) { id = st.Clients() })
	return id
}

// raise notes a client id that was seen in use, by a unit or in its pages. No id up to it is handed
// out from then on: a store that was put back from an older copy does not know what was handed out
// after it was made. Ids that clients drew themselves count for nothing.
func (c *clientIDs) raise(seen layout.ClientID) {
	c.floorMu.Lock()
	defer c.floorMu.Unlock()
	if seen <= layout.MaxClient {
		c.floor = max(c.floor, seen)
	}
}

// clientStep is how far ahead units note client ids at most (unit/server).
const clientStep = 1024

// seenAtUnit takes what a unit noted of its clients. Units note ids ahead: what may be no more than
// that says nothing, and would use up ids.
func (s *store) seenAtUnit(noted layout.ClientID) {
	if noted > s.handedOut()+clientStep {
		s.clients.raise(noted)
	}
}

func (c *clientIDs) highest() layout.ClientID {
	c.floorMu.Lock()
	defer c.floorMu.Unlock()
	return c.floor
}

// allRead reports whether all layout servers have said that they read a command of that number.
func (s *store) allRead(number uint32) bool {
	r, ok := s.raft.(*raftLog)
	return !ok || r.release.commands(len(s.servers)-1) >= number
}
