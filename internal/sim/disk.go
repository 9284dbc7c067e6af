package sim

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"corfu/unit/flash"
)

// disk stands in front of the segment files of one life of a unit. What was written without a sync is lost with that life, and
// after its end nothing reaches the files any more.
type disk struct {
	f    *Fabric
	host string
	rand *rand.Rand

	mu   sync.Mutex
	dead bool
}

// errDead is what a process hears of its disk after its end.
var errDead = errors.New("sim: the process is dead")

func (f *Fabric) newDisk(host string) *disk {
	return &disk{f: f, host: host, rand: f.chance("disk " + host)}
}

func (d *disk) wrap(_ string, f flash.File) flash.File {
	return &file{File: f, d: d}
}

// die ends the life.
func (d *disk) die() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// file is a segment. Its cache is what was written since the last sync.
type file struct {
	flash.File
	d *disk

	mu    sync.Mutex
	cache []cached
}

type cached struct {
	b   []byte
	off int64
}

func (x *file) Write(bufs [][]byte, off int64, sync bool) error {
	x.d.busy()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range bufs {
		x.cache = append(x.cache, cached{append([]byte(nil), b...), off})
		off += int64(len(b))
	}
	if sync && x.d.f.weird.Broken != VolatileFlash {
		return x.flush()
	}
	if x.d.over() {
		return errDead
	}
	return nil
}

// busy takes the time of a write, and more while the process is paused.
func (d *disk) busy() {
	d.mu.Lock()
	most := d.f.weird.Disk
	var t time.Duration
	if most > 0 {
		t = time.Duration(d.rand.Int64N(int64(most)))
	}
	d.mu.Unlock()
	time.Sleep(t)
	d.f.runs(d.host)
}

func (d *disk) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

func (x *file) flush() error {
	if x.d.over() {
		return errDead
	}
	for _, c := range x.cache {
		if err := x.File.Write([][]byte{c.b}, c.off, false); err != nil {
			return err
		}
	}
	x.cache = nil
	return nil
}

func (x *file) Sync() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.d.f.weird.Broken == VolatileFlash {
		return nil
	}
	return x.flush()
}

func (x *file) Read(b []byte, off int64) error {
	if err := x.File.Read(b, off); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.cache {
		from, to := max(off, c.off), min(off+int64(len(b)), c.off+int64(len(c.b)))
		if from < to {
			copy(b[from-off:to-off], c.b[from-c.off:])
		}
	}
	return nil
}

// Close keeps what is in the cache, as an operating system does, unless the process is dead.
func (x *file) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	_ = x.flush()
	return x.File.Close()
}
