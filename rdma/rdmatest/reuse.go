package rdmatest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"corfu/rdma"
)

// An index word as the design draws it: state (4 bits), generation (24), tag (36).
// Only what these tests need stands here; internal/wire has the real codec.
const (
	stateEmpty   = 1
	stateWritten = 2
)

func emptyWord(gen, epoch uint64) uint64 { return stateEmpty<<60 | gen<<36 | epoch }
func writtenWord(gen, tag uint64) uint64 { return stateWritten<<60 | gen<<36 | tag }
func staleTag(writer, try uint64) uint64 { return writer<<28 | try&(1<<28-1) }

const indexWords = 64

// index is a unit's index region: the epoch word, then the words of its window.
type index struct {
	e      *env
	mem    *rdma.Memory
	region rdma.Region
	key    rdma.RKey
	epoch  uint64
}

// open does what rule R18 asks: rewrite every empty word to the new epoch, set the epoch
// word, and only then register. The device must give the old key again.
func (x *index) open(epoch uint64) error {
	x.epoch = epoch
	x.mem.Store(0, epoch)
	for a := range indexWords {
		off := rdma.WordSize * (1 + a)
		if w := x.mem.Load(off); w == 0 || w>>60 == stateEmpty {
			x.mem.Store(off, emptyWord(0, epoch))
		}
	}
	r, err := x.e.dev.Register(x.mem, 0, x.mem.Len(), rdma.RemoteRead|rdma.RemoteAtomic)
	if err != nil {
		return err
	}
	if x.region != nil && r.Key() != x.key {
		return errors.Join(fmt.Errorf("key %#x, then %#x: the device does not reuse keys, so this test shows nothing", x.key, r.Key()), r.Close())
	}
	x.region, x.key = r, r.Key()
	return nil
}

func (e *env) openIndex(epoch uint64) *index {
	x := &index{e: e, mem: e.alloc(rdma.WordSize * (1 + indexWords))}
	e.check(x.open(epoch))
	e.onClose(2, func() error { return x.region.Close() })
	return x
}

func (x *index) load(a int) uint64 { return x.mem.Load(rdma.WordSize * (1 + a)) }

func (x *index) word(a int) rdma.Remote { return x.region.Remote(rdma.WordSize * (1 + a)) }

// testStaleWriter seals and opens an index under a writer that does not notice: its connection
// stands and its key is good again. Its CAS fails by value, since the epoch is in what it compares.
func testStaleWriter(e *env) {
	stale, _ := e.pair()
	fresh, _ := e.pair()
	for epoch := uint64(1); epoch < 50; epoch++ {
		e.staleRoundIdle(stale, fresh, epoch)
	}
}

func (e *env) staleRoundIdle(stale, fresh rdma.Conn, epoch uint64) {
	x := e.openIndex(epoch)
	const before, after = 2, 3 // words written before and after the seal
	entry := writtenWord(0, epoch<<12|1)
	e.do(stale, func(b *rdma.Batch) { b.CompareSwap(x.word(before), emptyWord(0, epoch), entry) })
	at := x.word(after)
	e.check(x.region.Close())
	e.check(x.open(epoch + 1))

	empty := emptyWord(0, epoch+1)
	b := e.do(stale, func(b *rdma.Batch) { b.CompareSwap(at, emptyWord(0, epoch), writtenWord(0, epoch<<12|2)) })
	if b.Old(0) != empty || x.load(after) != empty {
		e.Fatalf("rule R18: stale CAS found %#x and left %#x, want %#x both times", b.Old(0), x.load(after), empty)
	}
	if x.load(before) != entry {
		e.Fatalf("rule R18: the entry of epoch %d became %#x", epoch, x.load(before))
	}
	entry = writtenWord(0, epoch<<12|3)
	b = e.do(fresh, func(b *rdma.Batch) { b.CompareSwap(at, empty, entry) })
	if b.Old(0) != empty || x.load(after) != entry {
		e.Fatalf("CAS of the right epoch found %#x and left %#x", b.Old(0), x.load(after))
	}
	e.check(x.region.Close())
}

// testStaleWritersUnderLoad seals and opens an index while writers of the old epoch
// send CASes without pause. Some are refused by the dead key and lose their connection, some
// arrive under the key that is good again: none takes effect after the seal.
func testStaleWritersUnderLoad(e *env) {
	l := e.listen()
	byKey, byValue := 0, 0
	for round := range trials(100, 5) {
		k, v := e.staleRound(l, uint64(round+1))
		byKey, byValue = byKey+k, byValue+v
		if e.Failed() {
			return
		}
	}
	e.Logf("writers refused by key %d, CASes refused by value %d", byKey, byValue)
	if byValue == 0 {
		e.Error("no CAS came under the reused key")
	}
}

func (e *env) staleRound(l rdma.Listener, epoch uint64) (byKey, byValue int) {
	const writers = 4
	x := e.openIndex(epoch)
	var words [indexWords]rdma.Remote
	for a := range words {
		words[a] = x.word(a)
	}
	var stop atomic.Bool
	var keys, values atomic.Int64
	snapshot := make([]uint64, indexWords)
	conns := make([]rdma.Conn, writers)
	for i := range conns {
		conns[i], _ = e.connect(l, rdma.ConnOptions{})
	}
	e.parallel(writers+1, func(i int) error {
		if i == writers {
			defer stop.Store(true)
			time.Sleep(time.Duration(epoch%10) * 100 * time.Microsecond)
			if err := x.region.Close(); err != nil {
				return err
			}
			for a := range snapshot {
				snapshot[a] = x.load(a)
			}
			if err := x.open(epoch + 1); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond)
			return nil
		}
		b := rdma.NewBatch(8)
		for try := uint64(0); !stop.Load(); {
			b.Reset()
			for range 8 {
				b.CompareSwap(words[spread(i, try)], emptyWord(0, epoch), writtenWord(0, staleTag(uint64(i), try)))
				try++
			}
			err := conns[i].Do(e.ctx, b)
			if errors.Is(err, rdma.ErrRemoteAccess) || errors.Is(err, rdma.ErrBroken) {
				keys.Add(1)
				return nil
			}
			if err != nil {
				return err
			}
			for k := range 8 {
				if b.Old(k) == emptyWord(0, epoch+1) {
					values.Add(1)
				}
			}
		}
		return nil
	})
	settle()
	for a, want := range snapshot {
		if want == emptyWord(0, epoch) {
			want = emptyWord(0, epoch+1)
		}
		if got := x.load(a); got != want {
			e.Errorf("rule R18: epoch %d, word %d: %#x at the seal, %#x now, want %#x", epoch, a, snapshot[a], got, want)
		}
	}
	for _, c := range conns {
		e.check(c.Close())
	}
	e.check(x.region.Close())
	return int(keys.Load()), int(values.Load())
}

// spread lets a writer come to new words slowly, so that some are still empty when the seal comes.
func spread(writer int, try uint64) int { return (writer*16 + int(try/64)) % indexWords }
