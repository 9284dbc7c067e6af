package sim

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"corfu/layout"
)

// injector brings the faults of a run.
type injector struct {
	*run
	rand    *rand.Rand
	wg      sync.WaitGroup
	crashed map[layout.UnitID]layout.Epoch // units that lost their memory, and the highest epoch there was then
	gone    map[int]bool                   // sequencers that were lost for good
}

// faults are what may happen, each as often as it stands here.
var faults = []struct {
	name string
	do   func(*injector)
}{
	{"break", (*injector).breaks}, {"break", (*injector).breaks}, {"break", (*injector).breaks},
	{"break under a CAS", (*injector).breakUnderCAS}, {"break under a CAS", (*injector).breakUnderCAS}, {"break under a CAS", (*injector).breakUnderCAS},
	{"crash under a CAS", (*injector).crashUnderCAS}, {"crash under a CAS", (*injector).crashUnderCAS},
	{"pause", (*injector).pause}, {"pause", (*injector).pause},
	{"cut", (*injector).cut}, {"cut", (*injector).cut},
	{"partition", (*injector).partition},
	{"crash unit", (*injector).crashUnit}, {"crash unit", (*injector).crashUnit},
	{"crash sequencer", (*injector).crashSeq},
	{"power cut", (*injector).powerCut}, {"power cut", (*injector).powerCut},
	{"reconfigure", (*injector).reconfigure}, {"reconfigure", (*injector).reconfigure}, {"reconfigure", (*injector).reconfigure},
	{"elect", (*injector).elect}, {"elect", (*injector).elect},
	{"kill client", (*injector).killClient},
	{"crash layout server", (*injector).crashLayout},
	{"lose unit", (*injector).loseUnit}, {"lose unit", (*injector).loseUnit},
	{"lose sequencer", (*injector).loseSeq},
	{"fail over", (*injector).failOver},
}

// inject brings faults until there are enough or stop is closed, and returns when all are over.
func (x *run) inject(stop <-chan struct{}) {
	in := &injector{run: x, rand: x.c.f.chance("faults"), crashed: map[layout.UnitID]layout.Epoch{}, gone: map[int]bool{}}
	defer in.wg.Wait()
	x.c.f.setLoss(x.Weird.Lost, x.Weird.Duplicate)
	for range x.Faults {
		t := time.NewTimer(in.upTo(x.Gap))
		select {
		case <-t.C:
		case <-stop:
			t.Stop()
			return
		}
		if (x.Past == PastUnits || x.Past == PastLayout) && x.past.rand.IntN(3) == 0 {
			in.pastFault()
		}
		in.pick()(in)
	}
}

// pick draws a fault.
func (x *injector) pick() func(*injector) {
	for {
		f := faults[x.rand.IntN(len(faults))]
		if len(x.Only) == 0 || slices.Contains(x.Only, f.name) {
			return f.do
		}
	}
}

// upTo draws a time.
func (x *injector) upTo(most time.Duration) time.Duration {
	return time.Duration(1 + x.rand.Int64N(int64(most)))
}

// some draws a time that is mostly short.
func (x *injector) some() time.Duration {
	return x.upTo([]time.Duration{time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, time.Second}[x.rand.IntN(4)])
}

// later runs fn after a time, before the run heals.
func (x *injector) later(d time.Duration, fn func()) {
	x.wg.Go(func() {
		time.Sleep(d)
		fn()
	})
}

func (x *injector) breaks() {
	for range 1 + x.rand.IntN(3) {
		x.h.note("fault: a connection breaks")
		x.c.f.BreakOne(x.rand)
		time.Sleep(x.upTo(time.Millisecond))
	}
}

// breakUnderCAS breaks the connections of the next few CASes while they are on their way.
func (x *injector) breakUnderCAS() {
	for range 1 + x.rand.IntN(3) {
		d, mute := x.upTo(latencyMax), x.upTo(2*strayMost)-strayMost
		x.c.f.Trap(func(c *conn) {
			x.h.note("fault: the connection from %s to %s breaks in %v, under a CAS", c.host.name, c.peer.host.name, d)
			c.breakSoon(d, mute)
		})
	}
}

// hosts names all hosts.
func (x *injector) hosts() []string {
	var names []string
	for i := range x.c.units {
		names = append(names, unitName(i+1))
	}
	for i := range x.Shape.sequencers() {
		names = append(names, seqName(i+1))
	}
	for i := range x.Shape.Layouts {
		names = append(names, layoutName(i+1))
	}
	for i := range x.Clients {
		names = append(names, clientName(i))
	}
	return names
}

// anyHost names a host by chance.
func (x *injector) anyHost() string {
	names := x.hosts()
	return names[x.rand.IntN(len(names))]
}

func (x *injector) pause() {
	h, d := x.anyHost(), x.some()
	x.h.note("fault: %s pauses for %v", h, d)
	x.c.f.Pause(h)
	x.later(d, func() { x.c.f.Resume(h) })
}

// partition cuts the network in two.
func (x *injector) partition() {
	var sides [2][]string
	for _, h := range x.hosts() {
		i := x.rand.IntN(2)
		sides[i] = append(sides[i], h)
	}
	d := x.some()
	x.h.note("fault: no way between %v and %v for %v", sides[0], sides[1], d)
	block := func(cut bool) {
		for _, a := range sides[0] {
			for _, b := range sides[1] {
				x.c.f.Block(a, b, cut)
				x.c.f.Block(b, a, cut)
			}
		}
	}
	block(true)
	x.later(d, func() { block(false) })
}

func (x *injector) cut() {
	a, b, d := x.anyHost(), x.anyHost(), x.some()
	both := x.rand.IntN(2) == 0
	x.h.note("fault: no way from %s to %s for %v, both ways: %v", a, b, d, both)
	x.c.f.Block(a, b, true)
	if both {
		x.c.f.Block(b, a, true)
	}
	x.later(d, func() {
		x.c.f.Block(a, b, false)
		x.c.f.Block(b, a, false)
	})
}

func (x *injector) killClient() {
	if x.Clients < 2 {
		return
	}
	i := x.rand.IntN(x.Clients)
	noisy := x.rand.IntN(2) == 0
	x.h.note("fault: client %d dies", i)
	x.dead[i].Store(true)
	x.c.hosts[i].Kill(noisy)
}
