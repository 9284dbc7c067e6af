package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// Copies that a unit reports as CORRUPT are written anew from another member of the chain, in the epoch in which both
// are open. That runs beside the manager: a disk that hangs must not keep it from noticing what fails.

const (
	repairList   = 64                     // addresses asked for at a time, and worked on in one turn
	repairPause  = 5 * time.Millisecond   // between two repairs of a unit: bounds the rate
	repairFirst  = 500 * time.Millisecond // after one that failed; doubled each time
	repairLast   = 5 * time.Minute        // at most
	repairAlarms = 16                     // log lines about copies that cannot be restored, for each unit and term
)

// repairs is what there is to do in an epoch.
type repairs struct {
	active *layout.Layout
	units  map[layout.UnitID]*member
	sick   []*member // that have CORRUPT copies; their reports are the manager's
	left   []leftUnit
	looks  int // of repairer
}

// repairer sees to repairs while this server leads.
type repairer struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	work    chan repairs // the latest; room for one

	left  []leftUnit // of the manager
	looks int        // counts how often others stood by that may have what was lost

	mu    sync.Mutex
	cares map[layout.UnitID]*care
	stuck stuck
}

// care is what is known of one unit's CORRUPT copies. One turn at a time uses it; lost is under repairer.mu.
type care struct {
	cursor layout.Address            // where the next turn goes on
	tries  map[layout.Address]*retry // bounded by what a unit keeps in mind (unit.MaxCorrupt)
	turn   int                       // counts rounds through all addresses
	said   int                       // log lines about lost copies
	lost   int                       // copies that nobody could restore when it was tried last
}

// retry is when an address is tried again.
type retry struct {
	next  time.Time
	delay time.Duration
	turn  int // in which the unit named it last
	looks int // of repairer, as it was tried
	lost  bool
	stuck int // tries in a row that ended with errStuck
}

// errLost: no member of the chain has the entry any more, as far as they answer.
var errLost = errors.New("corrupt at every member of the chain")

// errNotYet: nothing can be said now: a member does not answer, or has nothing durable.
var errNotYet = errors.New("no member of the chain has it durably now")

func newRepairer(cfg Config, m *metrics) *repairer {
	return &repairer{cfg: cfg, log: cfg.Logger, metrics: m, work: make(chan repairs, 1), cares: map[layout.UnitID]*care{}}
}

// offer hands over what the last poll found, in place of what was not begun yet. The manager calls it.
func (r *repairer) offer(active *layout.Layout, list []*member, left []leftUnit) {
	if !sameLeft(r.left, left) {
		r.left, r.looks = left, r.looks+1
	}
	w := repairs{active: active, units: map[layout.UnitID]*member{}, left: left, looks: r.looks}
	for _, m := range list {
		if m.unit == 0 || m.standby || active == nil {
			continue
		}
		w.units[m.unit] = m
		if m.report.state != stateOpen || m.report.promise != active.Epoch {
			continue // as it was when it was open last
		}
		if m.report.corrupt == 0 {
			r.forget(m.unit)
			continue
		}
		w.sick = append(w.sick, m)
	}
	if active != nil {
		r.keep(w.units)
	}
	select {
	case <-r.work:
	default:
	}
	if len(w.sick) > 0 {
		r.work <- w // nobody else sends
	}
}

// lead begins to work. What it returns ends that, and forgets everything.
func (r *repairer) lead(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	return func() {
		cancel()
		<-done
		r.mu.Lock()
		defer r.mu.Unlock()
		clear(r.cares)
		r.metrics.lost.Set(0)
	}
}

// run works until ctx ends.
func (r *repairer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-r.work:
			var wg sync.WaitGroup
			for _, m := range w.sick {
				wg.Go(func() { r.turn(ctx, w, m) })
			}
			wg.Wait()
		}
	}
}

// keep forgets units that are no members any more: nobody misses what they could not restore.
func (r *repairer) keep(units map[layout.UnitID]*member) {
	r.mu.Lock()
	var gone []layout.UnitID
	for u := range r.cares {
		if units[u] == nil {
			gone = append(gone, u)
		}
	}
	r.mu.Unlock()
	for _, u := range gone {
		r.forget(u)
	}
}

// forget drops what is known of a unit that has no CORRUPT copy, or is no member.
func (r *repairer) forget(u layout.UnitID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.cares[u]; c != nil && c.lost > 0 {
		r.metrics.lost.Sub(float64(c.lost))
	}
	delete(r.cares, u)
}

// lost is how many copies of a unit nobody could restore; of all units, if u is 0.
func (r *repairer) lost(u layout.UnitID) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for v, c := range r.cares {
		if u == 0 || u == v {
			n += c.lost
		}
	}
	return n
}

// turn tries to repair the next few addresses of a unit.
func (r *repairer) turn(ctx context.Context, w repairs, m *member) {
	r.mu.Lock()
	c := r.cares[m.unit]
	if c == nil {
		c = &care{tries: map[layout.Address]*retry{}}
		r.cares[m.unit] = c
	}
	r.mu.Unlock()
	ask, cancel := context.WithTimeout(ctx, r.cfg.CallTimeout)
	list, err := m.units().Corrupt(ask, &pb.CorruptRequest{From: uint64(c.cursor), Max: repairList})
	cancel()
	if err != nil {
		return
	}
	for _, x := range list.Addresses {
		a := layout.Address(x)
		c.cursor = a + 1
		if !c.due(a, w.looks) {
			continue
		}
		err := r.repair(ctx, w, m, a)
		r.noteStuck(w, m, c.tries[a], a, err)
		r.result(m, c, a, err)
		if sleep.For(ctx, repairPause) != nil {
			return
		}
	}
	if len(list.Addresses) < repairList {
		c.wrap()
	}
	r.count(c)
}

// count makes public how many copies cannot be restored.
func (r *repairer) count(c *care) {
	n := 0
	for _, t := range c.tries {
		if t.lost {
			n++
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.lost, n = n, 0
	for _, c := range r.cares {
		n += c.lost
	}
	r.metrics.lost.Set(float64(n))
}

// due tells whether a is to be tried now: its time has come, or others stand by than before.
func (c *care) due(a layout.Address, looks int) bool {
	t := c.tries[a]
	if t == nil || t.looks != looks {
		t = &retry{looks: looks}
		c.tries[a] = t
	}
	t.turn = c.turn
	return !time.Now().Before(t.next)
}

// wrap begins a new round, and forgets addresses that the unit named no more in the last one.
func (c *care) wrap() {
	for a, t := range c.tries {
		if t.turn != c.turn {
			delete(c.tries, a)
		}
	}
	c.cursor, c.turn = 0, c.turn+1
}

// result takes note of what became of an address.
func (r *repairer) result(m *member, c *care, a layout.Address, err error) {
	if err == nil {
		delete(c.tries, a)
		return
	}
	t := c.tries[a]
	t.delay = min(max(2*t.delay, repairFirst), repairLast)
	t.next = time.Now().Add(t.delay)
	lost := errors.Is(err, errLost) || errors.Is(err, layout.ErrConflict)
	if lost && !t.lost && c.said < repairAlarms {
		c.said++
		r.log.Error("ALARM: a copy is corrupt and nobody can restore it: its position cannot be read (corfu trim gives it up)",
			"unit", uint32(m.unit), "address", uint64(a), "err", err)
	}
	t.lost = lost
	if !lost {
		r.metrics.repairErrors.Inc()
		r.log.Debug("repair", "unit", uint32(m.unit), "address", uint64(a), "err", err, "again_in", t.delay)
	}
}

// repair restores the copy of one address of a unit. Nil: it is sound now.
func (r *repairer) repair(ctx context.Context, w repairs, m *member, a layout.Address) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CallTimeout)
	defer cancel()
	p, ok := w.active.PositionAt(m.unit, a)
	if !ok {
		return fmt.Errorf("address %d of unit %d has no position: %w", a, m.unit, errBadEntry)
	}
	e, since, err := r.find(ctx, w, m.unit, a, p)
	if err != nil {
		return fmt.Errorf("position %d: %w", p, err)
	}
	_, err = m.units().Repair(ctx, &pb.RepairRequest{Log: w.active.Log[:], Epoch: uint64(w.active.Epoch), Entry: e, Since: uint64(since)})
	switch status.Code(err) {
	case codes.OK:
		r.metrics.repaired.Inc()
		r.metrics.repairSeconds.Observe(time.Since(began).Seconds())
		r.log.Info("repaired", "unit", uint32(m.unit), "address", uint64(a), "position", uint64(p), "state", wire.State(e.State).String())
		return nil
	case codes.AlreadyExists:
		return nil
	case codes.DataLoss:
		r.metrics.alarms.Inc()
		return fmt.Errorf("position %d: %w: %w", p, layout.ErrConflict, err)
	case codes.OutOfRange:
		return fmt.Errorf("position %d: %w, and a unit that left it has the entry, but may have missed that it was trimmed: %w", p, errLost, err)
	}
	return fmt.Errorf("position %d: %w", p, err)
}

// find asks the other members of the chain, open in the epoch, what stands at the address, and decides as one does within an epoch:
// any entry wins over a copy that does not verify; trimmed is what is trimmed at all others. What all members have lost a unit may have that
// left the chain, and has heard of no trims since the epoch that is returned; 0: a member has it.
func (r *repairer) find(ctx context.Context, w repairs, u layout.UnitID, a layout.Address, p layout.Position) (*pb.Entry, layout.Epoch, error) {
	place, err := w.active.Locate(p)
	if err != nil {
		return nil, 0, err
	}
	listings := []layout.Listing{{Unit: u, Holdings: []layout.Holding{{Address: a, Kind: layout.HoldsCorrupt}}}}
	held := map[layout.UnitID]*pb.Entry{}
	corrupt := 1
	var errs []error
	for _, v := range place.Chain.Units {
		if v == u {
			continue
		}
		e, err := w.units[v].units().Fetch(ctx, &pb.FetchRequest{Log: w.active.Log[:], Epoch: uint64(w.active.Epoch), Address: uint64(a)})
		if err != nil {
			errs = append(errs, fmt.Errorf("unit %d: %w", v, err))
			continue
		}
		switch s := wire.State(e.State); s {
		case wire.Corrupt:
			corrupt++
		case wire.Durable, wire.DurableJunk, wire.Trimmed:
			kind, _ := kindOf(s)
			h := layout.Holding{Address: a, Kind: kind}
			if kind == layout.HoldsEntry {
				h.Attempt = layout.Attempt(e.Attempt)
			}
			listings = append(listings, layout.Listing{Unit: v, Holdings: []layout.Holding{h}})
			held[v] = e
		}
	}
	copies, err := layout.PlanSameEpoch(listings, nil)
	switch {
	case err != nil:
		r.metrics.alarms.Inc()
		return nil, 0, err
	case corrupt == len(place.Chain.Units):
		return r.fromLeft(ctx, w, a, p)
	case len(held) == 0 && len(errs) == 0:
		return nil, 0, errors.Join(errNotYet, errStuck)
	case len(copies) != 1 || len(held) == 0 || (copies[0].Kind == layout.HoldsTrimmed && len(errs) > 0):
		return nil, 0, errors.Join(append(errs, errNotYet)...)
	}
	e, err := r.entry(w, copies[0], held, p)
	return e, 0, err
}

// entry is what is to be sent: what was decided, its page verified on the way.
func (r *repairer) entry(w repairs, c layout.Copy, held map[layout.UnitID]*pb.Entry, p layout.Position) (*pb.Entry, error) {
	e := &pb.Entry{Address: uint64(c.Address)}
	switch c.Kind {
	case layout.HoldsTrimmed:
		e.State = uint32(wire.Trimmed)
	case layout.HoldsJunk:
		e.State = uint32(wire.DurableJunk)
	case layout.HoldsEntry:
		e = held[c.Source]
		h, err := wire.VerifyPage(e.Page, w.active.Log, p)
		if err != nil || h.Attempt != c.Attempt || h.Flags.Kind() != wire.FlagData {
			return nil, fmt.Errorf("unit %d: %w", c.Source, errBadEntry)
		}
	default:
		return nil, errNotYet
	}
	return e, nil
}
