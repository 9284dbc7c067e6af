package server

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// minElection is the shortest election time-out: Raft's own checks want 5 ms for what is derived from it.
const minElection = 20 * time.Millisecond

// Peer is one of the layout servers.
type Peer struct {
	ID      uint16 // from 1
	Control string // host:port of its gRPC service, as clients reach it
	Raft    string // host:port of Raft, as the other servers reach it
}

// alone tells whether this is the only layout server.
func (c Config) alone() bool { return len(c.Servers) <= 1 }

func (c Config) peer(id uint16) (Peer, bool) {
	for _, p := range c.Servers {
		if p.ID == id {
			return p, true
		}
	}
	return Peer{}, false
}

// peers are all layout servers by id; a single one may name nobody, and is the only one then.
func (c Config) peers() []Peer {
	if len(c.Servers) == 0 {
		return []Peer{{ID: c.ID, Control: c.Control}}
	}
	return slices.SortedFunc(slices.Values(c.Servers), func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
}

func (c Config) validateServers() []error {
	var errs []error
	hostPort := func(what, addr string) {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", what, addr, err))
		}
	}
	if c.Raft != "" {
		hostPort("raft address", c.Raft)
	}
	if len(c.Servers) == 0 {
		return errs
	}
	if _, ok := c.peer(c.ID); !ok {
		errs = append(errs, fmt.Errorf("this is layout server %d: it is not among the servers", c.ID))
	}
	// An even number is no safer than the odd one below it: two of four may fail no more than one of three.
	if n := len(c.Servers); n > 7 || n%2 == 0 {
		errs = append(errs, fmt.Errorf("%d layout servers: must be 1, 3, 5 or 7", n))
	}
	seen := map[any]bool{}
	twice := func(key any, what string) {
		if seen[key] {
			errs = append(errs, errors.New(what+" is named twice"))
		}
		seen[key] = true
	}
	for _, p := range c.Servers {
		if p.ID == 0 {
			errs = append(errs, errors.New("layout server 0: ids are numbers from 1"))
		}
		twice(p.ID, fmt.Sprintf("layout server %d", p.ID))
		if c.alone() {
			continue
		}
		hostPort(fmt.Sprintf("control address of layout server %d", p.ID), p.Control)
		hostPort(fmt.Sprintf("raft address of layout server %d", p.ID), p.Raft)
		twice(p.Control, "address "+p.Control)
		twice(p.Raft, "address "+p.Raft)
	}
	return errs
}
