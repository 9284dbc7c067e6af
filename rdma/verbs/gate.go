package verbs

import "sync/atomic"

// gate counts those inside a resource, and keeps others out once it is shut: the
// resource goes when the last one has left. The zero gate is not usable.
type gate struct {
	n    atomic.Int64
	idle chan struct{} // closed when the gate is shut and nobody is inside
}

const shutBit = 1 << 40

func newGate() gate { return gate{idle: make(chan struct{})} }

// enter goes in, unless the gate is shut.
func (g *gate) enter() bool {
	if g.n.Add(1)&shutBit == 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.n.Add(-1) == shutBit {
		g.close()
	}
}

// shut lets nobody in from now on. Idempotent; idle tells when all have left.
func (g *gate) shut() {
	for {
		n := g.n.Load()
		if n&shutBit != 0 {
			return
		}
		if g.n.CompareAndSwap(n, n|shutBit) {
			if n == 0 {
				g.close()
			}
			return
		}
	}
}

// close may be reached more than once: a late visitor of a shut gate goes in and out.
func (g *gate) close() {
	if g.n.CompareAndSwap(shutBit, shutBit|1<<41) {
		close(g.idle)
	}
}
