package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// A unit that joined a chain at its tail has nothing of the older positions. They are copied to it in the background, in the
// epoch that is active, from what every member of the chain shows to be durable: that is final, but for trims (rule R17 keeps
// it in every later epoch). Once all is there the manager makes an epoch in which the unit joins the older segments, too; what is missing still is
// copied while that one is sealed. Another epoch, or another leader, goes on where this one is: the unit remembers how far its copies are and since
// when. What was copied stays true in every later epoch, but for trims, and those the members remember (docs/model, R17-copy).

const (
	rebuildChunk = 1024                   // addresses, after which progress counts
	rebuildRetry = time.Second            // after an error
	rebuildPoll  = 100 * time.Millisecond // while a hole is in the way
	// rebuildPatience is how many times a hole is looked at before the unit joins in spite of it.
	rebuildPatience = 20
	// rebuildFailures is after how many attempts in a row that failed the others are handed over without waiting for a range.
	rebuildFailures = 5
)

// rebuilder copies older positions while this server leads.
type rebuilder struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	// Of the manager.
	epoch layout.Epoch
	stop  context.CancelFunc
	done  chan struct{}

	pace *pacer // of run

	mu   sync.Mutex
	work []rebuilding
}

// rebuilding is how far a range is.
type rebuilding struct {
	copied
	ready bool   // all that can be copied is
	err   string // why the last attempt failed; "": it did not
	fails int    // attempts in a row that failed
	bytes int    // of pages that were sent
	began time.Time
	first layout.Address // where this leader began
}

// follow copies what the units of the active layout lack, and leaves what an older one lacked. The manager calls it in every round.
func (r *rebuilder) follow(ctx context.Context, active *layout.Layout, ms *members) {
	if active == nil || active.Epoch == r.epoch {
		return
	}
	r.end()
	r.epoch = active.Epoch
	behind := active.Behind()
	if len(behind) == 0 {
		return
	}
	units := map[layout.UnitID]*member{}
	for _, m := range ms.list {
		if m.unit != 0 {
			units[m.unit] = m
		}
	}
	r.mu.Lock()
	for _, x := range behind {
		r.work = append(r.work, rebuilding{copied: copied{Range: x, below: x.From, since: active.Epoch}, began: time.Now(), first: x.From})
	}
	r.show()
	r.mu.Unlock()
	ctx, r.stop = context.WithCancel(control.Begin(ctx))
	r.done = make(chan struct{})
	go func() {
		defer close(r.done)
		r.run(ctx, active, units)
	}()
}

// end stops copying and forgets everything.
func (r *rebuilder) end() {
	if r.stop != nil {
		r.stop()
		<-r.done
		r.stop = nil
	}
	r.epoch = 0
	r.mu.Lock()
	r.work = nil
	r.mu.Unlock()
	r.metrics.observeRebuild(0, 0)
}

// copied is what is ready to be handed over in the epoch that follows active, and how many ranges the others need not wait for, since they fail
// again and again.
func (r *rebuilder) copied(active *layout.Layout) (list []copied, failing int) {
	if active.Epoch != r.epoch {
		return nil, 0
	}
	for _, x := range r.progress() {
		switch {
		case x.ready:
			list = append(list, x.copied)
		case x.fails >= rebuildFailures:
			failing++
		}
	}
	return list, failing
}

// progress shows how far everything is.
func (r *rebuilder) progress() []rebuilding {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.work)
}

// run copies one range after the other, and then looks after holes, until ctx ends.
func (r *rebuilder) run(ctx context.Context, active *layout.Layout, units map[layout.UnitID]*member) {
	log := r.log.With(control.LogKey, control.Operation(ctx))
	log.Info("copying older positions to units that joined", "epoch", uint64(active.Epoch), "ranges", len(active.Behind()))
	stalled, rests := make([]int, len(r.progress())), make([]time.Time, len(r.progress()))
	r.pace = &pacer{rate: float64(r.cfg.RebuildRate), due: time.Now()}
	for i, x := range r.progress() {
		r.resume(ctx, i, x, active, units)
	}
	for ctx.Err() == nil {
		for i, x := range r.progress() {
			if time.Now().Before(rests[i]) {
				continue
			}
			failed := false
			for x.below < x.To {
				below, err := r.step(ctx, active, units, x.copied)
				if ctx.Err() != nil {
					return
				}
				failed = err != nil
				if r.trouble(i, err) { // a disk that is full may stay so for hours: it is said once
					log.Warn("older positions are not copied", "unit", uint32(x.Unit), "err", err)
				}
				if failed { // the others go on
					rests[i] = time.Now().Add(rebuildRetry)
					break
				}
				if below == x.below { // a hole: sooner or later a client fills it
					stalled[i]++
					break
				}
				x.below = below
				r.note(i, x.below, false)
			}
			if !failed && (x.below == x.To || stalled[i] > rebuildPatience) {
				r.note(i, x.below, true)
			}
		}
		_ = sleep.For(ctx, rebuildPoll)
	}
}

// trouble keeps why a range does not go on, or that it does (nil), and tells whether that is news.
func (r *rebuilder) trouble(i int, err error) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i >= len(r.work) {
		return false
	}
	x := &r.work[i]
	was := x.err
	if err == nil {
		x.err, x.fails = "", 0
		return false
	}
	x.err, x.fails = err.Error(), x.fails+1
	return x.err != was
}

func (r *rebuilder) note(i int, below layout.Address, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < len(r.work) {
		r.work[i].below = below
		r.work[i].ready = r.work[i].ready || ready
	}
	r.show()
}

// show keeps the metrics. mu is held.
func (r *rebuilder) show() {
	total, left := uint64(0), uint64(0)
	for _, x := range r.work {
		total += uint64(x.To - x.From)
		left += uint64(x.To - x.below)
	}
	r.metrics.observeRebuild(total, left)
}

// step copies a chunk and gives the address below which all is settled at the unit: the same, if a hole is in the way.
func (r *rebuilder) step(ctx context.Context, active *layout.Layout, units map[layout.UnitID]*member, x copied) (layout.Address, error) {
	chain := active.Segments[x.Segment].Chains[x.Stripe].Units
	settled := x.To
	for _, u := range chain {
		w, err := r.watermark(ctx, active, units[u])
		if err != nil {
			return x.below, err
		}
		settled = min(settled, w)
	}
	to := min(settled, x.below+rebuildChunk)
	if to <= x.below {
		return x.below, nil
	}
	bytes, err := r.copy(ctx, active, units, x, to)
	r.sent(x.Range, bytes)
	if err != nil {
		return x.below, err
	}
	r.metrics.rebuilt.Add(float64(bytes))
	return to, nil
}

// resume goes on where an earlier epoch, or another leader, left a range: if every member of its chain remembers what was trimmed since.
func (r *rebuilder) resume(ctx context.Context, i int, x rebuilding, active *layout.Layout, units map[layout.UnitID]*member) {
	below, since := x.below, x.since
	if a, err := r.state(ctx, units[x.Unit]); err == nil {
		for _, n := range a.Copied {
			if layout.Address(n.From) == x.From && layout.Address(n.To) == x.To && layout.Address(n.Below) <= x.To {
				below, since = max(below, layout.Address(n.Below)), layout.Epoch(n.Since)
			}
		}
	}
	if below == x.below {
		return
	}
	for _, u := range active.Segments[x.Segment].Chains[x.Stripe].Units {
		a, err := r.state(ctx, units[u])
		if known := layout.Epoch(a.GetTrimsSince()); err != nil || known == 0 || known > since {
			r.log.Info("copies begin anew: a unit does not know what was trimmed since", "unit", uint32(u), "since", uint64(since), "err", err)
			return
		}
	}
	r.log.Info("copies go on", "unit", uint32(x.Unit), "from", uint64(x.From), "to", uint64(x.To), "below", uint64(below), "since", uint64(since))
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < len(r.work) {
		r.work[i].below, r.work[i].first, r.work[i].since = below, below, since
	}
}

// sent counts the bytes of a range.
func (r *rebuilder) sent(x layout.Range, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.work {
		if r.work[i].Range == x {
			r.work[i].bytes += bytes
		}
	}
}

// eta is how long the rest takes at the pace so far; 0: nobody knows yet.
func (x rebuilding) eta(now time.Time) time.Duration {
	done := float64(x.below - x.first)
	if done == 0 {
		return 0
	}
	return time.Duration(float64(now.Sub(x.began)) / done * float64(x.To-x.below))
}

// state asks a unit for its state.
func (r *rebuilder) state(ctx context.Context, m *member) (*pb.UnitStateReply, error) {
	if m == nil {
		return nil, fmt.Errorf("not a member: %w", errUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CallTimeout)
	defer cancel()
	a, err := m.units().State(ctx, &pb.UnitStateRequest{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	return a, nil
}

// watermark is the address below which everything is durable at a unit that serves the epoch.
func (r *rebuilder) watermark(ctx context.Context, active *layout.Layout, m *member) (layout.Address, error) {
	a, err := r.state(ctx, m)
	if err != nil {
		return 0, err
	}
	if a.State != stateOpen || layout.Epoch(a.Promise) != active.Epoch {
		return 0, fmt.Errorf("%s is %s at epoch %d, not open at %d", m.name, a.State, a.Promise, active.Epoch)
	}
	return layout.Address(a.Watermark), nil
}

// copy sends the unit what the chain has at addresses x.below to to-1, and returns once it is durable there.
func (r *rebuilder) copy(ctx context.Context, active *layout.Layout, units map[layout.UnitID]*member, x copied, to layout.Address) (bytes int, err error) {
	whole, err := active.With(layout.Change{Adopt: active.Behind()}, active.Epoch, active.Start)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(r.cfg.StallTimeout, func() { cancel(fmt.Errorf("%w for %v", errStalled, r.cfg.StallTimeout)) })
	defer timer.Stop()
	progress := func() { timer.Reset(r.cfg.StallTimeout) }
	m := units[x.Unit]
	if m == nil {
		return 0, fmt.Errorf("unit %d: %w", x.Unit, errUnreachable)
	}
	stream, err := m.units().Backfill(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: backfill: %w", m.name, err)
	}
	count := func(n int) { bytes += n; r.pace.sent(n) }
	s := &sink{member: m, stream: counted{stream, count}, progress: progress, accuse: nobody}
	c := &copier{base: active, epoch: active.Epoch, copied: r.metrics.copied, sources: units, sinks: map[layout.UnitID]*sink{x.Unit: s},
		cancel: cancel, accuse: nobody, progress: progress, plan: layout.PlanSameEpoch, pace: r.pace.wait}
	if err := s.send(&pb.ReconcileRequest{Header: &pb.ReconcileHeader{Layout: pbconv.Layout(whole), Copied: []*pb.CopiedRange{x.note(to)}}}); err != nil {
		return 0, err
	}
	chain := active.Segments[x.Segment].Chains[x.Stripe].Units
	if err := c.copyRange(ctx, chain, []layout.UnitID{x.Unit}, x.below, to); err != nil {
		return 0, err
	}
	return bytes, s.finish()
}

// counted counts the bytes of the pages that are sent.
type counted struct {
	grpc.ClientStreamingClient[pb.ReconcileRequest, pb.ReconcileReply]
	count func(bytes int)
}

func (c counted) Send(m *pb.ReconcileRequest) error {
	n := 0
	for _, e := range m.Entries {
		n += len(e.Page)
	}
	c.count(n)
	return c.ClientStreamingClient.Send(m)
}
