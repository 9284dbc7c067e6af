package sim

import (
	"fmt"
	"time"

	"corfu/layout"
)

// Members that crash, and members that are lost.

// crashUnderCAS crashes the unit that the next CAS goes to.
func (x *injector) crashUnderCAS() {
	d, back, noisy := x.upTo(10*latencyMax), x.some(), x.rand.IntN(2) == 0
	sprung := make(chan string, 1)
	x.c.f.Trap(func(c *conn) { sprung <- c.peer.host.name })
	x.wg.Go(func() {
		var u int
		select {
		case name := <-sprung:
			_, _ = fmt.Sscanf(name, "unit%d", &u)
		case <-time.After(100 * time.Millisecond):
			return
		}
		time.Sleep(d)
		x.crash(u, back, noisy)
	})
}

// strict tells whether every chain has to keep an intact member at every instant, which is what the promise assumes where memory is
// what lasts, or units may be lost for good. Otherwise units may restart as they like.
func (x *injector) strict() bool { return x.Shape.Durability == layout.Memory || x.Loses }

// expendable tells whether the promise holds without what unit u has in its memory: every chain that names it keeps an intact
// member (rule R16). While an epoch is undecided, nobody knows whose chains count.
func (x *injector) expendable(s *layout.State, u layout.UnitID) bool {
	a := s.Active()
	if a == nil || s.Highest() != a.Epoch {
		return false
	}
	for _, seg := range a.Segments {
		for _, ch := range seg.Chains {
			named, kept := false, false
			for _, v := range ch.Units {
				named = named || v == u
				kept = kept || (v != u && x.intact(a, v))
			}
			if named && !kept {
				return false
			}
		}
	}
	return true
}

// intact: v was not restarted since it was reconciled for the epoch of a.
func (x *injector) intact(a *layout.Layout, v layout.UnitID) bool {
	at, crashed := x.crashed[v]
	return !crashed || at < a.Epoch
}

// kill ends the life of unit u, if the promise allows that and it lives. bury has to be called.
func (x *injector) kill(u int, noisy bool) (bury func(), ok bool) {
	x.c.raft.look(func(s *layout.State) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.strict() && !x.expendable(s, layout.UnitID(u)) {
			return
		}
		if bury, ok = x.c.kill(x.c.units, u, noisy); ok {
			x.crashed[layout.UnitID(u)] = s.Highest()
		}
	})
	return bury, ok
}

func (x *injector) crashUnit() { x.crash(1+x.rand.IntN(len(x.c.units)), x.some(), x.rand.IntN(2) == 0) }

// crash ends a unit and starts it again after a time.
func (x *injector) crash(u int, after time.Duration, noisy bool) {
	bury, ok := x.kill(u, noisy)
	if !ok {
		return
	}
	x.h.note("fault: unit %d crashes, back after %v, noisy: %v", u, after, noisy)
	x.wg.Go(func() {
		bury()
		time.Sleep(after)
		if err := x.c.startUnit(u); err != nil {
			x.fail(fmt.Errorf("unit %d does not start after a crash: %w", u, err))
		}
		x.h.note("unit %d is back", u)
	})
}

// loseUnit takes a unit away for good.
func (x *injector) loseUnit() {
	u, noisy := 1+x.rand.IntN(len(x.c.units)), x.rand.IntN(2) == 0
	if !x.Loses {
		return
	}
	if bury, ok := x.kill(u, noisy); ok {
		x.h.note("fault: unit %d is lost for good, noisy: %v", u, noisy)
		x.wg.Go(bury)
	}
}

func (x *injector) crashSeq() {
	id, d, noisy := 1+x.rand.IntN(x.Shape.sequencers()), x.some(), x.rand.IntN(2) == 0
	bury, ok := x.c.kill(x.c.seqs, id, noisy)
	if !ok {
		return
	}
	x.h.note("fault: sequencer %d crashes, back after %v", id, d)
	x.wg.Go(func() {
		bury()
		time.Sleep(d)
		if err := x.c.startSeq(id); err != nil {
			x.fail(fmt.Errorf("sequencer %d does not start after a crash: %w", id, err))
		}
	})
}

// loseSeq takes one of two sequencers away for good.
func (x *injector) loseSeq() {
	id, noisy := 1+x.rand.IntN(x.Shape.sequencers()), x.rand.IntN(2) == 0
	if !x.Loses || !x.Shape.Standby || len(x.gone) > 0 {
		return
	}
	if bury, ok := x.c.kill(x.c.seqs, id, noisy); ok {
		x.gone[id] = true
		x.h.note("fault: sequencer %d is lost for good, noisy: %v", id, noisy)
		x.wg.Go(bury)
	}
}

// powerCut crashes all units and sequencers at once; each comes back in its own time.
func (x *injector) powerCut() {
	if x.strict() {
		x.crashUnit()
		return
	}
	for u := range x.c.units {
		x.crash(u+1, x.some(), false)
	}
	x.crashSeq()
}

// crashLayout crashes a layout server. If it led, another one is elected, or it again when it is back.
func (x *injector) crashLayout() {
	id, d, noisy := 1+x.rand.IntN(x.Shape.Layouts), x.some(), x.rand.IntN(2) == 0
	next := layoutName(1 + x.rand.IntN(x.Shape.Layouts))
	bury, ok := x.c.kill(x.c.layouts, id, noisy)
	if !ok {
		return
	}
	x.h.note("fault: layout server %d crashes, back after %v, and %s leads", id, d, next)
	x.wg.Go(func() {
		bury()
		x.c.raft.elect(next) // nobody, if that one is down
		time.Sleep(d)
		if err := x.c.startLayout(id); err != nil {
			x.fail(fmt.Errorf("layout server %d does not start after a crash: %w", id, err))
			return
		}
		x.c.raft.elect(next)
	})
}
