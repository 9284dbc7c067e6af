package rdmatest

import (
	"fmt"
	"slices"

	"corfu/rdma"
)

// testAtomics adds to one word from several connections and both ends, in lists of
// several: the sum is exact and no old value is seen twice. One of the connections
// belongs to the process that owns the word: by rule R1 that is how its CPU competes.
func testAtomics(e *env) {
	l := e.listen()
	const conns, list = 4, 8
	n := trials(1500, 50)
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, rdma.RemoteAtomic)
	olds := make([][]uint64, 2*conns)
	var ends []rdma.Conn
	for range conns {
		near, far := e.connect(l, rdma.ConnOptions{})
		ends = append(ends, near, far)
	}
	e.parallel(len(ends), func(i int) error {
		b := rdma.NewBatch(list)
		for range n {
			b.Reset()
			for range list {
				b.FetchAdd(r.Remote(8), 1)
			}
			if err := ends[i].Do(e.ctx, b); err != nil {
				return err
			}
			for k := range list {
				olds[i] = append(olds[i], b.Old(k))
			}
			if !slices.IsSorted(olds[i][len(olds[i])-list:]) {
				return fmt.Errorf("list out of order: %v", olds[i][len(olds[i])-list:])
			}
		}
		return nil
	})
	total := uint64(2 * conns * n * list)
	if got := m.Load(8); got != total {
		e.Errorf("rule R1: word is %d, want %d", got, total)
	}
	every := slices.Concat(olds...)
	slices.Sort(every)
	for i, v := range every {
		if v != uint64(i) {
			e.Fatalf("rule R1: old values do not run from 0 to %d: %d stands at %d", total-1, v, i)
		}
	}
}

// testCompareSwapCounter counts with CAS on some connections and FETCH_ADD on others, on one word.
// A list of CASes bets on the values that would follow each other if nobody else counted.
func testCompareSwapCounter(e *env) {
	l := e.listen()
	const conns, list = 4, 16
	n := trials(10_000, 100)
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, rdma.RemoteAtomic)
	var ends []rdma.Conn
	for range conns {
		near, _ := e.connect(l, rdma.ConnOptions{})
		ends = append(ends, near)
	}
	counted := make([]uint64, conns)
	e.parallel(conns, func(i int) error {
		b := rdma.NewBatch(list)
		for is := uint64(0); counted[i] < uint64(n); {
			b.Reset()
			for k := range uint64(list) {
				if i == 0 {
					b.FetchAdd(r.Remote(0), 1)
				} else {
					b.CompareSwap(r.Remote(0), is+k, is+k+1)
				}
			}
			if err := ends[i].Do(e.ctx, b); err != nil {
				return err
			}
			for k := range list {
				old := b.Old(k)
				if old < is {
					return fmt.Errorf("rule R1: counter went back from %d to %d", is, old)
				}
				if is = old; i == 0 || old == b.Ops[k].Compare {
					counted[i]++
					is++
				}
			}
		}
		return nil
	})
	var want uint64
	for _, c := range counted {
		want += c
	}
	if got := m.Load(0); got != want {
		e.Errorf("rule R1: counter is %d, want %d", got, want)
	}
}

// testCompareSwapLock takes and gives back a lock, again and again, with many lists in flight: who
// took it finds itself the owner when it gives it back, and who did not does not.
func testCompareSwapLock(e *env) {
	l := e.listen()
	const conns, pairs, depth = 4, rdma.MaxBatch / 2, 4
	n := trials(2000, 50)
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, rdma.RemoteAtomic)
	var ends []rdma.Conn
	for range conns {
		near, _ := e.connect(l, rdma.ConnOptions{})
		ends = append(ends, near)
	}
	taken := make([]int, conns)
	e.parallel(conns, func(i int) error {
		me := uint64(i + 1)
		var ring [depth]*rdma.Batch
		for k := range ring {
			ring[k] = rdma.NewBatch(2 * pairs)
			for range pairs {
				ring[k].CompareSwap(r.Remote(0), 0, me)
				ring[k].CompareSwap(r.Remote(0), me, 0)
			}
		}
		for k := range n + depth {
			b := ring[k%depth]
			if b.InFlight() {
				if err := ends[i].Wait(e.ctx, b); err != nil {
					return err
				}
				got, err := judgeLock(b, me)
				if err != nil {
					return err
				}
				taken[i] += got
			}
			if k < n {
				if err := ends[i].Post(e.ctx, b); err != nil {
					return err
				}
			}
		}
		return nil
	})
	e.Logf("taken %v times, of %d tries each", taken, n*pairs)
	if m.Load(0) != 0 {
		e.Errorf("rule R1: the lock is left with %d", m.Load(0))
	}
}

// judgeLock checks each pair of CASes and counts how often me had the lock.
func judgeLock(b *rdma.Batch, me uint64) (taken int, err error) {
	for k := 0; k < len(b.Ops); k += 2 {
		before, after := b.Old(k), b.Old(k+1)
		if (before == 0) != (after == me) || before == me {
			return 0, fmt.Errorf("rule R1: %d took the lock from %d and gave it back from %d", me, before, after)
		}
		if before == 0 {
			taken++
		}
	}
	return taken, nil
}
