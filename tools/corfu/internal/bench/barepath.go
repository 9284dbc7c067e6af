package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/rdma"
)

// barePages is the ring of a bare replica: as many pages as a unit's window has by default, so that both walk over as much memory.
const barePages = 4096

// BarePath is the floor under a 2-replica append: its verbs, in one loop, with no
// client and no unit behind them. FETCH_ADD for the position; WRITE + CAS to A
// beside WRITE to B; CAS to B.
type BarePath struct {
	seq, a, b  *target
	local      *rdma.Memory
	take       *rdma.Batch // FETCH_ADD
	head       *rdma.Batch // WRITE, CAS
	copy, tail *rdma.Batch // WRITE; CAS
	payload    int
}

// OpenBarePath connects to three memories of its own on dev. payload is what one page carries behind its header, in bytes.
func OpenBarePath(ctx context.Context, dev rdma.Device, payload int, spin time.Duration) (*BarePath, error) {
	p := &BarePath{payload: payload, take: rdma.NewBatch(1), head: rdma.NewBatch(2), copy: rdma.NewBatch(1), tail: rdma.NewBatch(1)}
	var err error
	if p.local, err = dev.Alloc(pageSize); err != nil {
		return nil, err
	}
	for _, t := range []struct {
		to   **target
		size int
	}{{&p.seq, rdma.WordSize}, {&p.a, replicaSize}, {&p.b, replicaSize}} {
		if *t.to, err = openTarget(ctx, dev, t.size, spin); err != nil {
			*t.to = nil
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// A replica is its words, then its pages.
const (
	wordsSize   = barePages * rdma.WordSize
	replicaSize = wordsSize + barePages*pageSize
)

// Close ends the connections and frees the memory.
func (p *BarePath) Close() error {
	var errs []error
	for _, t := range []*target{p.seq, p.a, p.b} {
		if t != nil {
			errs = append(errs, t.close())
		}
	}
	return errors.Join(append(errs, p.local.Close())...)
}

// Name implements Contestant.
func (p *BarePath) Name() string { return BarePathName }

// BarePathName is its row.
const BarePathName = "bare path"

// Round implements Contestant.
func (p *BarePath) Round(ctx context.Context, ops int) (Sample, error) { return Time(ctx, ops, p.once) }

func (p *BarePath) once(ctx context.Context) error {
	p.take.Reset()
	p.take.FetchAdd(p.seq.region.Remote(0), 1)
	if err := p.seq.conn.Do(ctx, p.take); err != nil {
		return err
	}
	position := p.take.Old(0)
	slot, gen := int(position%barePages), position/barePages
	page := p.local.Slice(0, 64+p.payload)

	p.copy.Reset()
	p.copy.Write(page, p.b.region.Remote(wordsSize+slot*pageSize))
	if err := p.b.conn.Post(ctx, p.copy); err != nil {
		return err
	}
	p.head.Reset()
	p.head.Write(page, p.a.region.Remote(wordsSize+slot*pageSize))
	p.head.CompareSwap(p.a.region.Remote(slot*rdma.WordSize), gen, gen+1)
	if err := p.a.conn.Do(ctx, p.head); err != nil {
		return err
	}
	p.tail.Reset()
	p.tail.CompareSwap(p.b.region.Remote(slot*rdma.WordSize), gen, gen+1)
	if err := p.b.conn.Do(ctx, p.tail); err != nil {
		return err
	}
	// On one connection: it completed before the CAS did.
	if err := p.b.conn.Wait(ctx, p.copy); err != nil {
		return err
	}
	if p.head.Old(1) != gen || p.tail.Old(0) != gen {
		return fmt.Errorf("the words of position %d hold %d and %d, not %d", position, p.head.Old(1), p.tail.Old(0), gen)
	}
	return nil
}
