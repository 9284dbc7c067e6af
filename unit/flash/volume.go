package flash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// volume is what segments and the meta lie on: a directory. It is used by one goroutine at a
// time; the files that it gives are not bound to that.
type volume interface {
	// loadMeta gives what saveMeta stored last, or nil if nothing ever was.
	loadMeta() ([]byte, error)
	// saveMeta replaces the meta as a whole: durable when it returns nil, the old or the new one if it fails.
	saveMeta(b []byte) error
	// list gives the numbers of all segments, in order.
	list() ([]uint64, error)
	// open gives segment n, which is in the list.
	open(n uint64, size int64) (File, error)
	// create makes segment n: it reads as zero, all its space is allocated, and both are durable when it returns nil. It
	// fails with ErrFull, and then nothing is left of it.
	create(n uint64, size int64) (File, error)
	// remove gives segments back: gone for good when it returns nil, some of them when it fails. Their files are closed.
	remove(ns []uint64) error
	close() error
}

// directory is a volume of files in a directory.
type directory struct {
	dir    string
	nosync bool
	lock   *os.File
}

func openDirectory(dir string, nosync bool) (*directory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	v := &directory{dir, nosync, lock}
	// What a crash left of a segment that was being made.
	left, _ := filepath.Glob(filepath.Join(dir, "new-*"))
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return nil, errors.Join(fmt.Errorf("flash: %w", err), v.close())
		}
	}
	return v, nil
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

func (v *directory) loadMeta() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(v.dir, metaName))
	if err == nil {
		return b, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("flash: %w", err)
	}
	if left, err := v.list(); err != nil || len(left) > 0 {
		return nil, fmt.Errorf("flash: %s has segments but no meta file: %w", v.dir, ErrBadMeta)
	}
	return nil, nil
}

func (v *directory) saveMeta(b []byte) error {
	tmp := filepath.Join(v.dir, metaName+".tmp")
	if err := writeFile(tmp, b, !v.nosync); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(v.dir, metaName)); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	return v.sync()
}

func (v *directory) sync() error {
	if v.nosync {
		return nil
	}
	// The name of the directory itself must survive, too.
	return errors.Join(syncDir(v.dir), syncDir(filepath.Dir(v.dir)))
}

func (v *directory) path(n uint64) string { return segmentPath(v.dir, n) }

func segmentPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("seg-%012x", n))
}

func (v *directory) list() ([]uint64, error) { return listSegments(v.dir) }

// listSegments gives the numbers of all segment files of a directory, in order.
func listSegments(dir string) ([]uint64, error) {
	names, err := filepath.Glob(filepath.Join(dir, "seg-*"))
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	var ns []uint64
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "seg-%012x", &n); err != nil || segmentPath(dir, n) != name {
			return nil, fmt.Errorf("flash: %s: not a segment's name", name)
		}
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return ns, nil
}

func (v *directory) open(n uint64, size int64) (File, error) {
	f, err := openFile(v.path(n), os.O_RDWR, v.nosync)
	if err != nil {
		return nil, err
	}
	// A file that is too short is one that somebody cut: what is missing reads as zero, and is allocated again.
	if st, err := f.f.Stat(); err != nil || st.Size() < size {
		if err == nil {
			err = f.allocate(size)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// create allocates the file under another name, so that a segment is there with all its space or not at all.
func (v *directory) create(n uint64, size int64) (File, error) {
	tmp := filepath.Join(v.dir, fmt.Sprintf("new-%012x", n))
	f, err := openFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, v.nosync)
	if err == nil {
		if err = f.allocate(size); err == nil {
			err = os.Rename(tmp, v.path(n))
		}
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(tmp))
		}
	}
	if err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
			err = errors.Join(ErrFull, err)
		}
		return nil, fmt.Errorf("flash: new segment: %w", err)
	}
	if err := v.sync(); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(v.path(n)))
	}
	return f, nil
}

func (v *directory) remove(ns []uint64) error {
	var errs []error
	for _, n := range ns {
		errs = append(errs, os.Remove(v.path(n)))
	}
	return errors.Join(append(errs, v.sync())...)
}

func (v *directory) close() error { return v.lock.Close() }

func writeFile(path string, b []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flash: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flash: sync %s: %w", dir, err)
	}
	return nil
}

// place is where the page of an address lies.
func (x *shape) place(a layout.Address) (segment uint64, off int64) {
	n := uint64(x.perFile)
	return uint64(a) / n, int64(uint64(a)%n) * int64(x.pageSize)
}

// segmentBytes is the space of one segment.
func (x *shape) segmentBytes() int64 { return int64(x.perFile) * int64(x.pageSize) }
