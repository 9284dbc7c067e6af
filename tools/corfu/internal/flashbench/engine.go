// Package flashbench measures the flash engine beside fio on the same directory: the unit's core and its
// store with flushers as the unit server has them, and no network.
package flashbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
	"corfu/unit"
	"corfu/unit/flash"
)

const (
	pageSize = 4096
	slots    = 64
)

var logID = layout.LogID{0xbe}

func theLayout() *layout.Layout {
	return &layout.Layout{Log: logID, Epoch: 1,
		Geometry:  layout.Geometry{PageSize: pageSize, Window: 4096, SessionSlots: slots, MaxSessions: 1},
		Sequencer: layout.Sequencer{ID: 1, Control: "-"}, Units: []layout.Unit{{ID: 1, Control: "-"}},
		Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1}}}}}}
}

// memory is unit.Memory without a fabric.
type memory struct {
	words         []wire.Word
	ring, staging []byte
}

func newMemory(g layout.Geometry) (*memory, error) {
	m := &memory{words: make([]wire.Word, g.Window)}
	var err error
	if m.ring, err = mmap(g.Window * g.PageSize); err == nil {
		m.staging, err = mmap(slots * g.PageSize)
	}
	return m, err
}

// mmap gives memory aligned as the fabric's is.
func mmap(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
}

func (m *memory) close() error { return errors.Join(unix.Munmap(m.ring), unix.Munmap(m.staging)) }

// LoadWord implements unit.Memory.
func (m *memory) LoadWord(slot int) wire.Word { return m.words[slot] }

// StoreWord implements unit.Memory.
func (m *memory) StoreWord(slot int, w wire.Word) { m.words[slot] = w }

// StoreEpoch implements unit.Memory.
func (m *memory) StoreEpoch(layout.Epoch) {}

// Ring implements unit.Memory.
func (m *memory) Ring() []byte { return m.ring }

// Staging implements unit.Memory.
func (m *memory) Staging(s wire.StagingSlot) []byte {
	return m.staging[int(s)*pageSize : (int(s)+1)*pageSize]
}

// Engine is a unit without a network.
type Engine struct {
	store   *flash.Store
	mem     *memory
	u       *unit.Unit
	lay     *layout.Layout
	next    layout.Address
	began   map[layout.Address]time.Time
	free    []wire.StagingSlot
	batches chan *unit.Batch
	flushed chan *unit.Batch
	err     error
	wg      sync.WaitGroup
}

// OpenEngine opens the engine on a directory, with what stands there.
func OpenEngine(dir string) (*Engine, error) {
	e := &Engine{lay: theLayout(), began: map[layout.Address]time.Time{},
		batches: make(chan *unit.Batch, unit.MaxInFlight), flushed: make(chan *unit.Batch, unit.MaxInFlight)}
	var err error
	if e.store, err = flash.Open(dir, 1, flash.Options{}, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	if e.mem, err = newMemory(e.lay.Geometry); err != nil {
		return nil, err
	}
	meta := e.store.Meta()
	if meta.Layout == nil {
		if err := e.store.UpdateMeta(func(m *flash.Meta) { m.Log, m.Promise, m.Layout = flash.LogID(logID), 1, e.lay }); err != nil {
			return nil, err
		}
		meta = e.store.Meta()
	}
	e.u = unit.New(1, logID, 0)
	e.u.SetMemory(e.lay, e.mem)
	from := max(meta.SettledBelow, meta.TrimmedBelow)
	limit, err := e.store.Reserve(from, from+layout.Address(e.lay.Geometry.Window))
	if err != nil {
		return nil, err
	}
	e.u.SetLimit(limit)
	if err := e.u.Load(e.store, meta.SettledBelow, meta.TrimmedBelow); err != nil {
		return nil, err
	}
	e.u.BeginSeal(logID, 1, 0)
	if _, err := e.u.EndSeal(1); err != nil {
		return nil, err
	}
	if err := e.u.Reconciled(1); err != nil {
		return nil, err
	}
	if _, err := e.u.Prepare(1); err != nil {
		return nil, err
	}
	e.u.Activate(1)
	e.next = e.u.View().End
	e.ahead()
	for s := range wire.StagingSlot(slots) {
		e.free = append(e.free, s)
		copy(e.mem.Staging(s)[wire.HeaderSize:], payload(uint64(s)))
	}
	for range unit.MaxInFlight {
		e.wg.Add(1)
		go e.flusher()
	}
	return e, nil
}

func payload(seed uint64) []byte {
	b := make([]byte, pageSize-wire.HeaderSize)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (e *Engine) flusher() {
	defer e.wg.Done()
	for b := range e.batches {
		if err := e.store.Write(b.Records); err != nil {
			e.err = err // read after the loop took the batch, which is Failed
		}
		e.flushed <- b
	}
}

func (e *Engine) ahead() {
	v := e.u.View()
	e.store.Ahead(v.Watermark, v.Base+layout.Address(e.lay.Geometry.Window))
}

// Close closes the engine; no Run is under way.
func (e *Engine) Close() error {
	close(e.batches)
	e.wg.Wait()
	return errors.Join(e.store.UpdateMeta(func(m *flash.Meta) { m.SettledBelow = e.u.View().Watermark }), e.store.Close(), e.mem.close())
}

// Writes keeps depth pages in flight for d, and tells how many were acknowledged a second, and how long each took. What
// it wrote is given up afterwards.
func (e *Engine) Writes(ctx context.Context, depth int, d time.Duration) (rate float64, s bench.Sample, err error) {
	lat := bench.NewLatencies()
	start, n, inFlight, asked := time.Now(), 0, 0, e.u.View().Base
	for inFlight > 0 || time.Since(start) < d {
		for inFlight < depth && time.Since(start) < d && e.publish() {
			inFlight++
		}
		for b := e.u.NextBatch(); b != nil; b = e.u.NextBatch() {
			e.batches <- b
		}
		select {
		case b := <-e.flushed:
			e.u.Flushed(b)
		case <-e.store.Grown():
			e.u.SetLimit(e.store.Limit(e.u.View().Watermark))
		case <-ctx.Done():
			return 0, s, ctx.Err()
		}
		if e.err != nil {
			return 0, s, e.err
		}
		for _, a := range e.u.Output().Acks {
			lat.Record(time.Since(e.began[a.Ack.Address]))
			delete(e.began, a.Ack.Address)
			e.free = append(e.free, a.Ack.Use.Slot)
			inFlight--
			n++
		}
		e.u.Output().Reset()
		if v := e.u.View(); v.Base > asked+1024 {
			asked = v.Base
			e.ahead()
		}
	}
	rate = float64(n) / time.Since(start).Seconds()
	return rate, lat.Sample(), e.giveUp()
}

// giveUp trims all that was written.
func (e *Engine) giveUp() error {
	end := e.u.View().End
	if err := e.store.UpdateMeta(func(m *flash.Meta) { m.TrimmedBelow = end }); err != nil {
		return err
	}
	e.u.TrimPrefix(end)
	if err := e.store.DropBelow(end); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // the segment ahead gets its zeros, as on a unit that is not new
	return nil
}

// publish does what a client does; false: the window has not reached the address.
func (e *Engine) publish() bool {
	g := e.lay.Geometry
	i := g.Slot(e.next)
	if e.mem.words[i] != wire.EmptyWord(g.Generation(e.next), 1) {
		return false
	}
	slot := e.free[len(e.free)-1]
	e.free = e.free[:len(e.free)-1]
	wire.SealPage(e.mem.Staging(slot), header(e.next))
	e.began[e.next] = time.Now()
	e.mem.words[i] = wire.MakeWord(wire.Written, g.Generation(e.next), wire.Use{Slot: slot, Count: 1}.Tag())
	e.u.Doorbell(1, e.next)
	e.next++
	return true
}

func header(a layout.Address) wire.Header {
	return wire.Header{Flags: wire.FlagData, Length: pageSize - wire.HeaderSize, Log: logID, Position: layout.Position(a), Epoch: 1, Attempt: wire.Attempt(a) + 1}
}

// Fill writes n pages in large batches, and notes them as settled but for the last window, as after a crash.
func Fill(dir string, n int) (err error) {
	s, err := flash.Open(dir, 1, flash.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	lay := theLayout()
	const chunk = 512
	mem, err := mmap(chunk * pageSize)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	body := payload(7)
	for a := 0; a < n; a += chunk {
		if a == 0 {
			if err := s.UpdateMeta(func(m *flash.Meta) { m.Log, m.Promise, m.Layout = flash.LogID(logID), 1, lay }); err != nil {
				return err
			}
		}
		pages := make([]flash.Page, min(chunk, n-a))
		for i := range pages {
			b := mem[i*pageSize : (i+1)*pageSize]
			copy(b[wire.HeaderSize:], body)
			wire.SealPage(b, header(layout.Address(a+i)))
			pages[i] = flash.Page{Address: layout.Address(a + i), Bytes: b}
		}
		if err := s.Write(pages); err != nil {
			return err
		}
	}
	return s.UpdateMeta(func(m *flash.Meta) {
		m.SettledBelow = layout.Address(max(0, n-lay.Geometry.Window))
	})
}

// Reads keeps depth cold reads of pages below n in flight for d, each verified, and tells how many a second came, and how long each took.
func (e *Engine) Reads(ctx context.Context, n, depth int, d time.Duration) (rate float64, s bench.Sample, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	lat := bench.NewLatencies()
	count := 0
	start := time.Now()
	for i := range depth {
		wg.Go(func() {
			mem, bad := mmap(pageSize)
			var mine []time.Duration
			r := rand.New(rand.NewPCG(uint64(i), uint64(start.UnixNano())))
			for bad == nil && time.Since(start) < d && ctx.Err() == nil {
				a := layout.Address(r.IntN(n))
				t := time.Now()
				if bad = e.store.ReadPage(a, mem); bad != nil {
					break
				}
				if state, _ := unit.Classify(mem, logID, layout.Position(a)); state != wire.Durable {
					bad = fmt.Errorf("address %d is %v", a, state)
				}
				mine = append(mine, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, bad, unix.Munmap(mem))
			for _, x := range mine {
				lat.Record(x)
			}
			count += len(mine)
		})
	}
	wg.Wait()
	return float64(count) / time.Since(start).Seconds(), lat.Sample(), err
}
