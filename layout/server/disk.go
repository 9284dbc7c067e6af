package server

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// diskPatience is how many election time-outs a call of Raft's store may take before its server
	// gives up leading.
	diskPatience = 10
	// diskPatienceLeast is the least that a call may take: disks have pauses.
	diskPatienceLeast = time.Second
	// diskRetry is how often a write is tried again that found no room.
	diskRetry = 200 * time.Millisecond
)

// logStore is what Raft wants of the file in which its log stands.
type logStore interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// disk is Raft's store, watched: it knows for how long a call has been running, and what the last
// write came to. hashicorp/raft does neither, so that a leader whose disk hangs would keep its
// leadership by heartbeats for ever, and one whose disk is full would be elected again and again.
type disk struct {
	logStore
	dir      string
	alone    bool
	patience time.Duration
	closing  chan struct{}
	once     sync.Once

	mu     sync.Mutex
	calls  map[int]time.Time // that run, by when they began
	next   int
	failed error // of the last write; nil: it succeeded
}

func newDisk(s logStore, cfg Config) *disk {
	return &disk{logStore: s, dir: cfg.Dir, alone: cfg.alone(), patience: max(diskPatience*cfg.Election, diskPatienceLeast),
		closing: make(chan struct{}), calls: map[int]time.Time{}}
}

// trouble returns what ails the disk: a call that does not end, or a write that failed. Nil:
// nothing.
func (d *disk) trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, began := range d.calls {
		if took := time.Since(began); took > d.patience {
			return fmt.Errorf("the disk of %s has not answered for %v", d.dir, took.Round(100*time.Millisecond))
		}
	}
	if d.failed != nil {
		return d.failed
	}
	return nil
}

// hangs reports whether a call has been running for too long.
func (d *disk) hangs() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, began := range d.calls {
		if time.Since(began) > d.patience {
			return true
		}
	}
	return false
}

// begin notes that a call runs, until the function it returns is called.
func (d *disk) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.next
	d.next++
	d.calls[n] = time.Now()
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.calls, n)
	}
}

// call runs one access. A panic of bbolt, or a page of the file that cannot be read, becomes an
// error.
func (d *disk) call(fn func() error) (err error) {
	defer d.begin()()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: raft.db cannot be read any more (damaged, or its disk fails): %v", d.dir, p)
		}
	}()
	return fn()
}

// write is call, and notes what came of it.
func (d *disk) write(fn func() error) error {
	err := d.call(fn)
	if err != nil {
		err = d.explain(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
	return err
}

func (d *disk) explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk of %s is full: make room there; it tries again five times a second, restart it if it does not write within 10 s of that: %w", d.dir, err)
	}
	return fmt.Errorf("the disk of %s refuses to write: %w", d.dir, err)
}

// insist tries a write until it succeeds. It returns only then: what depends on it must not go on,
// and hashicorp/raft panics if a term cannot be stored. When the store is closed the caller's
// goroutine ends.
func (d *disk) insist(fn func() error) error {
	for {
		err := d.write(fn)
		if err == nil {
			return nil
		}
		select {
		case <-d.closing:
			runtime.Goexit()
		case <-time.After(diskRetry):
		}
	}
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. A single server has nobody to hand over to: it waits for
// room, instead of electing itself anew with each failure.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	store := func() error { return d.logStore.StoreLogs(logs) }
	if d.alone {
		return d.insist(store)
	}
	return d.write(store)
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(from, to uint64) error {
	return d.write(func() error { return d.logStore.DeleteRange(from, to) })
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.write(func() error { return d.logStore.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, value uint64) error {
	return d.insist(func() error { return d.logStore.SetUint64(key, value) })
}

// GetLog implements raft.LogStore.
func (d *disk) GetLog(i uint64, l *raft.Log) error {
	return d.call(func() error { return d.logStore.GetLog(i, l) })
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (i uint64, err error) {
	err = d.call(func() (err error) { i, err = d.logStore.FirstIndex(); return err })
	return i, err
}

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (i uint64, err error) {
	err = d.call(func() (err error) { i, err = d.logStore.LastIndex(); return err })
	return i, err
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) (b []byte, err error) {
	err = d.call(func() (err error) { b, err = d.logStore.Get(key); return err })
	return b, err
}

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (n uint64, err error) {
	err = d.call(func() (err error) { n, err = d.logStore.GetUint64(key); return err })
	return n, err
}

// stop ends the waiting for room.
func (d *disk) stop() { d.once.Do(func() { close(d.closing) }) }
