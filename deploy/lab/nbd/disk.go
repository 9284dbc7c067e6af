package nbd

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

const (
	// SectorSize is what a cut never tears, and the unit of offsets and lengths, in bytes.
	SectorSize = 512

	blockSize    = 4096
	blockSectors = blockSize / SectorSize
)

// Backing is what outlives a power cut: a file.
type Backing interface {
	io.ReaderAt
	io.WriterAt
}

// Options of a Disk. The zero value keeps every write volatile until it is flushed.
type Options struct {
	// Leak is the chance of each written sector to become stable at once, unasked. 0 to 1.
	Leak float64
	// Seed of what leaks.
	Seed uint64
	// During, if set, is called within a flush before each block that goes to the backing; left counts the blocks that
	// are still to go, this one included. A process may choose to die there.
	During func(left int)
	// Counters to count in; nil: own ones. They may lie in shared memory, to be read after the process was killed.
	Counters *Counters
}

// Counters of a Disk.
type Counters struct {
	Reads, Writes, FUAs, Flushes atomic.Uint64
	Volatile                     atomic.Uint64 // bytes that a cut would lose now
}

// Errors of a Disk. Test with errors.Is.
var (
	// ErrAlign: an offset or length is not a multiple of SectorSize.
	ErrAlign = errors.New("not aligned to sectors")
	// ErrRange: the request reaches beyond the end.
	ErrRange = errors.New("beyond the end of the disk")
)

// Disk is a disk with a volatile write cache. Safe for concurrent use.
type Disk struct {
	size    int64
	leak    float64
	during  func(left int)
	count   *Counters
	mu      sync.Mutex
	stable  Backing
	pending map[int64]*block // by block number; what the backing does not have yet
	random  *rand.Rand
}

// block holds the newest bytes of the sectors that are not stable.
type block struct {
	data  [blockSize]byte
	dirty uint8 // a bit for each sector
}

// NewDisk makes a disk of size bytes, a multiple of SectorSize, over what stable holds.
func NewDisk(stable Backing, size int64, o Options) (*Disk, error) {
	switch {
	case size <= 0 || size%SectorSize != 0:
		return nil, fmt.Errorf("nbd: disk of %d bytes: %w", size, ErrAlign)
	case !(o.Leak >= 0 && o.Leak <= 1):
		return nil, fmt.Errorf("nbd: leak %v: must be 0 to 1", o.Leak)
	}
	d := &Disk{
		size: size, leak: o.Leak, during: o.During, count: o.Counters, stable: stable,
		pending: map[int64]*block{}, random: rand.New(rand.NewPCG(o.Seed, 0)),
	}
	if d.count == nil {
		d.count = new(Counters)
	}
	return d, nil
}

// Size in bytes.
func (d *Disk) Size() int64 { return d.size }

// check refuses what is not whole sectors of the disk.
func (d *Disk) check(n int, off int64) error {
	switch {
	case off%SectorSize != 0 || n%SectorSize != 0:
		return fmt.Errorf("nbd: %d bytes at %d: %w", n, off, ErrAlign)
	case off < 0 || off > d.size || int64(n) > d.size-off:
		return fmt.Errorf("nbd: %d bytes at %d of %d: %w", n, off, d.size, ErrRange)
	}
	return nil
}

// Read fills b with what was written last, stable or not. It fails with ErrAlign, ErrRange or the backing's error.
func (d *Disk) Read(b []byte, off int64) error {
	if err := d.check(len(b), off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Reads.Add(1)
	// Beyond the end of the backing the disk reads as zero.
	n, err := d.stable.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return fmt.Errorf("nbd: %w", err)
	}
	clear(b[n:])
	return d.sectors(len(b), off, func(at int, no int64, s int) error {
		if p := d.pending[no]; p != nil && p.dirty&(1<<s) != 0 {
			copy(b[at:at+SectorSize], p.sector(s))
		}
		return nil
	})
}

// Write takes b in: into volatile memory, or with fua to the backing. It fails with ErrAlign, ErrRange
// or the backing's error, and then some of it may have been written.
func (d *Disk) Write(b []byte, off int64, fua bool) error {
	if err := d.check(len(b), off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Writes.Add(1)
	if fua {
		d.count.FUAs.Add(1)
		return d.through(b, off)
	}
	return d.sectors(len(b), off, func(at int, no int64, s int) error {
		sector := b[at : at+SectorSize]
		if d.leak > 0 && d.random.Float64() < d.leak {
			return d.through(sector, off+int64(at))
		}
		p := d.pending[no]
		if p == nil {
			p = new(block)
			d.pending[no] = p
		}
		copy(p.sector(s), sector)
		if p.dirty&(1<<s) == 0 {
			p.dirty |= 1 << s
			d.count.Volatile.Add(SectorSize)
		}
		return nil
	})
}

// through writes b to the backing and forgets what was pending in its place.
func (d *Disk) through(b []byte, off int64) error {
	if _, err := d.stable.WriteAt(b, off); err != nil {
		return fmt.Errorf("nbd: %w", err)
	}
	return d.sectors(len(b), off, func(_ int, no int64, s int) error {
		if p := d.pending[no]; p != nil && p.dirty&(1<<s) != 0 {
			d.settled(p, no, 1<<s)
		}
		return nil
	})
}

// settled notes that the sectors of mask, all dirty, are stable now.
func (d *Disk) settled(p *block, no int64, mask uint8) {
	p.dirty &^= mask
	d.count.Volatile.Add(-uint64(bits.OnesCount8(mask) * SectorSize))
	if p.dirty == 0 {
		delete(d.pending, no)
	}
}

// Flush brings everything written before to the backing, in no particular order. If it fails some of it is not there.
func (d *Disk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Flushes.Add(1)
	for no, p := range d.pending {
		if d.during != nil {
			d.during(len(d.pending))
		}
		for s := 0; s < blockSectors; {
			n := bits.TrailingZeros8(^(p.dirty >> s)) // sectors in a row
			if n == 0 {
				s++
				continue
			}
			at := s * SectorSize
			if _, err := d.stable.WriteAt(p.data[at:at+n*SectorSize], no*blockSize+int64(at)); err != nil {
				return fmt.Errorf("nbd: %w", err)
			}
			s += n
		}
		d.settled(p, no, p.dirty)
	}
	return nil
}

func (p *block) sector(s int) []byte { return p.data[s*SectorSize : (s+1)*SectorSize] }

// sectors calls fn for each sector of n bytes from off on: where it stands in the bytes, its block, its number in the block.
func (d *Disk) sectors(n int, off int64, fn func(at int, no int64, s int) error) error {
	for at := 0; at < n; at += SectorSize {
		o := off + int64(at)
		if err := fn(at, o/blockSize, int(o%blockSize)/SectorSize); err != nil {
			return err
		}
	}
	return nil
}
