package rdmatest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"corfu/rdma"
)

// Layout of the region that is revoked: for each writer a word that it adds to, one that it
// compares and swaps, and a page.
const (
	revokeWriters = 3
	revokeDepth   = 16
	revokePage    = 4096
	revokeArea    = 2*rdma.WordSize + revokePage
)

// testRevokeUnderLoad proves rule R15's ground: writers keep many lists in flight; after
// Region.Close returned the memory never changes again. All writers end with a refusal
// or a broken connection, what was acknowledged is there, and what was refused is not.
func testRevokeUnderLoad(e *env) {
	l := e.listen()
	rounds := trials(100, 5)
	for round := range rounds {
		e.revokeRound(l, round)
		if e.Failed() {
			return
		}
	}
}

func (e *env) revokeRound(l rdma.Listener, round int) {
	target, source := e.alloc(revokeWriters*revokeArea), e.alloc(revokePage)
	r, err := e.dev.Register(target, 0, target.Len(), all)
	e.check(err)
	writers := make([]*revokeWriter, revokeWriters)
	for i := range writers {
		w := &revokeWriter{e: e, id: i, r: r, source: source}
		w.near, w.far = e.connect(l, rdma.ConnOptions{})
		writers[i] = w
	}
	snapshot := make(chan []byte, 1)
	pause := time.Duration(e.rand.IntN(4000)) * time.Microsecond
	e.parallel(revokeWriters+1, func(i int) error {
		if i < revokeWriters {
			return writers[i].run()
		}
		time.Sleep(pause)
		err := r.Close()
		snapshot <- slices.Clone(target.Bytes())
		return err
	})
	settle()
	e.same(fmt.Sprintf("rule R15, round %d: memory after Region.Close", round), target.Bytes(), <-snapshot)
	for i, w := range writers {
		e.broken("writer's", w.near)
		e.broken("owner's", w.far)
		w.judge(target.Load(i * revokeArea))
		e.check(w.near.Close())
		e.check(w.far.Close())
	}
	e.check(r.Close())
	e.check(target.Close())
	e.check(source.Close())
}

// revokeWriter posts lists of FETCH_ADD, WRITE, CAS until its connection breaks.
type revokeWriter struct {
	e         *env
	id        int
	r         rdma.Region
	source    *rdma.Memory
	near, far rdma.Conn

	done    uint64 // lists that succeeded
	refused int    // lists of which the FETCH_ADD certainly took effect or certainly did not
	unknown uint64 // lists whose FETCH_ADD may have taken effect
}

func (w *revokeWriter) run() error {
	base := w.id * revokeArea
	ring := make([]*rdma.Batch, revokeDepth)
	for i := range ring {
		ring[i] = rdma.NewBatch(3)
	}
	for i := 0; ; i++ {
		b := ring[i%revokeDepth]
		if b.InFlight() {
			if broke, err := w.take(b); broke || err != nil {
				return errors.Join(err, w.drain(ring, i+1))
			}
		}
		b.Reset()
		b.FetchAdd(w.r.Remote(base), 1)
		b.Write(w.source.Slice(0, revokePage), w.r.Remote(base+2*rdma.WordSize))
		b.CompareSwap(w.r.Remote(base+rdma.WordSize), uint64(i), uint64(i+1))
		if err := w.near.Post(w.e.ctx, b); errors.Is(err, rdma.ErrClosed) {
			return w.drain(ring, i+1)
		} else if err != nil {
			return errors.Join(fmt.Errorf("writer %d: post: %w", w.id, err), w.drain(ring, i+1))
		}
	}
}

// drain takes what is in flight, the oldest of it at i first.
func (w *revokeWriter) drain(ring []*rdma.Batch, i int) error {
	for k := range ring {
		if b := ring[(i+k)%revokeDepth]; b.InFlight() {
			if _, err := w.take(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// take awaits a list and notes what is known of it.
func (w *revokeWriter) take(b *rdma.Batch) (broke bool, err error) {
	err = w.near.Wait(w.e.ctx, b)
	var op *rdma.OpError
	switch {
	case err == nil:
		w.done++
	case !errors.As(err, &op):
		return true, fmt.Errorf("writer %d: wait: %w", w.id, err)
	case errors.Is(err, rdma.ErrRemoteAccess):
		w.refused++
		if op.Index > 0 {
			w.done++ // what stands before a refused operation took effect
		}
	case errors.Is(err, rdma.ErrBroken):
		w.unknown++
	default:
		return true, fmt.Errorf("writer %d: wait: %w", w.id, err)
	}
	return err != nil, nil
}

// judge compares the sum in memory with what the writer knows.
func (w *revokeWriter) judge(sum uint64) {
	if sum < w.done || sum > w.done+w.unknown {
		w.e.Errorf("writer %d: sum is %d, want %d to %d: acknowledged means done, refused means not done",
			w.id, sum, w.done, w.done+w.unknown)
	}
	if w.refused > 1 {
		w.e.Errorf("writer %d: %d lists refused; after the first the connection is broken", w.id, w.refused)
	}
}

// testRevokeIdle revokes while nobody writes; the connection breaks when it is next used.
func testRevokeIdle(e *env) {
	near, far := e.pair()
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, all)
	e.do(near, func(b *rdma.Batch) { b.FetchAdd(r.Remote(0), 1) })
	at := r.Remote(0)
	e.check(r.Close())
	e.check(r.Close())
	b := rdma.NewBatch(1)
	b.FetchAdd(at, 1)
	if err := near.Do(e.ctx, b); !errors.Is(err, rdma.ErrRemoteAccess) {
		e.Errorf("FETCH_ADD under a revoked key: %v, want ErrRemoteAccess", err)
	}
	e.broken("near", near)
	e.broken("far", far)
	if m.Load(0) != 1 {
		e.Errorf("rule R15: word is %d, want 1", m.Load(0))
	}
}

// testRevokeOneOfTwo closes one of two regions over the same memory: the other serves on.
func testRevokeOneOfTwo(e *env) {
	l := e.listen()
	a, _ := e.connect(l, rdma.ConnOptions{})
	b, _ := e.connect(l, rdma.ConnOptions{})
	m := e.alloc(8192)
	one, two := e.register(m, 0, 4096, all), e.register(m, 0, 4096, all)
	if one.Key() == two.Key() {
		e.Fatal("two open regions with one key")
	}
	e.works("first region", a, m.Slice(4096, 8), one.Remote(0))
	e.works("second region", b, m.Slice(4096, 8), two.Remote(0))
	e.check(one.Close())
	e.works("second region", b, m.Slice(4096, 8), two.Remote(0))
	e.works("second region, other connection", a, m.Slice(4096, 8), two.Remote(0))
}
