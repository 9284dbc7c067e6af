package sim

import (
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// A NIC reads a word over the bus and, for an atomic, writes it back a moment later: two transactions, between which a CPU may store to
// the word, and loses what it stored (rule R1). Atomics of one NIC, and its other operations, do not come in between.

// rmwTime is the moment between the two.
const rmwTime = time.Microsecond

// rmw is an atomic of which the word was read and not yet written.
type rmw struct {
	of   *conn
	word *uint64
	swap uint64
}

// before ends what an operation must not overtake: atomics come one after the other, a READ shows the word as it is, and those of
// one connection keep their order. The fabric's lock is held.
func (c *conn) before(k rdma.Kind) {
	n := c.nic()
	if x := c.host.pending[n]; x != nil && (x.of == c || (k != rdma.OpSend && k != rdma.OpWrite)) {
		c.host.finish(n)
	}
}

// finish writes what a NIC has still to write. The fabric's lock is held.
func (h *Host) finish(nic int) {
	x := h.pending[nic]
	if h.pending[nic] = nil; x != nil && !h.dead {
		atomic.StoreUint64(x.word, x.swap)
	}
}

// writeBack begins the second half of an atomic.
func (h *Host) writeBack(nic int, x *rmw) {
	h.pending[nic] = x
	if h.f.weird.Whole {
		h.finish(nic)
		return
	}
	time.AfterFunc(rmwTime, func() {
		h.f.mu.Lock()
		defer h.f.mu.Unlock()
		if h.pending[nic] == x {
			h.finish(nic)
		}
	})
}

// finishAll ends what was begun: deregistration waits for it.
func (h *Host) finishAll() {
	for nic := range h.pending {
		h.finish(nic)
	}
}

// nic is the one of the peer's NICs that serves a connection: there is one, but where rule R7 is broken.
func (c *conn) nic() int {
	if c.f.weird.Broken == TwoNICs {
		name := c.peer.host.name
		return int(name[len(name)-1]) % nics // that client's
	}
	return 0
}

// nics is how many a host has at most.
const nics = 2
