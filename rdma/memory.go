package rdma

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HugePageSize is the huge page that Memory is rounded to where huge pages are asked for, in bytes.
const HugePageSize = 2 << 20

// WordSize is the size of the words that CompareSwap and FetchAdd work on, in bytes.
const WordSize = 8

// Memory is page-aligned anonymous memory outside the Go heap, known to one
// device for local use. It is made by [Device.Alloc].
//
// Close unmaps it; whoever closes must know that no operation, local or remote,
// can still touch it: regions and connections go first. If in doubt, leak.
type Memory struct {
	b       []byte
	lkey    uint32
	notHuge error

	once    sync.Once
	release func() error
	err     error
}

// MapMemory maps size bytes (rounded up to pages) and touches each page. With huge it takes huge pages; if the kernel gives none, or not
// enough, it takes ordinary pages, which serve as well and are slower to register, and [Memory.NotHuge] says why. It is for
// providers; others call [Device.Alloc].
func MapMemory(size int, huge bool) (*Memory, error) {
	if size <= 0 {
		return nil, fmt.Errorf("rdma: map %d bytes: %w", size, ErrInvalid)
	}
	var notHuge error
	if huge {
		b, err := mapHuge((size + HugePageSize - 1) &^ (HugePageSize - 1))
		if err == nil {
			return newMemory(b), nil
		}
		notHuge = err
	}
	page := unix.Getpagesize()
	n := (size + page - 1) &^ (page - 1)
	b, err := mmap(n, unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("rdma: map %d bytes: %w", n, err)
	}
	// A forked child must not share pages that the NIC writes to.
	_ = unix.Madvise(b, unix.MADV_DONTFORK)
	m := newMemory(b)
	m.notHuge = notHuge
	return m, nil
}

// mapHuge maps n bytes of huge pages. A page that is reserved and that a cgroup does not grant ends the process with SIGBUS when it is
// touched, and MAP_POPULATE does not report that (mmap(2), BUGS). MADV_POPULATE_WRITE fails with EFAULT or ENOMEM instead (madvise(2)); a
// kernel before 5.14 does not know it and fails with EINVAL, so that it gets no huge pages here.
func mapHuge(n int) ([]byte, error) {
	b, err := mmap(n, unix.MAP_HUGETLB)
	if err != nil {
		return nil, fmt.Errorf("rdma: map %d bytes of huge pages: %w", n, err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = populate(b)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rdma: touch %d bytes of huge pages: %w", n, err), unix.Munmap(b))
	}
	_ = unix.Madvise(b, unix.MADV_DONTFORK)
	return b, nil
}

// System calls; tests put others in their place.
var (
	mmap = func(n, flags int) ([]byte, error) {
		return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|flags)
	}
	populate = func(b []byte) error { return unix.Madvise(b, unix.MADV_POPULATE_WRITE) }
)

func newMemory(b []byte) *Memory { return &Memory{b: b} }

// NotHuge returns why the memory has ordinary pages though huge ones were asked for, and nil otherwise.
func (m *Memory) NotHuge() error { return m.notHuge }

// Bind records the local key under which a device knows the memory and what
// undoes that; unbind runs before the memory is unmapped. For providers.
func (m *Memory) Bind(lkey uint32, unbind func() error) { m.lkey, m.release = lkey, unbind }

// LKey is the local key given to Bind. For providers.
func (m *Memory) LKey() uint32 { return m.lkey }

// Bytes is the whole memory. Parts that peers write or that are read by peers
// while the CPU writes them have no ordering beyond the package's promises.
func (m *Memory) Bytes() []byte { return m.b }

// Len is the size of the memory in bytes.
func (m *Memory) Len() int { return len(m.b) }

// Base is the address of the first byte, as remote operations name it.
func (m *Memory) Base() uint64 { return uint64(uintptr(unsafe.Pointer(&m.b[0]))) }

// Slice names n bytes from off on, for a work request. It panics if they are
// outside the memory, as slicing does.
func (m *Memory) Slice(off, n int) Local {
	_ = m.b[off : off+n]
	return Local{Mem: m, Off: off, Len: n}
}

// Load reads the word at off (a multiple of 8) atomically with respect to other CPUs.
func (m *Memory) Load(off int) uint64 { return atomic.LoadUint64(m.word(off)) }

// Store writes the word at off (a multiple of 8). It is not atomic with the
// device's atomics: rule R1 says when it may be used.
func (m *Memory) Store(off int, v uint64) { atomic.StoreUint64(m.word(off), v) }

func (m *Memory) word(off int) *uint64 {
	if off%WordSize != 0 {
		panic("rdma: unaligned word")
	}
	return (*uint64)(unsafe.Pointer(&m.b[off : off+WordSize][0]))
}

// Word is the address of the word at off, for providers that execute atomics in software.
func (m *Memory) Word(off int) *uint64 { return m.word(off) }

// Close gives the memory back. Idempotent.
func (m *Memory) Close() error {
	m.once.Do(func() {
		if m.release != nil {
			if m.err = m.release(); m.err != nil {
				return // still known to the device: leak it rather than let the NIC write to a stranger's page
			}
		}
		b := m.b
		m.b = nil
		m.err = unix.Munmap(b)
	})
	return m.err
}

// Local names bytes of this process's memory in a work request.
type Local struct {
	Mem      *Memory
	Off, Len int
}

// Bytes are the bytes named.
func (l Local) Bytes() []byte { return l.Mem.b[l.Off : l.Off+l.Len : l.Off+l.Len] }

// Remote names bytes of a peer's registered memory: the address of the first
// byte, as the peer's CPU sees it, and the key of the region they lie in.
type Remote struct {
	Addr uint64
	Key  RKey
}

// Add is the place n bytes further on.
func (r Remote) Add(n uint64) Remote { return Remote{r.Addr + n, r.Key} }

// RKey is the key that a peer needs for remote operations on a region.
type RKey uint32
