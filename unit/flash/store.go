package flash

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

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

	// NoSync leaves everything in volatile memory. It is the control that a
	// durability test must fail with, and for nothing else.
	NoSync bool

	// Wrap, if set, gets every segment file as it is opened, to put faults in front of it.
	Wrap func(path string, f File) File
}

// Errors of a store. Test with errors.Is.
var (
	// ErrLocked: another process uses the directory.
	ErrLocked = errors.New("directory in use by another process")
	// ErrOtherUnit: the directory belongs to another unit. Give each unit its own.
	ErrOtherUnit = errors.New("directory of another unit")
	// ErrNoGeometry: the page size is not known yet: save a Meta with a layout first.
	ErrNoGeometry = errors.New("no geometry yet")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store closed")
)

// Page is a page and its address.
type Page struct {
	Address layout.Address
	Bytes   []byte // page size
}

// Store is an open directory. Safe for many goroutines; one Write at a time.
type Store struct {
	dir  string
	opts Options
	log  *slog.Logger
	lock *os.File

	metaMu sync.Mutex
	meta   Meta

	shape atomic.Pointer[shape] // from the meta

	writeMu sync.Mutex // Write, and what closes files, exclude each other. Before mu

	mu       sync.RWMutex // of the fields below; readers of a file hold it, so that Wipe waits for them
	segments map[uint64]File
	closed   bool

	bounce   sync.Pool // *[]byte, aligned, for pages that are not
	touched  []File    // of one Write
	bufs     [][]byte  // of one Write
	buffered sync.Once // says once that there is no O_DIRECT
}

// shape is how pages lie in files.
type shape struct {
	pageSize int // bytes; 0: not known yet
	perFile  int // pages of one segment
}

// Open opens the directory of unit id, and makes it if there is none. It fails with
// ErrLocked, ErrOtherUnit or ErrBadMeta.
func Open(dir string, id layout.UnitID, o Options, log *slog.Logger) (*Store, error) {
	if o.SegmentPages == 0 {
		o.SegmentPages = defaultSegmentPages
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, opts: o, log: log, lock: lock, segments: map[uint64]File{}}
	if err := s.start(id); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("flash: %s: %w", dir, ErrLocked)
	}
	return f, nil
}

func (s *Store) start(id layout.UnitID) error {
	m, ok, err := readMeta(s.dir)
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	if ok && m.Unit != id {
		return fmt.Errorf("flash: %s belongs to unit %d, not %d: %w", s.dir, m.Unit, id, ErrOtherUnit)
	}
	if ok {
		s.meta = m
		s.adopt()
		return nil
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "seg-*")); err != nil || len(left) > 0 {
		return fmt.Errorf("flash: %s has segments but no meta file: %w", s.dir, ErrBadMeta)
	}
	// The name of the directory itself must survive, too.
	if !s.opts.NoSync {
		if err := syncDir(filepath.Dir(s.dir)); err != nil {
			return err
		}
	}
	return s.SaveMeta(Meta{Unit: id, SegmentPages: s.opts.SegmentPages})
}

// adopt takes the shape from the meta.
func (s *Store) adopt() {
	x := shape{perFile: s.meta.SegmentPages}
	if s.meta.Layout != nil {
		x.pageSize = s.meta.Layout.Geometry.PageSize
	}
	s.shape.Store(&x)
}

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
	if err := writeMeta(s.dir, m, !s.opts.NoSync); err != nil {
		return err
	}
	s.meta = m
	s.adopt()
	return nil
}

// Dir is where the data lies.
func (s *Store) Dir() string { return s.dir }

// segment gives the file of segment n, opened, or made if there is none and make is set; else nil.
// s.mu is held for writing.
func (s *Store) segment(n uint64, create bool) (File, error) {
	if s.closed {
		return nil, fmt.Errorf("flash: %w", ErrClosed)
	}
	x := s.shape.Load()
	if x.pageSize == 0 {
		return nil, fmt.Errorf("flash: %w", ErrNoGeometry)
	}
	if f := s.segments[n]; f != nil {
		return f, nil
	}
	path := s.path(n)
	if _, err := os.Stat(path); err != nil && (!create || !errors.Is(err, os.ErrNotExist)) {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("flash: %w", err)
	}
	f, made, err := openFile(path, int64(x.perFile)*int64(x.pageSize), s.opts.NoSync)
	if err != nil {
		return nil, err
	}
	if made && !s.opts.NoSync {
		if err := syncDir(s.dir); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if !f.direct {
		s.buffered.Do(func() {
			s.log.Warn("the file system refuses O_DIRECT: writing through the page cache, with fdatasync", "dir", s.dir)
		})
	}
	s.segments[n] = f
	if s.opts.Wrap != nil {
		s.segments[n] = s.opts.Wrap(path, f)
	}
	return s.segments[n], nil
}

func (s *Store) path(n uint64) string { return filepath.Join(s.dir, fmt.Sprintf("seg-%012x", n)) }

// place tells where the page of a is.
func (s *Store) place(a layout.Address) (segment uint64, off int64) {
	x := s.shape.Load()
	n := uint64(x.perFile)
	return uint64(a) / n, int64(uint64(a)%n) * int64(x.pageSize)
}

// list gives the numbers of all segments on disk, in order.
func (s *Store) list() ([]uint64, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "seg-*"))
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	var ns []uint64
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "seg-%012x", &n); err != nil || s.path(n) != name {
			return nil, fmt.Errorf("flash: %s: not a segment's name", name)
		}
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return ns, nil
}

// Wipe forgets all pages. Durable when it returns nil; a crash leaves some or none of them.
func (s *Store) Wipe() error { return s.drop(func(uint64) bool { return true }) }

// DropBelow gives the space of addresses below a back, as far as they fill whole segments. They read as never written.
func (s *Store) DropBelow(a layout.Address) error {
	n := uint64(a) / uint64(s.Meta().SegmentPages)
	return s.drop(func(i uint64) bool { return i < n })
}

func (s *Store) drop(which func(n uint64) bool) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	ns, err := s.list()
	if err != nil {
		return err
	}
	dropped := false
	for _, n := range ns {
		if !which(n) {
			continue
		}
		dropped = true
		if f := s.segments[n]; f != nil {
			err = errors.Join(err, f.Close())
			delete(s.segments, n)
		}
		err = errors.Join(err, os.Remove(s.path(n)))
	}
	if dropped && !s.opts.NoSync {
		err = errors.Join(err, syncDir(s.dir))
	}
	return err
}

// Close lets go of the directory. What was written is durable before. Idempotent.
func (s *Store) Close() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	for _, f := range s.segments {
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, s.lock.Close())
}
