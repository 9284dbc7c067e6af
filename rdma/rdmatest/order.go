package rdmatest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// The page of trial n holds in each word k the number n and its own place k. So of
// any word a reader can tell which trial wrote it, and that it stands where it should.
const (
	orderPage  = 4096
	orderDepth = 16 // lists in flight, each with its own page and word
	// orderTrials is how many there are even where all other tests of races try a tenth as often.
	orderTrials = 100_000 / slowdown
)

// orderWords is how many words of its page a trial writes: the whole page one round in four, else 512 bytes, since most of the time
// goes into filling and comparing pages.
func orderWords(trial uint64) int {
	if trial/orderDepth%4 == 0 {
		return orderPage / rdma.WordSize
	}
	return 64
}

func orderWord(trial uint64, k int) uint64 { return trial<<16 | uint64(k) }

// order is the state of testPayloadBeforeCompareSwap: the pages, and behind them the
// words; word s holds the number of the last trial published in page s.
type order struct {
	e      *env
	target *rdma.Memory
	region rdma.Region
	done   atomic.Bool
}

func (o *order) pageOff(slot int) int { return slot * orderPage }
func (o *order) wordOff(slot int) int { return orderDepth*orderPage + slot*rdma.WordSize }

// testPayloadBeforeCompareSwap proves rule R6's ground: whoever sees the effect of a CAS sees
// the whole of the WRITE before it on the connection. A writer keeps 16 lists of
// WRITE (up to 4 KiB) and CAS in flight. The CPU of the target and a reader on a connection of
// its own, with READs of word and page in one list, look for a word that is ahead of its
// page; so does the writer at each completion. A page may be ahead of the
// word: the next trial is on its way.
func testPayloadBeforeCompareSwap(e *env) {
	l := e.listen()
	n := min(trials(1_000_000, 2000), orderTrials)
	o := &order{e: e, target: e.alloc(orderDepth * (orderPage + rdma.WordSize))}
	o.region = e.register(o.target, 0, o.target.Len(), all)
	source, sink := e.alloc(orderDepth*orderPage), e.alloc(orderPage+rdma.WordSize)
	writer, _ := e.connect(l, rdma.ConnOptions{})
	reader, _ := e.connect(l, rdma.ConnOptions{})

	var wg sync.WaitGroup
	var errs [2]error
	var fresh [2]int
	wg.Add(2)
	go func() { defer wg.Done(); fresh[0], errs[0] = o.watchByCPU() }()
	go func() { defer wg.Done(); fresh[1], errs[1] = o.watchByRead(reader, sink) }()
	start := time.Now()
	err := o.write(writer, source, n)
	took := time.Since(start)
	o.done.Store(true)
	wg.Wait()
	e.check(errors.Join(err, errs[0], errs[1]))
	e.Logf("%d trials in %v, seen fresh by the CPU %d times, by READ %d times", n, took.Round(time.Millisecond), fresh[0], fresh[1])
	if fresh[0] == 0 || fresh[1] == 0 {
		e.Error("an observer saw nothing")
	}
}

func (o *order) write(c rdma.Conn, source *rdma.Memory, n int) error {
	var batches [orderDepth]*rdma.Batch
	for s := range batches {
		batches[s] = rdma.NewBatch(2)
	}
	for i := range n + orderDepth {
		s := i % orderDepth
		b := batches[s]
		if b.InFlight() {
			if err := o.finish(c, b, s, uint64(i-orderDepth+1)); err != nil {
				return err
			}
		}
		if i >= n {
			continue
		}
		trial := uint64(i + 1)
		last := trial - min(trial, orderDepth)
		words := orderWords(trial)
		for k := range words {
			source.Store(s*orderPage+k*rdma.WordSize, orderWord(trial, k))
		}
		b.Reset()
		b.Write(source.Slice(s*orderPage, words*rdma.WordSize), o.region.Remote(o.pageOff(s)))
		b.CompareSwap(o.region.Remote(o.wordOff(s)), last, trial)
		if err := c.Post(o.e.ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// finish awaits a trial: its CAS found the last one, and its page is complete.
func (o *order) finish(c rdma.Conn, b *rdma.Batch, slot int, trial uint64) error {
	if err := c.Wait(o.e.ctx, b); err != nil {
		return err
	}
	if last := trial - min(trial, orderDepth); b.Old(1) != last {
		return fmt.Errorf("trial %d: CAS found %d, want %d", trial, b.Old(1), last)
	}
	return checkPage(o.target, o.pageOff(slot), trial, "at the completion")
}

// watchByCPU polls the words in bursts. It sleeps between them: on a machine with one CPU
// the writer would otherwise get little of it.
func (o *order) watchByCPU() (fresh int, err error) {
	var last [orderDepth]uint64
	for !o.done.Load() {
		for burst := range 4 * orderDepth {
			s := burst % orderDepth
			trial := o.target.Load(o.wordOff(s))
			if trial == last[s] {
				continue
			}
			last[s] = trial
			fresh++
			if err := checkPage(o.target, o.pageOff(s), trial, "seen by the CPU"); err != nil {
				return fresh, err
			}
		}
		time.Sleep(20 * time.Microsecond)
	}
	return fresh, nil
}

// watchByRead READs word and page in one list, the word first.
func (o *order) watchByRead(c rdma.Conn, sink *rdma.Memory) (fresh int, err error) {
	var last [orderDepth]uint64
	b := rdma.NewBatch(2)
	for i := 0; !o.done.Load(); i++ {
		s := i % orderDepth
		b.Reset()
		b.Read(sink.Slice(orderPage, rdma.WordSize), o.region.Remote(o.wordOff(s)))
		b.Read(sink.Slice(0, orderPage), o.region.Remote(o.pageOff(s)))
		if err := c.Do(o.e.ctx, b); err != nil {
			return fresh, err
		}
		trial := sink.Load(orderPage)
		if trial == last[s] {
			continue
		}
		last[s] = trial
		fresh++
		if err := checkPage(sink, 0, trial, "seen by READ"); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// checkPage wants every word that the given trial wrote from it or a later one.
func checkPage(m *rdma.Memory, off int, trial uint64, when string) error {
	for k := range orderWords(trial) {
		w := m.Load(off + k*rdma.WordSize)
		if w < orderWord(trial, k) || w&0xffff != uint64(k) {
			return fmt.Errorf("rule R6: trial %d %s: word %d of the page is of trial %d, place %d", trial, when, k, w>>16, w&0xffff)
		}
	}
	return nil
}
