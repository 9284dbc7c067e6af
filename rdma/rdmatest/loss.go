package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// flood is a connection with many lists in flight.
type flood struct {
	e       *env
	c       rdma.Conn
	batches []*rdma.Batch
	posted  int
	done    uint64 // FETCH_ADDs known to be executed
	unknown uint64
	broke   bool
}

const floodBatches, floodList = 64, 4

// startFlood posts lists of FETCH_ADDs at word 0 of r, and after the first of each
// a READ of 4 KiB into memory of its own, so that there is something to write when the end comes.
func (e *env) startFlood(c rdma.Conn, r rdma.Region, sink *rdma.Memory) *flood {
	f := &flood{e: e, c: c}
	for i := range floodBatches {
		b := rdma.NewBatch(floodList + 1)
		for k := range floodList {
			b.FetchAdd(r.Remote(0), 1)
			if k == 0 {
				b.Read(sink.Slice(i*4096, 4096), r.Remote(4096))
			}
		}
		f.batches = append(f.batches, b)
	}
	return f
}

// run posts round and round until the connection breaks, then takes all completions.
func (f *flood) run() error {
	for i := 0; !f.broke; i++ {
		b := f.batches[i%floodBatches]
		if b.InFlight() {
			if err := f.take(b); err != nil {
				return err
			}
			if f.broke {
				break
			}
		}
		if err := f.c.Post(f.e.ctx, b); errors.Is(err, rdma.ErrClosed) {
			break
		} else if err != nil {
			return err
		}
		f.posted++
	}
	for i := range f.batches {
		// Oldest first is not needed any more: none may be missing.
		if b := f.batches[i]; b.InFlight() {
			if err := f.take(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// take wants exactly one completion: nil, or ErrBroken once and for all.
func (f *flood) take(b *rdma.Batch) error {
	err := f.c.Wait(f.e.ctx, b)
	switch {
	case err == nil:
		f.done += floodList
	case errors.Is(err, rdma.ErrBroken):
		f.broke = true
		f.unknown += floodList
	default:
		return fmt.Errorf("wait: %w", err)
	}
	if len(b.Done()) != 0 {
		return errors.New("a batch was completed twice")
	}
	return nil
}

func (f *flood) judge(sum uint64) {
	if sum < f.done || sum > f.done+f.unknown {
		f.e.Errorf("sum is %d, want %d to %d: acknowledged means done", sum, f.done, f.done+f.unknown)
	}
	for _, b := range f.batches {
		if b.InFlight() || len(b.Done()) != 0 {
			f.e.Error("a batch in flight, or completed twice")
		}
	}
}

// testPeerCloseInFlight lets the peer go away under load.
func testPeerCloseInFlight(e *env) {
	l := e.listen()
	for range trials(20, 3) {
		m, sink := e.alloc(8192), e.alloc(floodBatches*4096)
		r := e.register(m, 0, 8192, all)
		near, far := e.connect(l, rdma.ConnOptions{SendDepth: floodBatches * floodList})
		f := e.startFlood(near, r, sink)
		pause := time.Duration(e.rand.IntN(3000)) * time.Microsecond
		e.parallel(2, func(i int) error {
			if i == 0 {
				return f.run()
			}
			time.Sleep(pause)
			return far.Close()
		})
		e.broken("near", near)
		e.refusesPosts("near", near, r.Remote(0))
		if !errors.Is(near.Err(), rdma.ErrBroken) {
			e.Errorf("Err: %v, want ErrBroken", near.Err())
		}
		f.judge(m.Load(0))
		e.check(near.Close())
		if e.Failed() {
			return
		}
	}
}

// testCloseInFlight closes the end that posts, under load. When Close returns all batches are
// complete, and nothing writes into their memory any more.
func testCloseInFlight(e *env) {
	l := e.listen()
	for range trials(20, 3) {
		m, sink := e.alloc(8192), e.alloc(floodBatches*4096)
		r := e.register(m, 0, 8192, all)
		near, far := e.connect(l, rdma.ConnOptions{SendDepth: floodBatches * floodList})
		f := e.startFlood(near, r, sink)
		var closed atomic.Bool
		pause := time.Duration(e.rand.IntN(3000)) * time.Microsecond
		e.parallel(2, func(i int) error {
			if i == 0 {
				return f.run()
			}
			time.Sleep(pause)
			err := near.Close()
			closed.Store(true)
			fill(sink.Bytes(), 3)
			return err
		})
		want := make([]byte, sink.Len())
		fill(want, 3)
		settle()
		e.same("target of READs after Close", sink.Bytes(), want)
		e.refusesPosts("near", near, r.Remote(0))
		e.broken("far", far)
		f.judge(m.Load(0))
		e.check(far.Close())
		if e.Failed() {
			return
		}
	}
}

// testCloseIdle checks what both ends say after a Close without traffic, and that Close
// completes what nobody awaits.
func testCloseIdle(e *env) {
	near, far := e.pair()
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, all)
	e.works("before", near, m.Slice(0, 8), r.Remote(64))
	select {
	case <-near.Broken():
		e.Error("broken from the start")
	default:
	}
	if near.Err() != nil || near.RemoteAddr() == "" {
		e.Errorf("Err %v, RemoteAddr %q", near.Err(), near.RemoteAddr())
	}
	b := rdma.NewBatch(1)
	b.FetchAdd(r.Remote(0), 1)
	e.check(near.Post(e.ctx, b))
	e.check(near.Close())
	e.check(near.Close())
	over, cancel := context.WithCancel(e.ctx)
	cancel()
	if err := near.Wait(over, b); err != nil && !errors.Is(err, rdma.ErrBroken) {
		e.Errorf("after Close a batch is not complete: %v", err)
	}
	e.broken("near", near)
	e.broken("far", far)
	e.refusesPosts("near", near, r.Remote(0))
	e.refusesPosts("far", far, r.Remote(0))
	if !errors.Is(far.Err(), rdma.ErrBroken) {
		e.Errorf("far end: %v, want ErrBroken", far.Err())
	}
}

// testCloseReleasesPosters closes a connection while many wait for room in its queue.
func testCloseReleasesPosters(e *env) {
	l := e.listen()
	for range trials(20, 3) {
		near, far := e.connect(l, rdma.ConnOptions{SendDepth: 1})
		m := e.alloc(4096)
		r := e.register(m, 0, 4096, all)
		before := slices.Clone([]rdma.Conn{near, far})
		side := e.rand.IntN(2)
		e.parallel(9, func(i int) error {
			if i == 8 {
				time.Sleep(time.Millisecond)
				return before[side].Close()
			}
			b := rdma.NewBatch(1)
			for {
				b.Reset()
				b.FetchAdd(r.Remote(0), 1)
				switch err := near.Do(e.ctx, b); {
				case errors.Is(err, rdma.ErrClosed), errors.Is(err, rdma.ErrBroken):
					return nil
				case err != nil:
					return err
				}
			}
		})
	}
}
