package selftest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// The page of trial n holds in each word k the number n and its own place k. So of
// any word a reader can tell which trial wrote it, and that it stands where it should.
const (
	orderPage  = 4096
	orderDepth = 16 // lists in flight, each with its own page and word
)

// Sizes in bytes of the memory that Order needs: the target, what the writer writes from, and what a reader reads to.
const (
	OrderTarget = orderDepth * (orderPage + rdma.WordSize)
	OrderSource = orderDepth * orderPage
	OrderSink   = orderPage + rdma.WordSize
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

// Order looks for a CAS whose effect shows before the whole of the WRITE in front of it on the connection (rule R6).
// One writer keeps 16 lists of WRITE (up to 4 KiB) and CAS in flight, on memory that is zero; any number of watchers, by
// CPU where the memory lies and by READ from anywhere, look for a word that is ahead of its page.
// A page may be ahead of the word: the next trial is on its way.
//
// The memory holds the pages, and behind them the words; word s holds the number of the last trial published in page s.
type Order struct {
	Target rdma.Remote  // first byte of OrderTarget bytes
	Memory *rdma.Memory // the same, where it lies in this process from its first byte on; else nil
	done   atomic.Bool
}

func orderPageOff(slot int) int { return slot * orderPage }
func orderWordOff(slot int) int { return orderDepth*orderPage + slot*rdma.WordSize }

// Stop ends the watchers.
func (o *Order) Stop() { o.done.Store(true) }

// Write makes n trials on c, from source, which has OrderSource bytes. It checks that each CAS found the trial before it, and where the
// memory is at hand also the page at each completion.
func (o *Order) Write(ctx context.Context, c rdma.Conn, source *rdma.Memory, n int) error {
	var batches [orderDepth]*rdma.Batch
	for s := range batches {
		batches[s] = rdma.NewBatch(2)
	}
	for i := range n + orderDepth {
		s := i % orderDepth
		b := batches[s]
		if b.InFlight() {
			if err := o.finish(ctx, c, b, s, uint64(i-orderDepth+1)); err != nil {
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
		b.Write(source.Slice(s*orderPage, words*rdma.WordSize), o.Target.Add(uint64(orderPageOff(s))))
		b.CompareSwap(o.Target.Add(uint64(orderWordOff(s))), last, trial)
		if err := c.Post(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// finish awaits a trial: its CAS found the last one, and its page is complete.
func (o *Order) finish(ctx context.Context, c rdma.Conn, b *rdma.Batch, slot int, trial uint64) error {
	if err := c.Wait(ctx, b); err != nil {
		return err
	}
	if last := trial - min(trial, orderDepth); b.Old(1) != last {
		return fmt.Errorf("trial %d: CAS found %d, want %d", trial, b.Old(1), last)
	}
	if o.Memory == nil {
		return nil
	}
	return checkPage(o.Memory, orderPageOff(slot), trial, "at the completion")
}

// WatchByCPU polls the words in bursts, until Stop, and counts how often it saw one that was new to it. It sleeps between them: on a machine with one CPU
// the writer would otherwise get little of it.
func (o *Order) WatchByCPU() (fresh int, err error) {
	var last [orderDepth]uint64
	for !o.done.Load() {
		for burst := range 4 * orderDepth {
			s := burst % orderDepth
			trial := o.Memory.Load(orderWordOff(s))
			if trial == last[s] {
				continue
			}
			last[s] = trial
			fresh++
			if err := checkPage(o.Memory, orderPageOff(s), trial, "seen by the CPU"); err != nil {
				return fresh, err
			}
		}
		time.Sleep(20 * time.Microsecond)
	}
	return fresh, nil
}

// WatchByRead does so from a connection of its own: it READs word and page in one list, the word first. sink has OrderSink bytes.
func (o *Order) WatchByRead(ctx context.Context, c rdma.Conn, sink *rdma.Memory) (fresh int, err error) {
	var last [orderDepth]uint64
	b := rdma.NewBatch(2)
	for i := 0; !o.done.Load(); i++ {
		s := i % orderDepth
		b.Reset()
		b.Read(sink.Slice(orderPage, rdma.WordSize), o.Target.Add(uint64(orderWordOff(s))))
		b.Read(sink.Slice(0, orderPage), o.Target.Add(uint64(orderPageOff(s))))
		if err := c.Do(ctx, b); err != nil {
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
