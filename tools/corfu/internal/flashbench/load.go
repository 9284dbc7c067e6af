package flashbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
	"corfu/unit"
)

// span is when a row is measured: from begin, after the warm-up, to end.
type span struct{ begin, end time.Time }

func spanOf(d time.Duration) span {
	begin := time.Now().Add(warmUp)
	return span{begin, begin.Add(d)}
}

// rate is how many of n came a second.
func (x span) rate(n int) float64 { return float64(n) / x.end.Sub(x.begin).Seconds() }

// holds tells whether something that ended at t is measured.
func (x span) holds(t time.Time) bool { return t.After(x.begin) && !t.After(x.end) }

// Writes keeps depth pages in flight for d, after the warm-up, and tells how many were acknowledged a second, and how
// long each took from the doorbell to the ack.
func (e *Engine) Writes(ctx context.Context, depth int, d time.Duration) (rate float64, s bench.Sample, err error) {
	lat := bench.NewLatencies()
	x, n, inFlight, asked := spanOf(d), 0, 0, e.u.View().Base
	for now := time.Now(); inFlight > 0 || now.Before(x.end); {
		for inFlight < depth && now.Before(x.end) && e.publish() {
			inFlight++
		}
		e.flush()
		select {
		case b := <-e.flushed:
			e.ended(b)
		case <-e.store.Grown():
			e.u.SetLimit(e.store.Limit(e.u.View().Watermark))
		case <-ctx.Done():
			return 0, s, ctx.Err()
		}
		if e.err != nil {
			return 0, s, e.err
		}
		now = time.Now()
		for _, a := range e.u.Output().Acks {
			slot := a.Ack.Use.Slot
			if x.holds(now) {
				lat.Record(now.Sub(e.began[slot]))
				n++
			}
			e.free = append(e.free, slot)
			inFlight--
		}
		e.u.Output().Reset()
		if v := e.u.View(); v.Base > asked+1024 {
			asked = v.Base
			e.ahead()
		}
	}
	return x.rate(n), lat.Sample(), nil
}

// flush starts what is to be written, as a unit's loop does: a lone page it writes itself.
func (e *Engine) flush() {
	for b := e.u.NextBatch(); b != nil; b = e.u.NextBatch() {
		e.flying++
		if len(b.Records) > 1 || e.flying > 1 || !e.helm.Begin() {
			e.batches <- b
			continue
		}
		if err := e.store.Write(b.Records); err != nil {
			e.err = err
		}
		if !e.helm.End() {
			e.helm.Took()
		}
		e.flushed <- b
	}
}

// ended tells the core that a batch is on flash.
func (e *Engine) ended(b *unit.Batch) {
	e.flying--
	e.helm.Ended(len(b.Records) == 1 && e.flying == 0)
	e.u.Flushed(b)
}

// publish does what a client does; false: the window has not reached the address.
func (e *Engine) publish() bool {
	g := e.lay.Geometry
	i := g.Slot(e.next)
	if e.mem.words[i] != wire.EmptyWord(g.Generation(e.next), 1) {
		return false
	}
	slot := e.free[len(e.free)-1]
	e.free = e.free[:len(e.free)-1]
	wire.SealPage(e.mem.Staging(slot), header(e.next))
	e.began[slot] = time.Now()
	e.mem.words[i] = wire.MakeWord(wire.Written, g.Generation(e.next), wire.Use{Slot: slot, Count: 1}.Tag())
	e.u.Doorbell(1, e.next)
	e.next++
	return true
}

// Reads keeps depth cold reads of pages below n in flight for d, after the warm-up, each verified, and tells how many a
// second came, and how long each took.
func (e *Engine) Reads(ctx context.Context, n, depth int, d time.Duration) (rate float64, s bench.Sample, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	lat := bench.NewLatencies()
	x, count := spanOf(d), 0
	for range depth {
		wg.Go(func() {
			took, bad := e.read(ctx, n, x)
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, bad)
			for _, t := range took {
				lat.Record(t)
			}
			count += len(took)
		})
	}
	wg.Wait()
	return x.rate(count), lat.Sample(), err
}

// read reads pages below n one by one and tells how long each took.
func (e *Engine) read(ctx context.Context, n int, x span) (took []time.Duration, err error) {
	page, err := mmap(pageSize)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmap(page)) }()
	for t := time.Now(); t.Before(x.end) && ctx.Err() == nil; {
		a := layout.Address(rand.IntN(n))
		if err := e.store.ReadPage(a, page); err != nil {
			return nil, err
		}
		if state, _ := unit.Classify(page, logID, layout.Position(a)); state != wire.Durable {
			return nil, fmt.Errorf("address %d is %v", a, state)
		}
		now := time.Now()
		if x.holds(now) {
			took = append(took, now.Sub(t))
		}
		t = now
	}
	return took, ctx.Err()
}
