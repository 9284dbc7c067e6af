package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

const (
	listedAtATime  = 4096      // addresses whose entries are compared at a time: what bounds the memory of a reconciliation
	sentAtATime    = 256 << 10 // bytes of pages in one message to a unit
	entriesAtATime = 1024      // entries in one message
	maxGap         = 16        // addresses that are fetched in vain rather than with another call
)

// errStalled: a unit made no progress in a reconciliation for StallTimeout.
var errStalled = errors.New("no progress")

// errBadEntry: a unit sent an entry that is not what it listed, or does not verify. It is not spread.
var errBadEntry = errors.New("a unit sent a bad entry")

// reconcile brings every member of the new epoch to what rule R17 decides, and waits until all of it is durable.
func (r *reconfiguration) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(r.cfg.StallTimeout, func() { cancel(fmt.Errorf("%w for %v", errStalled, r.cfg.StallTimeout)) })
	defer timer.Stop()
	c := &copier{base: r.base, epoch: r.epoch, copied: r.metrics.copied, sources: map[layout.UnitID]*member{}, sinks: map[layout.UnitID]*sink{},
		cancel: cancel, progress: func() { timer.Reset(r.cfg.StallTimeout) }, plan: layout.PlanCopies}
	began := time.Now()
	c.accuse = func(m *member, t task, err error) error { return r.accuse(ctx, m, t, began, err) }
	err := c.reconcile(ctx, r)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause // what came first; the rest is its consequence
	}
	return err
}

// copier streams to every unit what it lacks.
type copier struct {
	base     *layout.Layout // maps addresses to positions
	epoch    layout.Epoch   // in which the sources are asked
	sources  map[layout.UnitID]*member
	sinks    map[layout.UnitID]*sink
	copied   prometheus.Counter
	progress func()
	cancel   context.CancelCauseFunc
	accuse   func(*member, task, error) error // whose fault an error is; it gives it back
	plan     func([]layout.Listing, []layout.UnitID) ([]layout.Copy, error)
	pace     func(context.Context) error // waits, if not nil, before more is copied to units that have nothing yet
}

// reconcile brings every unit of the new layout to what the sealed members of the base say.
func (c *copier) reconcile(ctx context.Context, r *reconfiguration) error {
	for _, m := range slices.Concat(r.parts, r.leaving) {
		if _, sealed := r.seals[m.unit]; sealed && r.base.IsMember(m.unit) {
			c.sources[m.unit] = m
		}
	}
	for _, m := range r.parts {
		if m.unit == 0 {
			continue
		}
		stream, err := m.units().Reconcile(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		c.sinks[m.unit] = &sink{member: m, stream: stream, progress: c.progress, accuse: c.accuse}
	}
	if err := c.all(func(s *sink) error { return s.header(r) }); err != nil {
		return err
	}
	if c.base != nil {
		for i, s := range c.base.Segments {
			// The chains of a segment have no unit in common, those of two segments may: one segment after the other keeps a
			// unit's entries in the order of its addresses.
			if err := c.parallel(len(s.Chains), func(j int) error { return c.copyChain(ctx, r, i, j) }); err != nil {
				return err
			}
		}
	}
	return c.all((*sink).finish)
}

// all calls fn for every sink at once.
func (c *copier) all(fn func(*sink) error) error {
	list := make([]*sink, 0, len(c.sinks))
	for _, s := range c.sinks {
		list = append(list, s)
	}
	return c.parallel(len(list), func(i int) error { return fn(list[i]) })
}

// parallel calls fn(0), … fn(n-1) at once and waits for all. The first error ends the others.
func (c *copier) parallel(n int, fn func(int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			if errs[i] = fn(i); errs[i] != nil {
				c.cancel(errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// copyChain compares what the sealed members of a base chain hold where they may differ, and sends them what they lack.
func (c *copier) copyChain(ctx context.Context, r *reconfiguration, segment, stripe int) error {
	from, to := layout.Doubt(c.base, segment, stripe, r.seals)
	var units, fresh []layout.UnitID
	for _, u := range c.base.Segments[segment].Chains[stripe].Units {
		if c.sources[u] != nil {
			units = append(units, u)
		}
	}
	if slices.ContainsFunc(units, func(u layout.UnitID) bool { return r.seals[u].Trust == layout.Stale }) {
		from = c.base.Segments[segment].Chains[stripe].Base // it may lack single trims of any address (rule R23)
	}
	since := c.base.Epoch
	for _, x := range r.copied {
		if slices.Contains(r.change.Adopt, x.Range) && x.Segment == segment && x.Stripe == stripe {
			fresh, from, since = append(fresh, x.Unit), min(from, x.below), min(since, x.since)
		}
	}
	if len(fresh) == 0 {
		stays := func(u layout.UnitID) bool { return c.sinks[u] != nil }
		list, all := layout.OnlyLeaving(c.base, segment, stripe, r.seals, stays, from)
		kept := func(u layout.UnitID) bool { return !stays(u) && !slices.Contains(r.givenUp, u) }
		if all && slices.ContainsFunc(units, kept) {
			from = c.base.Segments[segment].Chains[stripe].Base
		}
		for _, a := range list {
			if err := c.copyRange(ctx, units, nil, a, a+1); err != nil {
				return err
			}
		}
	} else {
		base := c.base.Segments[segment].Chains[stripe].Base
		known, err := c.trims(ctx, units, fresh, since, base, from)
		if err != nil {
			return err
		}
		if !known {
			from = base
		}
	}
	return c.copyRange(ctx, units, fresh, from, to)
}

// copyRange compares what units hold at addresses from to to-1, and sends them, and those that have nothing of it yet, what they lack.
func (c *copier) copyRange(ctx context.Context, units, fresh []layout.UnitID, from, to layout.Address) error {
	step := layout.Address(listedAtATime)
	if len(fresh) > 0 {
		step = layout.Address(max(1, sentAtATime/c.base.Geometry.PageSize))
	}
	for a := from; a < to; a += step {
		if len(fresh) > 0 && c.pace != nil {
			if err := c.pace(ctx); err != nil {
				return err
			}
		}
		if err := c.copySlice(ctx, units, fresh, a, min(a+step, to)); err != nil {
			return err
		}
	}
	return nil
}

// copySlice does it for addresses a to b-1.
func (c *copier) copySlice(ctx context.Context, units, fresh []layout.UnitID, a, b layout.Address) error {
	listings, first := make([]layout.Listing, len(units)), given{}
	if len(fresh) > 0 {
		first = given{units[0], make(map[layout.Address]*pb.Entry, b-a)}
	}
	err := c.parallel(len(units), func(i int) (err error) {
		listings[i], err = c.list(ctx, units[i], a, b, first)
		return err
	})
	if err != nil {
		return err
	}
	copies, err := c.plan(listings, fresh)
	if err != nil {
		return fmt.Errorf("units %v: %w", units, err)
	}
	return c.deliver(ctx, copies, first)
}

// given are the entries of one unit of a chain that came with its listing, pages and all: where there is somebody who has nothing yet all
// of them are wanted, and the unit reads them only once.
type given struct {
	unit    layout.UnitID // 0: none
	entries map[layout.Address]*pb.Entry
}

// trims sends what was trimmed, address by address, since the range was copied in epoch since, to all of the chain that lack it: those that
// take over, behind whose backs it was, and members that the trim has not reached. Else a new tail could show a trim that the others do not
// know, and be lost (docs/model, trim-one-sided). It reports whether all sources know; else all of the range has to be compared.
func (c *copier) trims(ctx context.Context, units, fresh []layout.UnitID, since layout.Epoch, from, to layout.Address) (known bool, err error) {
	all := slices.Concat(units, fresh)
	trimmed := map[layout.Address]map[layout.UnitID]bool{}
	for _, u := range all {
		q := &pb.EntriesRequest{From: uint64(from), To: uint64(to), TrimsSince: uint64(since)}
		err := c.entries(ctx, u, q, func(e *pb.Entry) error {
			a := layout.Address(e.Address)
			if trimmed[a] == nil {
				trimmed[a] = map[layout.UnitID]bool{}
			}
			trimmed[a][u] = true
			return nil
		})
		if status.Code(err) == codes.OutOfRange {
			if slices.Contains(fresh, u) {
				continue // it knows of trims only if an epoch that came to nothing told it
			}
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	for _, a := range slices.Sorted(maps.Keys(trimmed)) {
		lacks := slices.DeleteFunc(slices.Clone(all), func(u layout.UnitID) bool { return trimmed[a][u] })
		if err := c.send(layout.Copy{Holding: layout.Holding{Address: a, Kind: layout.HoldsTrimmed}, Lacks: lacks}, nil); err != nil {
			return false, err
		}
	}
	return true, nil
}

// list asks what a unit holds at addresses a to b-1, with the pages if it is the one that gives them.
func (c *copier) list(ctx context.Context, u layout.UnitID, a, b layout.Address, g given) (layout.Listing, error) {
	l := layout.Listing{Unit: u}
	err := c.entries(ctx, u, &pb.EntriesRequest{From: uint64(a), To: uint64(b), Pages: u == g.unit}, func(e *pb.Entry) error {
		k, err := kindOf(wire.State(e.State))
		if err != nil {
			return fmt.Errorf("unit %d: address %d: %w", u, e.Address, err)
		}
		h := layout.Holding{Address: layout.Address(e.Address), Kind: k}
		if k == layout.HoldsEntry {
			h.Attempt = layout.Attempt(e.Attempt)
		}
		if h.Address < a || h.Address >= b {
			return fmt.Errorf("unit %d: address %d is not in [%d, %d): %w", u, h.Address, a, b, errBadEntry)
		}
		l.Holdings = append(l.Holdings, h)
		if u == g.unit {
			g.entries[h.Address] = e
		}
		return nil
	})
	return l, err
}

// entries streams a unit's entries through fn.
func (c *copier) entries(ctx context.Context, u layout.UnitID, q *pb.EntriesRequest, fn func(*pb.Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // an error of fn ends the stream
	q.Epoch = uint64(c.epoch)
	stream, err := c.sources[u].units().Entries(ctx, q)
	if err != nil {
		return fmt.Errorf("unit %d: entries: %w", u, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if status.Code(err) != codes.OutOfRange { // of trims that it forgot: no fault
				_ = c.accuse(c.sources[u], taskList, err)
			}
			return fmt.Errorf("unit %d: entries: %w", u, err)
		}
		c.progress()
		for _, e := range m.Entries {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

// deliver sends copies, in order, to whom they are missing: pages that were not given are fetched, in runs of the same source.
func (c *copier) deliver(ctx context.Context, copies []layout.Copy, g given) error {
	for i := 0; i < len(copies); {
		if copies[i].Source == 0 || copies[i].Source == g.unit {
			if err := c.pass(copies[i], g); err != nil {
				return err
			}
			i++
			continue
		}
		j := i + 1
		for j < len(copies) && copies[j].Source == copies[i].Source && copies[j].Address-copies[j-1].Address <= maxGap {
			j++
		}
		if err := c.fetch(ctx, copies[i:j]); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// pass sends what has no page, or a page that was given.
func (c *copier) pass(p layout.Copy, g given) error {
	if p.Source == 0 {
		return c.send(p, nil)
	}
	e := g.entries[p.Address]
	if err := c.check(g.unit, e, p); err != nil {
		return err
	}
	return c.send(p, e.Page)
}

// fetch streams the pages of copies, which have one source, to whom they are missing.
func (c *copier) fetch(ctx context.Context, copies []layout.Copy) error {
	u, next := copies[0].Source, 0
	q := &pb.EntriesRequest{From: uint64(copies[0].Address), To: uint64(copies[len(copies)-1].Address + 1), Pages: true}
	err := c.entries(ctx, u, q, func(e *pb.Entry) error {
		if next == len(copies) || layout.Address(e.Address) != copies[next].Address {
			return nil // in a gap: nobody lacks it
		}
		next++
		if err := c.check(u, e, copies[next-1]); err != nil {
			return err
		}
		return c.send(copies[next-1], e.Page)
	})
	if err == nil && next < len(copies) {
		err = fmt.Errorf("unit %d: address %d: listed, then missing: %w", u, copies[next].Address, errBadEntry)
	}
	return err
}

// check refuses a page that is not the one that was decided.
func (c *copier) check(u layout.UnitID, e *pb.Entry, want layout.Copy) error {
	p, ok := c.base.PositionAt(u, want.Address)
	if !ok {
		return fmt.Errorf("unit %d: address %d has no position: %w", u, want.Address, errBadEntry)
	}
	h, err := wire.VerifyPage(e.Page, c.base.Log, p)
	if err != nil {
		return fmt.Errorf("unit %d: address %d: %w: %w", u, want.Address, errBadEntry, err)
	}
	if h.Attempt != want.Attempt || h.Flags.Kind() != wire.FlagData {
		return fmt.Errorf("unit %d: address %d: attempt %#x, not %#x: %w", u, want.Address, uint64(h.Attempt), uint64(want.Attempt), errBadEntry)
	}
	return nil
}

func (c *copier) send(p layout.Copy, page []byte) error {
	e := &pb.Entry{Address: uint64(p.Address), State: uint32(stateOf(p.Kind)), Attempt: uint64(p.Attempt), Page: page}
	for _, u := range p.Lacks {
		s := c.sinks[u]
		if s == nil {
			continue // it leaves
		}
		if err := s.add(e); err != nil {
			return err
		}
		c.copied.Inc()
	}
	return nil
}

// kindOf says what a unit's entry is worth in a plan.
func kindOf(s wire.State) (layout.Kind, error) {
	switch s {
	case wire.Written, wire.Durable:
		return layout.HoldsEntry, nil
	case wire.Junk, wire.DurableJunk:
		return layout.HoldsJunk, nil
	case wire.Corrupt:
		return layout.HoldsCorrupt, nil
	case wire.Trimmed:
		return layout.HoldsTrimmed, nil
	}
	return layout.HoldsNothing, fmt.Errorf("state %v: %w", s, errBadEntry)
}

// stateOf is the state in which an entry is sent to a unit that lacks it: there it is not durable yet.
func stateOf(k layout.Kind) wire.State {
	switch k {
	case layout.HoldsEntry:
		return wire.Written
	case layout.HoldsJunk:
		return wire.Junk
	case layout.HoldsTrimmed:
		return wire.Trimmed
	default:
		return wire.Corrupt
	}
}
