package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/rdma"
)

// pageSize is what WRITE and READ move: a whole page of the default geometry.
const pageSize = 4096

// Verbs measures single operations on one connection, one outstanding.
type Verbs struct {
	target *target
	local  *rdma.Memory
	word   uint64 // what the CAS word holds
}

// Rows that perftest has too.
const (
	fetchAddName = "FETCH_ADD"
	writeName    = "WRITE 4 KiB"
	readName     = "READ 4 KiB"
)

// Where the operations work in the target's memory.
const (
	fetchAddAt = 0
	casAt      = 8
	pageAt     = pageSize
	verbsSize  = 2 * pageSize
)

// OpenVerbs connects to memory of its own on dev.
func OpenVerbs(ctx context.Context, dev rdma.Device, spin time.Duration) (*Verbs, error) {
	local, err := dev.Alloc(pageSize)
	if err != nil {
		return nil, err
	}
	t, err := openTarget(ctx, dev, verbsSize, spin)
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	return &Verbs{target: t, local: local}, nil
}

// Close ends the connection and frees the memory.
func (v *Verbs) Close() error { return errors.Join(v.target.close(), v.local.Close()) }

// Contestants are the rows: FETCH_ADD, CAS, WRITE, READ, WRITE and CAS in one list.
func (v *Verbs) Contestants() []Contestant {
	word, swap, page := v.target.region.Remote(fetchAddAt), v.target.region.Remote(casAt), v.target.region.Remote(pageAt)
	bytes := v.local.Slice(0, pageSize)
	return []Contestant{
		v.verb(fetchAddName, func(b *rdma.Batch) { b.FetchAdd(word, 1) }),
		v.verb("CAS", func(b *rdma.Batch) { v.compareSwap(b, swap) }),
		v.verb(writeName, func(b *rdma.Batch) { b.Write(bytes, page) }),
		v.verb(readName, func(b *rdma.Batch) { b.Read(bytes, page) }),
		v.verb("WRITE 4 KiB + CAS", func(b *rdma.Batch) { b.Write(bytes, page); v.compareSwap(b, swap) }),
	}
}

// compareSwap always succeeds: nobody else touches the word.
func (v *Verbs) compareSwap(b *rdma.Batch, at rdma.Remote) {
	b.CompareSwap(at, v.word, v.word+1)
	v.word++
}

func (v *Verbs) verb(name string, fill func(*rdma.Batch)) Contestant {
	return &verb{name: name, conn: v.target.conn, batch: rdma.NewBatch(2), fill: fill}
}

type verb struct {
	name  string
	conn  rdma.Conn
	batch *rdma.Batch
	fill  func(*rdma.Batch)
}

func (v *verb) Name() string { return v.name }

func (v *verb) Round(ctx context.Context, ops int) (Sample, error) {
	return Time(ctx, ops, func(ctx context.Context) error {
		v.batch.Reset()
		v.fill(v.batch)
		if err := v.conn.Do(ctx, v.batch); err != nil {
			return err
		}
		for i := range v.batch.Ops {
			if op := &v.batch.Ops[i]; op.Kind == rdma.OpCompareSwap && op.Old != op.Compare {
				return fmt.Errorf("the CAS word holds %d, not %d", op.Old, op.Compare)
			}
		}
		return nil
	})
}
