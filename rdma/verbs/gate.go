package verbs

// gate counts those inside a resource, and keeps others out once it is shut: the resource goes when the last one has left.
// It is guarded by its connection's mutex. The zero gate is not usable.
type gate struct {
	n    int
	done bool
	idle chan struct{} // closed when the gate is shut and nobody is inside
}

func newGate() gate { return gate{idle: make(chan struct{})} }

// enter goes in, unless the gate is shut.
func (g *gate) enter() bool {
	if g.done {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	if g.n--; g.n == 0 && g.done {
		close(g.idle)
	}
}

// shut lets nobody in from now on. Idempotent; idle tells when all have left.
func (g *gate) shut() {
	if g.done {
		return
	}
	if g.done = true; g.n == 0 {
		close(g.idle)
	}
}

// in goes through a gate of the connection.
func (c *conn) in(g *gate) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return g.enter()
}

// out leaves it.
func (c *conn) out(g *gate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.leave()
}

// shut shuts it, and gives a channel that is closed once nobody is inside.
func (c *conn) shut(g *gate) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.shut()
	return g.idle
}
