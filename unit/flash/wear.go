package flash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// metered counts what is written to a segment.
type metered struct {
	File
	s  *Store
	os *osFile // under File; nil if there is none
}

func (m metered) Write(bufs [][]byte, off int64, sync bool) error {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	err := m.File.Write(bufs, off, sync)
	if err == nil {
		m.s.wrote.Add(n)
		m.s.noteRefused(m.os)
	} else {
		m.s.writeErrors.Add(1)
	}
	return err
}

// noteRefused warns once that the kernel refuses RWF_DSYNC.
func (s *Store) noteRefused(f *osFile) {
	if f == nil || !f.plain.Load() {
		return
	}
	s.plain.Do(func() {
		s.log.Warn("pwritev2 with RWF_DSYNC is refused: writing with pwritev and fdatasync, which is slower", "dir", s.dir)
	})
}

func (m metered) Read(b []byte, off int64) error {
	err := m.File.Read(b, off)
	if err != nil {
		m.s.readErrors.Add(1)
	}
	return err
}

// Wear is what a store did to its disk since it was opened.
type Wear struct {
	Pages   int64 // bytes of pages that it was given, and that are on flash
	Written int64 // bytes written in all: pages, zeros in front of them, marks of trims, metas. Divided by Pages: its write amplification

	ReadErrors, WriteErrors int64 // calls that the disk refused
}

// Wear tells what the store did to its disk. What the disk itself moves about is not in it.
func (s *Store) Wear() Wear {
	return Wear{Pages: s.pages.Load(), Written: s.wrote.Load(), ReadErrors: s.readErrors.Load(), WriteErrors: s.writeErrors.Load()}
}

// Free is how many bytes more the store may take: what its capacity leaves, and what the file system has for it, or the device.
func (s *Store) Free() (int64, error) {
	free, err := s.vol.free()
	if c := s.opts.Capacity; err == nil && c > 0 {
		free = min(free, max(0, c-s.used.Load()))
	}
	return free, err
}

// free implements volume: blocks that an ordinary user may have (statfs(2), f_bavail).
func (v *directory) free() (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(v.dir, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return int64(st.Bavail) * st.Bsize, err
	}
}

// free implements volume: the slots that hold no segment.
func (v *device) free() (int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	size := v.table.slot
	if size == 0 { // no segment was made yet
		return v.super.dataEnd() - v.super.dataAt, nil
	}
	return int64(max(0, v.slots(size)-len(v.table.where))) * size, nil
}

// Disk is the whole block device under the store as the kernel names it, such as "nvme0n1"; "": there is none, or it is not to be told
// (an overlay, a tmpfs, a file system over several). Source: /sys/dev/block/MAJOR:MINOR, Documentation/ABI/stable/sysfs-dev; a
// partition has a file "partition" and lies in the folder of its disk (Documentation/ABI/stable/sysfs-block).
func (s *Store) Disk() string { return diskUnder(s.dir, "/sys") }

func diskUnder(path, sys string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	dev := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	}
	return diskOf(sys, unix.Major(dev), unix.Minor(dev))
}

func diskOf(sys string, major, minor uint32) string {
	at, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", major, minor)))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(at, "partition")); err == nil {
		at = filepath.Dir(at)
	}
	return filepath.Base(at)
}
