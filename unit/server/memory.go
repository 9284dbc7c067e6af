package server

import (
	"errors"
	"fmt"
	"sync/atomic"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// sendBytes is what each connection has to send acks from.
const (
	sendSlots = 8
	sendSlot  = 256
	sendBytes = sendSlots * sendSlot
)

// memory is the registered memory of a unit. It implements unit.Memory. Regions stand on it only
// while the unit is open, but for the sessions' own.
type memory struct {
	geo     layout.Geometry
	index   *rdma.Memory
	ring    *rdma.Memory
	staging *staging
	cold    *rdma.Memory // for each cold reader the pages of a run, and then a word for each
	stuck   atomic.Bool  // a session's key could not be revoked: staging may still be written to

	indexRegion, ringRegion, stagingRegion rdma.Region
}

func newMemory(dev rdma.Device, g layout.Geometry, coldReaders int) (*memory, error) {
	m := &memory{geo: g}
	var err error
	alloc := func(n int) *rdma.Memory {
		if err != nil {
			return nil
		}
		var x *rdma.Memory
		x, err = dev.Alloc(n)
		return x
	}
	m.index = alloc(wire.IndexSize(g))
	m.ring = alloc(g.Window * g.PageSize)
	m.cold = alloc(coldMemory(g, coldReaders))
	if err == nil {
		m.staging, err = newStaging(dev, g)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unit: memory: %w", err), m.close())
	}
	return m, nil
}

// notHuge returns why some of the memory has ordinary pages though huge ones were asked for, and nil if none has.
func (m *memory) notHuge() error {
	for _, x := range []*rdma.Memory{m.index, m.ring, m.staging.pages, m.staging.send, m.cold} {
		if err := x.NotHuge(); err != nil {
			return err
		}
	}
	return nil
}

// bytes is how much memory a unit of geometry g registers.
func (m *memory) bytes() int {
	if m == nil {
		return 0
	}
	return m.index.Len() + m.ring.Len() + m.staging.bytes() + m.cold.Len()
}

// open lets clients reach the index, and read the ring and staging.
func (m *memory) open(dev rdma.Device) (err error) {
	register := func(mem *rdma.Memory, n int, a rdma.Access) (r rdma.Region) {
		if err == nil {
			r, err = dev.Register(mem, 0, n, a)
		}
		return r
	}
	m.ringRegion = register(m.ring, m.geo.Window*m.geo.PageSize, rdma.RemoteRead)
	m.stagingRegion = register(m.staging.pages, stagingBytes(m.geo), rdma.RemoteRead)
	// Last: with the index, the unit is open.
	m.indexRegion = register(m.index, wire.IndexSize(m.geo), rdma.RemoteRead|rdma.RemoteAtomic)
	if err != nil {
		return errors.Join(fmt.Errorf("unit: register: %w", err), m.revoke())
	}
	return nil
}

// revoke takes the index out of reach, and then the rest: after it returned nil no
// remote operation on it takes effect (rule R15). What failed is tried again by the next call.
func (m *memory) revoke() error {
	if m == nil {
		return nil
	}
	var errs []error
	for _, r := range []*rdma.Region{&m.indexRegion, &m.ringRegion, &m.stagingRegion} {
		if *r == nil {
			continue
		}
		if err := (*r).Close(); err != nil {
			errs = append(errs, fmt.Errorf("unit: deregister: %w", err))
			continue
		}
		*r = nil
	}
	return errors.Join(errs...)
}

// close gives the memory back; no region or connection stands on it.
func (m *memory) close() error {
	if m == nil {
		return nil
	}
	var errs []error
	for _, x := range []*rdma.Memory{m.index, m.ring, m.cold} {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	errs = append(errs, m.staging.close())
	return errors.Join(errs...)
}

func (m *memory) LoadWord(slot int) wire.Word {
	return wire.Word(m.index.Load(wire.EpochWordSize + slot*wire.WordSize))
}

func (m *memory) StoreWord(slot int, w wire.Word) {
	m.index.Store(wire.EpochWordSize+slot*wire.WordSize, uint64(w))
}

func (m *memory) LoadEpoch() layout.Epoch { return layout.Epoch(m.index.Load(0)) }

func (m *memory) StoreEpoch(e layout.Epoch) { m.index.Store(0, uint64(e)) }

func (m *memory) Ring() []byte { return m.ring.Bytes() }

func (m *memory) Staging(s wire.StagingSlot) []byte {
	n := m.geo.PageSize
	return m.staging.pages.Bytes()[int(s)*n : (int(s)+1)*n]
}
