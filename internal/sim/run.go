package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"corfu/client"
	"corfu/layout"
)

// Plan is what a run does. It follows from the seed.
type Plan struct {
	Seed    uint64
	Shape   Shape
	Weird   Weird
	Clients int
	Workers int           // of each client
	Ops     int           // of each worker
	Faults  int           // that are injected meanwhile
	Only    []string      // their names; none: all kinds
	Loses   bool          // units and a sequencer may be lost for good
	Large   bool          // some entries are larger than a page. Trims are of prefixes then
	Keeps   bool          // nothing is trimmed
	Follows bool          // each client follows the log besides
	Past    Past          // stores that go back
	OnlyOf  int           // the unit whose store goes back; 0: any
	Scan    time.Duration // between two looks of a unit that heard no doorbell
	Gap     time.Duration // at most, between two faults
	Think   time.Duration // at most, between the operations of a worker
}

// NewPlan draws a plan.
func NewPlan(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := Plan{Seed: seed, Clients: 1 + r.IntN(3), Workers: 1 + r.IntN(2), Ops: 6 + r.IntN(8), Faults: r.IntN(9)}
	p.Shape = Shape{Chains: 1 + r.IntN(2), Replicas: 2 + r.IntN(2), Layouts: 1 + 2*r.IntN(2), Durability: layout.Durability(r.IntN(2))}
	p.Think = []time.Duration{1, 100 * time.Microsecond, time.Millisecond, 5 * time.Millisecond}[r.IntN(4)]
	p.Gap = []time.Duration{300 * time.Microsecond, 3 * time.Millisecond, 12 * time.Millisecond}[r.IntN(3)]
	p.Scan = []time.Duration{2 * time.Millisecond, 30 * time.Millisecond}[r.IntN(2)]
	if r.IntN(8) == 0 {
		p.Ops *= 4 // the windows move
	}
	p.Weird = Weird{Late: time.Microsecond, Disk: []time.Duration{10 * time.Microsecond, 300 * time.Microsecond, 5 * time.Millisecond}[r.IntN(3)]}
	if r.IntN(4) > 0 {
		p.Weird.Slow, p.Weird.Late = r.Float64()*0.2, time.Duration(1+r.IntN(30))*time.Millisecond
	}
	if r.IntN(2) > 0 {
		p.Weird.Lost, p.Weird.Duplicate = r.Float64()*0.1, r.Float64()*0.2
	}
	if p.Shape.Heals = r.IntN(2) == 0; p.Shape.Heals {
		p.Shape.Spares, p.Shape.Standby, p.Loses = r.IntN(3), r.IntN(2) == 0, r.IntN(2) == 0
		p.Faults += r.IntN(6)
	}
	p.Large = r.IntN(4) == 0
	if p.Loses {
		p.Shape.Layouts = 3 // a single one waits for members that never come back
	}
	p.Past = drawPast(rand.New(rand.NewPCG(seed, 2)), p)
	p.Follows = p.Past == PastNone && rand.New(rand.NewPCG(seed, 3)).IntN(2) == 0
	return p
}

// drawPast draws which stores go back.
func drawPast(r *rand.Rand, p Plan) Past {
	switch k := r.IntN(8); {
	case k < 4 && p.Shape.Heals && !p.Loses:
		return PastUnits
	case k == 4 && p.Shape.Layouts == 1:
		return PastLayout
	case k == 5 && !p.Loses:
		return PastChain
	case k == 6 && !p.Loses:
		return PastLayouts
	case k == 7 && p.Shape.Heals && !p.Loses:
		return PastLoss
	}
	return PastNone
}

// Result of a run.
type Result struct {
	Plan
	History *History
	Took    time.Duration // of the simulated clock
	Err     error         // what is wrong; nil: nothing was found
}

// patience is how long an operation of a client may take, and longer than any fault lasts.
const patience = 20 * time.Second

// run is one run under way.
type run struct {
	Plan
	c    *cluster
	h    *History
	near atomic.Uint64 // a position close to the tail
	dead []atomic.Bool // clients
	past *pasts        // nil: no store goes back

	mu  sync.Mutex
	err error // of the run itself
}

func (x *run) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = errors.Join(x.err, err)
}

func clientName(i int) string { return fmt.Sprintf("client%d", i) }

// Execute does a run in dir. It must be called in a bubble of testing/synctest.
func Execute(p Plan, dir string, log *slog.Logger) Result {
	x := &run{Plan: p, h: newHistory(), dead: make([]atomic.Bool, p.Clients)}
	res := Result{Plan: p, History: x.h}
	began := time.Now()
	kind := p.Weird
	kind.Lost, kind.Duplicate = 0, 0 // until everything is up
	f := NewFabric(p.Seed, kind)
	var err error
	if x.c, err = start(f, dir, p.Shape, p.Scan, log); err != nil {
		res.Err = err
		return res
	}
	if p.Past != PastNone {
		x.past = newPasts(f.chance("past"))
		x.past.only = p.OnlyOf
	}
	err = x.body()
	x.c.close()
	res.Took = time.Since(began)
	time.Sleep(time.Minute) // what is still on its way ends
	if err == nil {
		err = x.c.compare(x.h.known.HalfTrimmed())
	}
	res.Err = errors.Join(err, x.err, x.h.known.Check(), x.c.alarms(), x.c.raft.rewritten(), x.accused())
	return res
}

func (x *run) body() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var logs []*client.Log
	for i := range x.Clients {
		r := x.c.f.chance(fmt.Sprintf("client %d", i))
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		l, err := x.c.open(bounded, clientName(i), client.Options{
			HoleTimeout: time.Duration(1+r.IntN(20)) * time.Millisecond, OpTimeout: time.Duration(50+r.IntN(500)) * time.Millisecond})
		cancel()
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		logs = append(logs, l)
	}
	followers := x.startFollowers(context.Background(), logs) // ctx may end while faults still keep workers waiting
	defer followers.cancel()
	stop := make(chan struct{})
	var faults, work sync.WaitGroup
	faults.Go(func() { x.inject(stop) })
	for i, l := range logs {
		for j := range x.Workers {
			work.Go(func() { x.work(ctx, l, i, i*x.Workers+j) })
		}
	}
	work.Wait()
	close(stop)
	faults.Wait()
	x.c.f.Heal()
	x.c.raft.elect(layoutName(1))
	x.c.raft.depose()
	x.h.note("healed")
	end, cancelEnd := context.WithTimeout(context.Background(), 10*time.Minute) // the workers may have waited for all of theirs
	defer cancelEnd()
	if err := x.restoreTruth(end); err != nil {
		return err
	}
	if err := followers.finish(end, x); err != nil {
		return err
	}
	if err := x.beyond(end); err != nil {
		return err
	}
	return x.readAll(end)
}

// work is what one worker does.
func (x *run) work(ctx context.Context, l *client.Log, who, id int) {
	r := x.c.f.chance(fmt.Sprintf("worker %d", id))
	near := func() layout.Position { return layout.Position(max(0, int64(x.near.Load())+2-r.Int64N(8))) }
	for n := range x.Ops {
		if x.dead[who].Load() {
			return
		}
		op, cancel := context.WithTimeout(ctx, patience)
		switch k := r.IntN(20); {
		case k < 8:
			x.h.append(op, l, id, x.payload(r, id, n))
		case k < 9:
			group := make([]string, 2+r.IntN(largestGroup-1))
			for i := range group {
				group[i] = x.payload(r, id, n) + fmt.Sprintf(".%d", i)
			}
			x.h.appendGroup(op, l, id, group)
		case k < 15:
			_ = x.h.read(op, l, id, near())
		case k < 17:
			x.h.fill(op, l, id, near())
		case k < 18 && x.near.Load() > 4 && !x.Keeps:
			p := layout.Position(r.Uint64N(x.near.Load() - 3))
			if x.Large || r.IntN(4) == 0 {
				x.h.trimPrefix(op, l, id, p)
			} else {
				x.h.trim(op, l, id, p)
			}
		default:
			if p, err := x.h.tail(op, l, id); err == nil {
				x.near.Store(uint64(p))
			}
		}
		cancel()
		time.Sleep(time.Duration(r.Int64N(int64(x.Think))))
	}
}

// largest is how many pages an entry has at most.
const largest = 4

// payload is that of the n-th operation of a worker.
func (x *run) payload(r *rand.Rand, id, n int) string {
	text := fmt.Sprintf("%d.%d", id, n)
	if x.Large && r.IntN(4) == 0 {
		text += strings.Repeat(".", r.IntN((largest-1)*int(geometry.PageSize)))
	}
	return text
}

// readAll ends the history with what everybody will find from now on.
func (x *run) readAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	l, err := x.c.open(ctx, "reader", client.Options{HoleTimeout: 5 * time.Millisecond, OpTimeout: 500 * time.Millisecond})
	if err != nil {
		return fmt.Errorf("the cluster does not come back: %w", err)
	}
	const reader = 1000
	tail, err := x.h.tail(ctx, l, reader)
	if err != nil {
		return fmt.Errorf("no tail at the end: %w", err)
	}
	for p := range tail {
		if err := x.h.read(ctx, l, reader, p); err != nil {
			return fmt.Errorf("position %d cannot be read at the end: %w", p, err)
		}
	}
	return nil
}

// String is what one needs to know to look at a run again.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %+v, %v of simulated time\n", r.Seed, r.Plan, r.Took)
	for _, line := range r.History.trace {
		fmt.Fprintln(&b, line)
	}
	if r.Err != nil {
		fmt.Fprintf(&b, "FOUND: %v\n", r.Err)
	}
	return b.String()
}
