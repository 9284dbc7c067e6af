package tcp

import (
	"crypto/rand"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"corfu/rdma"
)

// region is registered memory.
type region struct {
	dev    *Device
	mem    *rdma.Memory
	off, n int
	base   uint64 // address of the first byte
	access rdma.Access
	key    rdma.RKey

	// An operation takes effect under the read lock and only on a living region;
	// Close kills under the write lock. So after Close nothing takes effect (rule R15).
	mu   sync.RWMutex
	dead bool
}

// Register opens [off, off+n) of m to peers. It fails with ErrInvalid for bounds, rights
// or memory that is not this device's, and with ErrClosed.
func (d *Device) Register(m *rdma.Memory, off, n int, a rdma.Access) (rdma.Region, error) {
	const all = rdma.RemoteRead | rdma.RemoteWrite | rdma.RemoteAtomic
	if m == nil || off < 0 || n <= 0 || n > m.Len()-off || a == 0 || a&^all != 0 {
		return nil, fmt.Errorf("tcp: register %d bytes at %d, rights %#x: %w", n, off, a, rdma.ErrInvalid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("tcp: register: %w", rdma.ErrClosed)
	}
	if _, mine := d.memory[m]; !mine {
		return nil, fmt.Errorf("tcp: register: %w: memory of another device, or closed", rdma.ErrInvalid)
	}
	r := &region{dev: d, mem: m, off: off, n: n, base: m.Base() + uint64(off), access: a}
	if err := d.regions.add(r); err != nil {
		return nil, err
	}
	d.memory[m]++
	return r, nil
}

func (r *region) Key() rdma.RKey { return r.key }

func (r *region) Remote(off int) rdma.Remote {
	return rdma.Remote{Addr: r.base + uint64(off), Key: r.key}
}

// Close never waits for a peer: what holds the read lock is a copy between two
// places in memory, at most one buffer long.
func (r *region) Close() error {
	r.mu.Lock()
	was := r.dead
	r.dead = true
	r.mu.Unlock()
	if was {
		return nil
	}
	r.dev.regions.remove(r)
	r.dev.mu.Lock()
	defer r.dev.mu.Unlock()
	r.dev.memory[r.mem]--
	return nil
}

// at gives the offset in r.mem of n bytes at addr; false if they are not all inside.
func (r *region) at(addr uint64, n uint32) (int, bool) {
	off := addr - r.base // wraps to more than r.n if addr is below
	if off > uint64(r.n) || uint64(n) > uint64(r.n)-off {
		return 0, false
	}
	return r.off + int(off), true
}

// covers tells whether the region is alive and n bytes at addr lie inside. An
// operation is checked as a whole before its first byte moves.
func (r *region) covers(addr uint64, n uint32) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.at(addr, n)
	return ok && !r.dead
}

// write copies src to addr. It reports false, and does nothing, on a refusal.
//
// Copies are plain: Go's memmove moves aligned words indivisibly, since the
// garbage collector relies on it for pointers, so no reader sees half a word.
func (r *region) write(addr uint64, src []byte) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	off, ok := r.at(addr, uint32(len(src)))
	if !ok || r.dead {
		return false
	}
	copy(r.mem.Bytes()[off:off+len(src)], src)
	return true
}

// read appends n bytes at addr to dst. It reports false, and appends nothing, on a refusal.
func (r *region) read(dst []byte, addr uint64, n uint32) ([]byte, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	off, ok := r.at(addr, n)
	if !ok || r.dead {
		return dst, false
	}
	return append(dst, r.mem.Bytes()[off:off+int(n)]...), true
}

// compareSwap gives the word at addr as it was. addr must be aligned.
func (r *region) compareSwap(addr, compare, swap uint64) (old uint64, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	off, ok := r.at(addr, rdma.WordSize)
	if !ok || r.dead {
		return 0, false
	}
	for word := r.mem.Word(off); ; {
		old = atomic.LoadUint64(word)
		if old != compare || atomic.CompareAndSwapUint64(word, compare, swap) {
			return old, true
		}
	}
}

// fetchAdd gives the word at addr as it was. addr must be aligned.
func (r *region) fetchAdd(addr, n uint64) (old uint64, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	off, ok := r.at(addr, rdma.WordSize)
	if !ok || r.dead {
		return 0, false
	}
	return atomic.AddUint64(r.mem.Word(off), n) - n, true
}

// table finds regions by key.
type table struct {
	mu    sync.RWMutex
	byKey map[rdma.RKey]*region
	next  uint64 // key to give next; past MaxUint32 there are no fresh ones
	first uint64
	reuse bool
	freed []rdma.RKey // keys to give again, the last first
}

func (t *table) init(reuse bool) error {
	var seed [4]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	// Keys start anywhere, so that one kept from another run is unlikely to be good.
	t.first = uint64(le.Uint32(seed[:]))
	t.next, t.reuse, t.byKey = t.first, reuse, make(map[rdma.RKey]*region)
	return nil
}

// add gives r a key. It fails once all keys were given: a key that came
// around again would open a region to whoever kept it.
func (t *table) add(r *region) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.freed); t.reuse && n > 0 {
		r.key, t.freed = t.freed[n-1], t.freed[:n-1]
	} else {
		if t.next-t.first > math.MaxUint32 {
			return fmt.Errorf("tcp: register: %w: all keys were given", rdma.ErrUnavailable)
		}
		r.key = rdma.RKey(uint32(t.next))
		t.next++
	}
	t.byKey[r.key] = r
	return nil
}

func (t *table) remove(r *region) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byKey, r.key)
	if t.reuse {
		t.freed = append(t.freed, r.key)
	}
}

// find gives the region that grants the right a under key k, or nil.
func (t *table) find(k rdma.RKey, a rdma.Access) *region {
	t.mu.RLock()
	r := t.byKey[k]
	t.mu.RUnlock()
	if r == nil || r.access&a == 0 {
		return nil
	}
	return r
}

func (t *table) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byKey)
}
