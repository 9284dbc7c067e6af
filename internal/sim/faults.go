package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// injector brings the faults of a run.
type injector struct {
	*run
	rand    *rand.Rand
	wg      sync.WaitGroup
	crashed map[int]bool // chains that lost a unit's memory
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
	{"crash unit", (*injector).crashUnit}, {"crash unit", (*injector).crashUnit},
	{"crash sequencer", (*injector).crashSeq},
	{"power cut", (*injector).powerCut}, {"power cut", (*injector).powerCut},
	{"reconfigure", (*injector).reconfigure}, {"reconfigure", (*injector).reconfigure}, {"reconfigure", (*injector).reconfigure},
	{"elect", (*injector).elect}, {"elect", (*injector).elect},
	{"kill client", (*injector).killClient},
}

// inject brings faults until there are enough or stop is closed, and returns when all are over.
func (x *run) inject(stop <-chan struct{}) {
	in := &injector{run: x, rand: x.c.f.chance("faults"), crashed: map[int]bool{}}
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
		x.mu.Lock()
		may := x.mayCrash(u)
		x.mu.Unlock()
		if may {
			x.crash(u, back, noisy)
		}
	})
}

// anyHost names a host by chance.
func (x *injector) anyHost() string {
	n := len(x.c.units)
	switch k := x.rand.IntN(n + 1 + x.Shape.Layouts + x.Clients); {
	case k < n:
		return unitName(k + 1)
	case k == n:
		return seqName
	case k <= n+x.Shape.Layouts:
		return layoutName(k - n)
	default:
		return clientName(k - n - 1 - x.Shape.Layouts)
	}
}

func (x *injector) pause() {
	h, d := x.anyHost(), x.some()
	x.h.note("fault: %s pauses for %v", h, d)
	x.c.f.Pause(h)
	x.later(d, func() { x.c.f.Resume(h) })
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

// mayCrash tells whether a unit may lose its memory now. Under memory durability every chain has to keep an intact member,
// which is the promise's assumption: one crash for each chain.
func (x *injector) mayCrash(unit int) bool {
	chain := (unit - 1) / x.Shape.Replicas
	if x.Shape.Durability == layout.Memory && x.crashed[chain] {
		return false
	}
	x.crashed[chain] = true
	return true
}

func (x *injector) crashUnit() {
	u := 1 + x.rand.IntN(len(x.c.units))
	x.mu.Lock()
	may := x.mayCrash(u)
	x.mu.Unlock()
	if may {
		x.crash(u, x.some(), x.rand.IntN(2) == 0)
	}
}

// crash ends a unit and starts it again after a time.
func (x *injector) crash(u int, after time.Duration, noisy bool) {
	x.c.mu.Lock()
	down := x.c.units[u-1] == nil
	x.c.mu.Unlock()
	if down {
		return
	}
	x.h.note("fault: unit %d crashes, back after %v, noisy: %v", u, after, noisy)
	x.wg.Go(func() {
		x.c.crashUnit(u, noisy)
		time.Sleep(after)
		if err := x.c.startUnit(u); err != nil {
			x.fail(fmt.Errorf("unit %d does not start after a crash: %w", u, err))
		}
		x.h.note("unit %d is back", u)
	})
}

func (x *injector) crashSeq() {
	x.c.mu.Lock()
	down := x.c.seq == nil
	x.c.mu.Unlock()
	if down {
		return
	}
	d, noisy := x.some(), x.rand.IntN(2) == 0
	x.h.note("fault: the sequencer crashes, back after %v", d)
	x.wg.Go(func() {
		x.c.crashSeq(noisy)
		time.Sleep(d)
		if err := x.c.startSeq(); err != nil {
			x.fail(fmt.Errorf("the sequencer does not start after a crash: %w", err))
		}
	})
}

// powerCut crashes all units at once; each comes back in its own time.
func (x *injector) powerCut() {
	if x.Shape.Durability == layout.Memory {
		x.crashUnit()
		return
	}
	for u := range x.c.units {
		x.crash(u+1, x.some(), false)
	}
	x.crashSeq()
}

func (x *injector) reconfigure() {
	i := x.rand.IntN(x.Shape.Layouts)
	h := x.admin()
	x.h.note("fault: layout server %d is asked for a new epoch", i+1)
	x.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		cc, err := control.Dial(x.c.names[i], h.DialOptions()...)
		if err != nil {
			x.fail(err)
			return
		}
		defer cc.Close()
		m, err := pb.NewLayoutServiceClient(cc).Reconfigure(ctx, &pb.ReconfigureRequest{Reason: "sim"})
		x.h.note("layout server %d: epoch %d, %v", i+1, m.GetEpoch(), err)
	})
}

// admin is the host of whoever asks for epochs.
func (x *injector) admin() *Host { return x.c.f.NewHost("admin") }

// elect makes one of the layout servers the leader of a new term. The leader before it goes on for a while: two reconfigurers.
func (x *injector) elect() {
	h, d := layoutName(1+x.rand.IntN(x.Shape.Layouts)), x.some()
	x.h.note("fault: %s leads, the leader before it learns of that after %v", h, d)
	x.c.raft.elect(h)
	x.later(d, x.c.raft.depose)
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
