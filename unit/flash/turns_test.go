package flash

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"corfu/layout"
)

// gated is a segment file whose reads and writes arrive at the test, and end when it says so.
type gated struct {
	File
	reads, writes chan chan struct{}
}

func (f gated) Read(b []byte, off int64) error {
	if off < 16*4096 { // not the trims of the segment, which stand behind its pages
		pass(f.reads)
	}
	return f.File.Read(b, off)
}

func (f gated) Write(bufs [][]byte, off int64, sync bool) error {
	if sync { // not the zeros
		pass(f.writes)
	}
	return f.File.Write(bufs, off, sync)
}

func pass(gate chan chan struct{}) {
	if gate == nil {
		return
	}
	c := make(chan struct{})
	gate <- c
	<-c
}

// gatedStore has page 0; the gates work from now on.
func gatedStore(t *testing.T, reads, beside int) (s *Store, g gated) {
	t.Helper()
	g = gated{reads: make(chan chan struct{}, 100), writes: make(chan chan struct{}, 100)}
	dir := t.TempDir()
	plain := open(t, dir, Options{SegmentPages: 16})
	must(t, plain.UpdateMeta(func(m *Meta) { m.Log, m.Layout = LogID(testLog), testLayout(4096) }))
	must(t, plain.Write([]Page{page(0, 0)}))
	must(t, plain.Close())
	s = open(t, dir, Options{Reads: reads, ReadsBesideWrites: beside,
		Wrap: func(_ string, f File) File { return gated{f, g.reads, g.writes} }})
	return s, g
}

// have is how the turns stand.
type have struct{ reading, writing, waiting int }

func (s *Store) have() have {
	s.turns.mu.Lock()
	defer s.turns.mu.Unlock()
	return have{s.turns.reading, s.turns.writing, len(s.turns.waiting)}
}

// wantTurns waits until the turns stand so, and n reads are on the disk.
func wantTurns(t *testing.T, s *Store, want have, onDisk chan chan struct{}, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		got := s.have()
		if got == want && len(onDisk) == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("turns are %+v with %d reads on the disk, want %+v with %d", got, len(onDisk), want, n)
		}
	}
}

func start(t *testing.T, wg *sync.WaitGroup, fn func() error) {
	wg.Go(func() {
		if err := fn(); err != nil {
			t.Error(err)
		}
	})
}

// A flood of reads leaves the disk to a write but for a few; those few go on for as long as the write takes.
func TestWriteHoldsBackReadsAndDoesNotStopThem(t *testing.T) {
	s, g := gatedStore(t, 8, 2)
	var wg sync.WaitGroup
	read := func() error { return s.ReadPage(0, make([]byte, 4096)) }
	start(t, &wg, func() error { return s.Write([]Page{page(1, 0)}) })
	write := <-g.writes
	for range 20 {
		start(t, &wg, read)
	}
	wantTurns(t, s, have{2, 1, 18}, g.reads, 2)
	for i := range 5 { // each that ends lets one in, and no more
		close(<-g.reads)
		wantTurns(t, s, have{2, 1, 17 - i}, g.reads, 2)
	}
	close(write)
	wantTurns(t, s, have{8, 0, 7}, g.reads, 8)
	start(t, &wg, func() error { return s.Write([]Page{page(2, 0)}) })
	write = <-g.writes
	for i := range 6 { // what has its turn keeps it; none is given until there are few again
		close(<-g.reads)
		wantTurns(t, s, have{7 - i, 1, 7}, g.reads, 7-i)
	}
	close(<-g.reads)
	wantTurns(t, s, have{2, 1, 6}, g.reads, 2)
	close(write)
	wantTurns(t, s, have{8, 0, 0}, g.reads, 8)
	for range 8 {
		close(<-g.reads)
	}
	wg.Wait()
	wantTurns(t, s, have{}, g.reads, 0)
}

// Writes end while every read that may be on the disk hangs there.
func TestWriteDoesNotWaitForReads(t *testing.T) {
	s, g := gatedStore(t, 4, 1)
	var wg sync.WaitGroup
	for range 9 {
		start(t, &wg, func() error { return s.ReadPage(0, make([]byte, 4096)) })
	}
	wantTurns(t, s, have{4, 0, 5}, g.reads, 4)
	for a := range layout.Address(3) {
		start(t, &wg, func() error { return s.Write([]Page{page(a, 1)}) })
		close(<-g.writes)
	}
	wantTurns(t, s, have{4, 0, 5}, g.reads, 4)
	for range 9 {
		close(<-g.reads)
	}
	wg.Wait()
}

// Turns come in the order of arrival, and those who come while others wait do not pass them.
func TestReadsTakeTurnsInOrder(t *testing.T) {
	x := &turns{all: 1, beside: 1}
	x.take()
	got := make(chan int, 5)
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			x.take()
			got <- i
			x.give()
		})
		for {
			x.mu.Lock()
			n := len(x.waiting)
			x.mu.Unlock()
			if n == i+1 {
				break
			}
			runtime.Gosched()
		}
	}
	x.give()
	wg.Wait()
	for i := range 5 {
		if n := <-got; n != i {
			t.Fatalf("turn %d went to %d", i, n)
		}
	}
}

// Neither a read nor a write allocates, alone or in a batch with gaps.
func TestReadsAndWritesAllocateNothing(t *testing.T) {
	s := ready(t, Options{Workers: 1})
	lone, batch := []Page{page(0, 0)}, []Page{page(1, 0), page(2, 0), page(5, 0)}
	b := alignedBytes(4096)
	n := testing.AllocsPerRun(50, func() {
		must(t, s.Write(lone))
		must(t, s.Write(batch))
		must(t, s.ReadPage(2, b))
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
