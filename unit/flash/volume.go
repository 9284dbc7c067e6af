package flash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// volume is what segments and the meta lie on: a directory or a device. Its metas and its segments are used by one
// goroutine at a time each; the files that it gives are not bound to that.
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
	// used is what segment n, which is in the list, takes of the volume, in bytes.
	used(n uint64) (int64, error)
	// free is how many bytes more segments may take.
	free() (int64, error)
	// slow tells whether the first write to a block of a new segment is slower than the next ones.
	slow() bool
	// check calls report with what a sound volume does not have; segments have size bytes (0: not known yet), of which pages hold pages.
	check(size, pages int64, report func(volumeProblem)) error
	close() error
}

// volumeProblem is something wrong with a volume, or with a segment as a whole.
type volumeProblem struct {
	segment uint64
	whole   bool // of the volume: segment says nothing
	what    string
}

// access is how a volume is opened.
type access struct {
	readonly bool          // nothing is changed; others may read beside
	nosync   bool          // test control, see Options.NoSync
	id       layout.UnitID // of the unit, to format a device; 0: do not
	pages    int           // in a segment, the same
	format   bool          // a device that holds something else may be formatted
}

// openVolume opens what path names: a block device (or a file of fixed size, which is treated like one), else a directory.
func openVolume(path string, how access) (volume, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "/dev/"):
		return nil, fmt.Errorf("flash: there is no device %s", path)
	case err == nil && !st.IsDir() && !st.Mode().IsRegular() && st.Mode().Type() != os.ModeDevice: // a character device, a pipe …
		return nil, fmt.Errorf("flash: %s is neither a directory nor a block device", path)
	case err == nil && !st.IsDir():
		return openDevice(path, how)
	}
	return openDirectory(path, how)
}

func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// place is where the page of an address lies.
func (x *shape) place(a layout.Address) (segment uint64, off int64) {
	n := uint64(x.perFile)
	return uint64(a) / n, int64(uint64(a)%n) * int64(x.pageSize)
}

// pageBytes is the space of the pages of one segment.
func (x *shape) pageBytes() int64 { return int64(x.perFile) * int64(x.pageSize) }

// segmentBytes is the space of one segment: its pages, and its trims twice.
func (x *shape) segmentBytes() int64 {
	t := x.trimTwin(0)
	return x.pageBytes() + 2*int64(t.size)
}
