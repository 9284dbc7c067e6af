package rdmatest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"corfu/rdma"
	"corfu/rdma/selftest"
)

const revokeWriters = 3

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
	target, source := e.alloc(revokeWriters*selftest.RevokeArea), e.alloc(selftest.RevokePage)
	r, err := e.dev.Register(target, 0, target.Len(), all)
	e.check(err)
	writers := make([]*selftest.RevokeWriter, revokeWriters)
	owners := make([]rdma.Conn, revokeWriters)
	for i := range writers {
		near, far := e.connect(l, rdma.ConnOptions{})
		writers[i], owners[i] = &selftest.RevokeWriter{Conn: near, Area: r.Remote(i * selftest.RevokeArea), Source: source}, far
	}
	snapshot := make(chan []byte, 1)
	pause := time.Duration(e.rand.IntN(4000)) * time.Microsecond
	e.parallel(revokeWriters+1, func(i int) error {
		if i < revokeWriters {
			return writers[i].Run(e.ctx)
		}
		time.Sleep(pause)
		err := r.Close()
		snapshot <- slices.Clone(target.Bytes())
		return err
	})
	settle()
	e.same(fmt.Sprintf("rule R15, round %d: memory after Region.Close", round), target.Bytes(), <-snapshot)
	for i, w := range writers {
		e.broken("writer's", w.Conn)
		e.broken("owner's", owners[i])
		if err := w.Judge(target.Load(i * selftest.RevokeArea)); err != nil {
			e.Errorf("writer %d: %v", i, err)
		}
		e.check(w.Conn.Close())
		e.check(owners[i].Close())
	}
	e.check(r.Close())
	e.check(target.Close())
	e.check(source.Close())
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
