package flash

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"corfu/internal/mutant"
	"corfu/layout"
)

// Limits of Options.SegmentPages.
const (
	minSegmentPages     = 16
	maxSegmentPages     = 1 << 20
	defaultSegmentPages = 16384
)

// Options of a store. The zero value is good.
type Options struct {
	SegmentPages int // pages of one segment file, for a new directory; default 16384, 16 to 2^20

	// Capacity is how many bytes the segments may take, 0: what the disk gives. The unit takes no pages beyond.
	Capacity int64

	// Workers write runs of one batch side by side; default 4, 1 to 64.
	Workers int
	// Reads is how many calls of ReadPage the disk has at a time; the others wait. Default 16, at least 1.
	Reads int
	// ReadsBesideWrites is the same while a Write is under way, so that a flood of reads does not delay it much.
	// 1 to Reads. Default a quarter of Reads, but fewer than the Go runtime has processors: a read takes one away from
	// the write for a while.
	ReadsBesideWrites int

	// Format lets the store take a device that holds something else, which is lost. A store is never formatted, whatever
	// unit's it is. A device that is blank (all zero at its beginning and its end) needs no leave.
	Format bool

	// NoSync leaves everything in volatile memory. It is the control that a
	// durability test must fail with, and for nothing else.
	NoSync bool

	// Wrap, if set, gets every segment file as it is opened, to put faults in front of it.
	Wrap func(path string, f File) File
}

// Errors of a store. Test with errors.Is.
var (
	// ErrLocked: another process uses the directory or the device, or the device is mounted.
	ErrLocked = errors.New("in use by another process")
	// ErrOtherUnit: the store belongs to another unit. Give each unit its own.
	ErrOtherUnit = errors.New("store of another unit")
	// ErrNoGeometry: the page size is not known yet: save a Meta with a layout first.
	ErrNoGeometry = errors.New("no geometry yet")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store closed")
	// ErrFull: no room for another segment, by Options.Capacity or by the disk. Trim, or give it more.
	ErrFull = errors.New("flash full")
)

// Store is an open store of pages. Safe for many goroutines.
type Store struct {
	dir  string
	opts Options
	log  *slog.Logger
	vol  volume

	metaMu sync.Mutex
	meta   Meta

	shape atomic.Pointer[shape] // from the meta

	growMu sync.Mutex // makes and removes segments, one at a time. Before mu
	undead []uint64   // segments that were to be removed, and the volume could not: they may be back after a start

	mu       sync.RWMutex // of the fields below; never held during I/O
	segments map[uint64]*segment
	closed   bool

	used    atomic.Int64  // bytes that all segments take of the volume
	dropped atomic.Uint64 // segments below were dropped: nothing is written there again

	want     atomic.Pointer[span]  // of Ahead
	noRoom   atomic.Pointer[error] // of the last try to make room
	full     atomic.Bool           // the last try to make room failed
	wake     chan struct{}
	grown    chan struct{}
	stop     chan struct{}
	prepared chan struct{}     // closed once prepare ended
	zeroed   map[*segment]bool // prepare's

	turns turns // of reads

	work    chan *run
	workers sync.WaitGroup
	jobs    chan *job // not in use
	bounce  sync.Pool // *[]byte, aligned, for pages that are not

	touchMu sync.Mutex
	touched []*segment // to be counted anew

	punchMu   sync.Mutex
	toPunch   []*segment // with trimmed pages whose space was not given back
	punch     chan struct{}
	punchDone chan struct{} // closed once puncher ended
	noPunch   sync.Once     // says once that no space comes back

	scanned, unreadable                   atomic.Int64
	pages, wrote, readErrors, writeErrors atomic.Int64 // see Wear
	buffered                              sync.Once    // says once that there is no O_DIRECT
	plain                                 sync.Once    // says once that RWF_DSYNC is refused
}

// shape is how pages lie in files.
type shape struct {
	pageSize int // bytes; 0: not known yet
	perFile  int // pages of one segment

	// For the marks of trimmed addresses.
	id     layout.UnitID
	log    layout.LogID
	layout *layout.Layout
}

func shapeOf(m Meta) *shape {
	x := &shape{perFile: m.SegmentPages, id: m.Unit, log: layout.LogID(m.Log), layout: m.Layout}
	if m.Layout != nil {
		x.pageSize = m.Layout.Geometry.PageSize
	}
	return x
}

// Open opens the store of unit id: a directory, made if it is not there, or a block device, formatted if it is blank. (A
// regular file that is there is taken for a device.) It fails with ErrLocked, ErrOtherUnit, ErrBadMeta or ErrForeign.
func Open(dir string, id layout.UnitID, o Options, log *slog.Logger) (*Store, error) {
	if o.SegmentPages == 0 {
		o.SegmentPages = defaultSegmentPages
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Reads == 0 {
		o.Reads = 16
	}
	if o.ReadsBesideWrites == 0 {
		o.ReadsBesideWrites = max(1, min(o.Reads/4, runtime.GOMAXPROCS(0)-1))
	}
	vol, err := openVolume(dir, access{nosync: o.NoSync, id: id, pages: o.SegmentPages, format: o.Format})
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, opts: o, log: log, vol: vol, segments: map[uint64]*segment{},
		wake: make(chan struct{}, 1), grown: make(chan struct{}, 1), stop: make(chan struct{}), prepared: make(chan struct{}),
		zeroed: map[*segment]bool{}, punch: make(chan struct{}, 1), punchDone: make(chan struct{}),
		work: make(chan *run), jobs: make(chan *job, keptJobs),
		turns: turns{all: o.Reads, beside: min(o.ReadsBesideWrites, o.Reads)}}
	if err := s.start(id); err != nil {
		return nil, errors.Join(err, vol.close())
	}
	go s.prepare()
	go s.puncher()
	for range o.Workers {
		s.workers.Add(1)
		go s.worker()
	}
	return s, nil
}

func (s *Store) start(id layout.UnitID) error {
	b, err := s.vol.loadMeta()
	if err != nil {
		return err
	}
	if b == nil {
		return s.SaveMeta(Meta{Unit: id, Store: NewStoreID(), SegmentPages: s.opts.SegmentPages})
	}
	m, err := decodeMeta(b)
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	if mutant.R21 {
		m.Unit = id
	}
	if m.Unit != id {
		return fmt.Errorf("flash: %s belongs to unit %d, not %d: %w", s.dir, m.Unit, id, ErrOtherUnit)
	}
	s.meta = m
	s.adopt()
	ns, err := s.vol.list()
	if err != nil {
		return err
	}
	for _, n := range ns {
		g := &segment{s: s, n: n, trims: newTrims(twin{})}
		used, err := s.vol.used(n)
		if err != nil {
			return err
		}
		g.bytes.Store(used)
		s.used.Add(used)
		s.segments[n] = g
	}
	if versionOfMeta(b) < metaVersion {
		m.identify()
		return s.SaveMeta(m) // before anything is written that an older release would not understand
	}
	return nil
}

// adopt takes the shape from the meta.
func (s *Store) adopt() { s.shape.Store(shapeOf(s.meta)) }

// Meta is the meta as it was saved last.
func (s *Store) Meta() Meta {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	return s.meta
}

// UpdateMeta changes the meta with fn and saves it: durable when it returns nil.
// If it fails, the old or the new one may be found after a restart.
func (s *Store) UpdateMeta(fn func(*Meta)) error {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	m := s.meta
	fn(&m)
	return s.save(m)
}

// SaveMeta is UpdateMeta with a whole new meta.
func (s *Store) SaveMeta(m Meta) error {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	return s.save(m)
}

func (s *Store) save(m Meta) error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	if !s.meta.Store.IsZero() {
		m.Store = s.meta.Store // rule R21: for as long as the store is not formatted anew
	}
	b, err := encodeMeta(m)
	if err != nil {
		return err
	}
	if err := s.vol.saveMeta(b); err != nil {
		s.writeErrors.Add(1)
		return err
	}
	s.wrote.Add(int64(len(b)))
	s.meta = m
	s.adopt()
	return nil
}

// SegmentPages is how many pages one segment holds.
func (s *Store) SegmentPages() int { return s.shape.Load().perFile }

// Dir is where the data lies: a directory or a device.
func (s *Store) Dir() string { return s.dir }

// Stats of a store.
type Stats struct {
	Used, Capacity int64 // bytes that the segments take of the volume, and how many they may (0: what it gives)
	Segments       int
	Full           bool  // there is no room for another segment
	Scanned        int64 // bytes that Scan has read
	Unreadable     int64 // pages that Scan could not read
}

// Stats tells how the store stands.
func (s *Store) Stats() Stats {
	s.account()
	s.mu.RLock()
	n := len(s.segments)
	s.mu.RUnlock()
	return Stats{Used: s.used.Load(), Capacity: s.opts.Capacity, Segments: n, Full: s.full.Load(),
		Scanned: s.scanned.Load(), Unreadable: s.unreadable.Load()}
}

// Close lets go of the store. What was written is durable before; no Write may run. Idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	close(s.stop)
	<-s.prepared
	<-s.punchDone
	close(s.work)
	s.workers.Wait()
	s.growMu.Lock()
	defer s.growMu.Unlock()
	var errs []error
	for _, n := range s.numbers() {
		errs = append(errs, s.find(n).close())
	}
	return errors.Join(append(errs, s.vol.close())...)
}
