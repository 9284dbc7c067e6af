package flash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"corfu/internal/twinfile"
)

const (
	lockName  = "LOCK"
	statBlock = 512 // bytes; what st_blocks counts

	segmentPrefix = "seg-"
	segmentName   = segmentPrefix + "%012x"
	newPrefix     = "new-" // of a segment that is being made
)

// directory is a volume of files in a directory.
type directory struct {
	dir  string
	how  access
	lock *os.File

	meta twinfile.File
}

func openDirectory(dir string, how access) (*directory, error) {
	v := &directory{dir: dir, how: how, meta: twinfile.File{Dir: dir, Name: metaName, Twin: twinName, NoSync: how.nosync}}
	if how.readonly {
		lock, err := os.Open(filepath.Join(dir, lockName))
		if err != nil {
			return nil, fmt.Errorf("flash: %s is not a unit's directory: %w", dir, err)
		}
		v.lock = lock
		return v, v.flock(unix.LOCK_SH)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	v.lock = lock
	if err := v.flock(unix.LOCK_EX); err != nil {
		return nil, err
	}
	// What a crash left of a segment that was being made.
	left, err := namesIn(dir, newPrefix)
	for _, name := range left {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	if err == nil {
		err = v.sync(twinfile.SyncNames) // of a meta that was given its name by a process that was killed then, too: what it says holds from now on
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("flash: %w", err), v.close())
	}
	return v, nil
}

// namesIn gives what begins with prefix in a directory. Not filepath.Glob, to which the brackets in /srv/unit[1] mean something: it would find
// no segment there, or those of /srv/unit1.
func namesIn(dir, prefix string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	for _, e := range all {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// flock locks the directory, or closes it.
func (v *directory) flock(kind int) error {
	if err := unix.Flock(int(v.lock.Fd()), kind|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("flash: %s: %w", v.dir, ErrLocked), v.close())
	}
	return nil
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

func (v *directory) sync(names func(dir string) error) error {
	if v.how.nosync {
		return nil
	}
	if err := names(v.dir); err != nil {
		return fmt.Errorf("flash: %w", err)
	}
	return nil
}

func (v *directory) path(n uint64) string { return segmentPath(v.dir, n) }

func segmentPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf(segmentName, n))
}

func (v *directory) list() ([]uint64, error) { return listSegments(v.dir) }

// listSegments gives the numbers of all segment files of a directory, in order.
func listSegments(dir string) ([]uint64, error) {
	names, err := namesIn(dir, segmentPrefix)
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	var ns []uint64
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(name, segmentName, &n); err != nil || fmt.Sprintf(segmentName, n) != name {
			return nil, fmt.Errorf("flash: %s: not a segment's name", filepath.Join(dir, name))
		}
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return ns, nil
}

func (v *directory) open(n uint64, size int64) (File, error) {
	flags := os.O_RDWR
	if v.how.readonly {
		flags = os.O_RDONLY
	}
	f, err := openFile(v.path(n), flags, v.how.nosync)
	if err != nil || v.how.readonly {
		return f, err
	}
	// A file that is too short was made before trims had a place in it, or somebody cut it: what is missing
	// reads as zero. It gets its space now, or, on a disk that is full, when it is written to.
	st, err := f.f.Stat()
	if err == nil && st.Size() < size {
		if err = f.allocate(size); noSpace(err) {
			err = nil
		}
	}
	if err == nil {
		err = f.settle()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// create allocates the file under another name, so that a segment is there with all its space or not at all.
func (v *directory) create(n uint64, size int64) (File, error) {
	tmp := filepath.Join(v.dir, fmt.Sprintf(newPrefix+"%012x", n))
	f, err := openFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, v.how.nosync)
	if err == nil {
		if err = f.allocate(size); err == nil {
			err = os.Rename(tmp, v.path(n))
		}
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(tmp))
		}
	}
	if err != nil {
		if noSpace(err) {
			err = errors.Join(ErrFull, err)
		}
		return nil, fmt.Errorf("flash: new segment: %w", err)
	}
	if err := v.sync(twinfile.SyncDir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(v.path(n)))
	}
	return f, nil
}

func (v *directory) remove(ns []uint64) error {
	var errs []error
	for _, n := range ns {
		if err := os.Remove(v.path(n)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, v.sync(twinfile.SyncDir))...)
}

func (v *directory) used(n uint64) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(v.path(n), &st); err != nil {
		return 0, fmt.Errorf("flash: %s: %w", v.path(n), err)
	}
	return st.Blocks * statBlock, nil
}

func (v *directory) slow() bool { return true }

func (v *directory) check(size, pages int64, report func(volumeProblem)) error {
	left, _ := namesIn(v.dir, newPrefix) // list tells the same error
	for _, name := range left {
		report(volumeProblem{whole: true, what: name + ": a segment whose making was cut off; the unit removes it when it starts"})
	}
	ns, err := v.list()
	if err != nil {
		return err
	}
	for _, n := range ns {
		st, err := os.Stat(v.path(n))
		if err != nil {
			return fmt.Errorf("flash: %w", err)
		}
		// A segment without room for trims is one of an older release.
		if got := st.Size(); size > 0 && got != size && got != pages {
			report(volumeProblem{segment: n, what: fmt.Sprintf("%d bytes, and a segment has %d", got, size)})
		}
	}
	return nil
}

func (v *directory) close() error { return v.lock.Close() }
