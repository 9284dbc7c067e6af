// Package flashbench measures the flash engine beside fio on the same directory: the unit's core and its
// store with flushers as the unit server has them, and no network.
package flashbench

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"corfu/internal/wire"
	"corfu/layout"
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
	epoch         layout.Epoch
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

func unmap(b []byte) error { return unix.Munmap(b) }

func (m *memory) close() error { return errors.Join(unmap(m.ring), unmap(m.staging)) }

// LoadWord implements unit.Memory.
func (m *memory) LoadWord(slot int) wire.Word { return m.words[slot] }

// StoreWord implements unit.Memory.
func (m *memory) StoreWord(slot int, w wire.Word) { m.words[slot] = w }

// LoadEpoch implements unit.Memory.
func (m *memory) LoadEpoch() layout.Epoch { return m.epoch }

// StoreEpoch implements unit.Memory.
func (m *memory) StoreEpoch(e layout.Epoch) { m.epoch = e }

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
	began   [slots]time.Time
	free    []wire.StagingSlot
	batches chan *unit.Batch
	flushed chan *unit.Batch
	helm    *flash.Helm
	flying  int // batches
	stop    chan struct{}
	err     error
	wg      sync.WaitGroup
}

// OpenEngine opens the engine on a directory, with what stands there.
func OpenEngine(dir string) (*Engine, error) {
	e := &Engine{lay: theLayout(),
		batches: make(chan *unit.Batch, unit.MaxInFlight), flushed: make(chan *unit.Batch, unit.MaxInFlight),
		helm: flash.NewHelm(), stop: make(chan struct{})}
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
	e.wg.Go(func() {
		for e.helm.Relieve(e.stop) { // a unit would take the loop over; here nothing else waits for it
		}
	})
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
	close(e.stop)
	e.wg.Wait()
	return errors.Join(e.store.UpdateMeta(func(m *flash.Meta) { m.SettledBelow = e.u.View().Watermark }), e.store.Close(), e.mem.close())
}

func header(a layout.Address) wire.Header {
	return wire.Header{Flags: wire.FlagData, Length: pageSize - wire.HeaderSize, Log: logID, Position: layout.Position(a), Epoch: 1, Attempt: wire.Attempt(a) + 1}
}
