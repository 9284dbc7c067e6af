package rdmatest

import (
	"bytes"
	"fmt"
	"sync"

	"corfu/rdma"
)

// sizes of transfers: below and above an inline message, a path MTU and a socket buffer, odd ones too.
var sizes = []int{1, 7, 8, 64, 65, 1000, 4096, 4097, 65_536, 65_537, 1 << 20, 3<<20 + 5}

func testWrite(e *env) {
	near, _ := e.pair()
	src, dst := e.alloc(4<<20), e.alloc(4<<20)
	r := e.register(dst, 0, dst.Len(), rdma.RemoteWrite)
	want := make([]byte, dst.Len())
	for i, n := range sizes {
		off := 3 * i
		fill(src.Bytes()[:n], uint64(n))
		e.do(near, func(b *rdma.Batch) { b.Write(src.Slice(0, n), r.Remote(off)) })
		copy(want[off:], src.Bytes()[:n])
		e.same(fmt.Sprintf("after WRITE of %d bytes at %d", n, off), dst.Bytes(), want)
	}
}

func testRead(e *env) {
	near, _ := e.pair()
	src, dst := e.alloc(4<<20), e.alloc(4<<20)
	fill(src.Bytes(), 1)
	r := e.register(src, 0, src.Len(), rdma.RemoteRead)
	want := make([]byte, dst.Len())
	for i, n := range sizes {
		off := 5 * i
		e.do(near, func(b *rdma.Batch) { b.Read(dst.Slice(i, n), r.Remote(off)) })
		copy(want[i:], src.Bytes()[off:off+n])
		e.same(fmt.Sprintf("after READ of %d bytes at %d", n, off), dst.Bytes(), want)
	}
}

func testCompareSwap(e *env) {
	near, _ := e.pair()
	m := e.alloc(4096)
	r := e.register(m, 64, 1024, rdma.RemoteAtomic)
	for _, s := range []struct{ was, compare, swap, is uint64 }{
		{0, 0, 7, 7},
		{7, 8, 9, 7},
		{1 << 63, 1 << 63, 1<<64 - 1, 1<<64 - 1},
		{0x0102030405060708, 0x0102030405060708, 0x1112131415161718, 0x1112131415161718},
		{0x0102030405060708, 0x0807060504030201, 1, 0x0102030405060708},
	} {
		m.Store(72, s.was)
		b := e.do(near, func(b *rdma.Batch) { b.CompareSwap(r.Remote(8), s.compare, s.swap) })
		if b.Old(0) != s.was || m.Load(72) != s.is || m.Load(64) != 0 || m.Load(80) != 0 {
			e.Errorf("CAS(%#x → %#x) on %#x: old %#x, word %#x, neighbours %#x %#x",
				s.compare, s.swap, s.was, b.Old(0), m.Load(72), m.Load(64), m.Load(80))
		}
	}
}

func testFetchAdd(e *env) {
	near, _ := e.pair()
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, rdma.RemoteAtomic)
	for _, s := range []struct{ was, add, is uint64 }{
		{0, 1, 1},
		{5, 1 << 48, 1<<48 + 5},
		{1<<64 - 1, 2, 1}, // wraps, carries nothing into a neighbour
		{9, 1<<64 - 1, 8},
		{3, 0, 3},
	} {
		m.Store(4088, s.was)
		b := e.do(near, func(b *rdma.Batch) { b.FetchAdd(r.Remote(4088), s.add) })
		if b.Old(0) != s.was || m.Load(4088) != s.is || m.Load(4080) != 0 {
			e.Errorf("FETCH_ADD(%#x) on %#x: old %#x, word %#x, neighbour %#x", s.add, s.was, b.Old(0), m.Load(4088), m.Load(4080))
		}
	}
}

// testListOrder posts a list of which each operation depends on the one before.
func testListOrder(e *env) {
	near, _ := e.pair()
	local, remote := e.alloc(1<<20), e.alloc(1<<20)
	r := e.register(remote, 0, remote.Len(), all)
	local.Store(0, 40)
	local.Store(8, 100)
	for range 200 {
		b := e.do(near, func(b *rdma.Batch) {
			b.Write(local.Slice(0, 8), r.Remote(0))  // 40
			b.FetchAdd(r.Remote(0), 2)               // 42
			b.CompareSwap(r.Remote(0), 42, 50)       // 50
			b.CompareSwap(r.Remote(0), 42, 60)       // still 50
			b.Read(local.Slice(64, 8), r.Remote(0))  // 50
			b.Write(local.Slice(8, 8), r.Remote(0))  // 100
			b.FetchAdd(r.Remote(0), 1)               // 101
			b.Read(local.Slice(128, 8), r.Remote(0)) // 101
		})
		got := []uint64{b.Old(1), b.Old(2), b.Old(3), local.Load(64), b.Old(6), local.Load(128), remote.Load(0)}
		want := []uint64{40, 42, 50, 50, 100, 101, 101}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			e.Fatalf("old values and READs: %v, want %v", got, want)
		}
	}
}

// testBatchReuse posts the same batch again and again, with lists of changing length.
func testBatchReuse(e *env) {
	near, _ := e.pair()
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, all)
	b := rdma.NewBatch(1)
	var sum uint64
	for i := range 300 {
		b.Reset()
		n := i%rdma.MaxBatch + 1
		for range n {
			b.FetchAdd(r.Remote(0), 1)
		}
		e.check(near.Do(e.ctx, b))
		if b.InFlight() || b.Result() != nil || len(b.Done()) != 0 {
			e.Fatalf("after Do: in flight %v, result %v, %d completions left", b.InFlight(), b.Result(), len(b.Done()))
		}
		for k := range n {
			if b.Old(k) != sum {
				e.Fatalf("list %d, operation %d: old %d, want %d", i, k, b.Old(k), sum)
			}
			sum++
		}
	}
}

// testBothEndsPost floods a connection from both ends: neither may wait for the other.
func testBothEndsPost(e *env) {
	near, far := e.pair()
	const size, pages = 64 << 10, 8
	n := trials(200, 20)
	remote, local := e.alloc(2*pages*size), e.alloc(4*pages*size)
	r := e.register(remote, 0, remote.Len(), all)
	ends := []rdma.Conn{near, far}
	e.parallel(2*pages, func(i int) error {
		c := ends[i%2]
		src, dst, at := local.Slice(i*size, size), local.Slice((2*pages+i)*size, size), r.Remote(i*size)
		fill(src.Bytes(), uint64(i))
		b := rdma.NewBatch(2)
		for k := range n {
			b.Reset()
			src.Bytes()[k%size]++
			b.Write(src, at)
			b.Read(dst, at)
			if err := c.Do(e.ctx, b); err != nil {
				return err
			}
			if !bytes.Equal(src.Bytes(), dst.Bytes()) {
				return fmt.Errorf("page %d, round %d: read another page than written", i, k)
			}
		}
		return nil
	})
}

// testManyGoroutines lets many share one connection, each with its own batch.
func testManyGoroutines(e *env) {
	near, _ := e.connect(e.listen(), rdma.ConnOptions{SendDepth: 32})
	const workers, page = 32, 512
	n := trials(300, 30)
	remote, local := e.alloc(workers*page+8), e.alloc(2*workers*page)
	r := e.register(remote, 0, workers*page+8, all)
	counter := r.Remote(workers * page)
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	e.parallel(workers, func(i int) error {
		src, dst := local.Slice(2*i*page, page), local.Slice((2*i+1)*page, page)
		b := rdma.NewBatch(3)
		for k := range n {
			fill(src.Bytes(), uint64(i*n+k))
			b.Reset()
			b.Write(src, r.Remote(i*page))
			b.FetchAdd(counter, 1)
			b.Read(dst, r.Remote(i*page))
			if err := near.Do(e.ctx, b); err != nil {
				return err
			}
			if !bytes.Equal(src.Bytes(), dst.Bytes()) {
				return fmt.Errorf("worker %d, round %d: read another page than written", i, k)
			}
			mu.Lock()
			twice := seen[b.Old(1)]
			seen[b.Old(1)] = true
			mu.Unlock()
			if twice {
				return fmt.Errorf("old value %d twice", b.Old(1))
			}
		}
		return nil
	})
	if got := remote.Load(workers * page); got != uint64(workers*n) {
		e.Errorf("counter is %d, want %d", got, workers*n)
	}
}
