// Package twinfile replaces a small file as a whole, on a disk that is full, too. What a member promised (rule R14) is kept so: if it could
// not promise any more, no epoch could be made with it.
//
// The file has a twin beside it. New bytes are written over the twin, in the blocks that it has, and synced; then the two change their names, and
// the directory is synced. At no moment is there not one that is whole, and nothing is taken from the disk, as long as the bytes are no more than
// before. The first Put makes both and needs room. A file system that copies on write (btrfs) may want room all the same.
//
// Bytes that become more over time are to be padded, and the padding to grow before it is needed: then a disk that fills up between two Puts
// keeps no Put from what it has to say. Both files are made as large as the larger of them while there is room for that.
package twinfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is such a file. One goroutine at a time uses it. Reading it is everybody's own business: what stands at Name is whole.
type File struct {
	Dir        string
	Name, Twin string // in Dir
	NoSync     bool   // of tests that lose no power

	named bool // what the two names stand for is durable, so that the twin may be written over
}

// Put replaces what the file holds: durable when it returns nil, the old or the new if it fails. fit returns the bytes, and is told how
// many the twin has room for; 0 means that there is no twin. With grow it may return more than that, to have room the next time. If the disk
// has no room for that, fit is called once more, without grow.
func (f *File) Put(fit func(room int64, grow bool) []byte) error {
	name, twin := filepath.Join(f.Dir, f.Name), filepath.Join(f.Dir, f.Twin)
	if !f.named {
		// A crash may have come between the change of names and its sync: the file that is the twin now may be the one that counts after a power cut.
		if err := f.sync(SyncNames); err != nil {
			return err
		}
		f.named = true
	}
	var room int64
	if st, err := os.Stat(twin); err == nil {
		room = st.Size()
	}
	b := fit(room, true)
	err := writeOver(twin, b, !f.NoSync)
	if full(err) && int64(len(b)) > room && room > 0 {
		b = fit(room, false)
		err = writeOver(twin, b, !f.NoSync)
	}
	if err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, twin, unix.AT_FDCWD, name, unix.RENAME_EXCHANGE); err != nil {
		// There is no file yet, or the file system cannot: then the next one needs room on the disk.
		if err = os.Rename(twin, name); err != nil {
			return err
		}
	}
	if err := f.sync(SyncDir); err != nil {
		f.named = false
		return err
	}
	st, err := os.Stat(twin)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// Where there is no room for a twin there is none, until the next Put finds some.
		if writeOver(twin, b, false) != nil {
			_ = os.Remove(twin)
		}
	case err == nil && st.Size() < int64(len(b)):
		// It is the smaller one from before. Where there is no room it stays so, until the next Put finds some.
		enlarge(twin, st.Size(), b)
	}
	return nil
}

// full reports whether err says that the disk, or the quota on it, has no room.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// enlarge makes the twin of size bytes as large as b, with bytes of b, so that its blocks are written once and no later write asks for one. If
// it cannot, the twin keeps the size that it had.
func enlarge(twin string, size int64, b []byte) {
	if writeOver(twin, b, false) != nil {
		_ = os.Truncate(twin, size)
	}
}

func (f *File) sync(names func(dir string) error) error {
	if f.NoSync {
		return nil
	}
	return names(f.Dir)
}

// SyncNames makes the names in a directory durable, and its own name in its parent. A parent that may be passed through and not opened, or
// that cannot be synced, is synced with the directory's whole file system (syncfs(2)). If it lies on another one the
// directory is a mount point, and nobody made its name here.
func SyncNames(dir string) error {
	if err := SyncDir(dir); err != nil {
		return err
	}
	err := SyncDir(filepath.Dir(filepath.Clean(dir)))
	for _, refused := range []error{unix.EACCES, unix.EPERM, unix.EROFS, unix.EINVAL} {
		if errors.Is(err, refused) {
			return syncFileSystem(dir)
		}
	}
	return err
}

// syncFileSystem syncs all of the file system on which dir lies.
func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = syncfs(int(d.Fd()))
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}

// SyncDir makes the names in a directory durable, and not its own: SyncNames did that when the directory was opened.
func SyncDir(dir string) error {
	d, err := open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// System calls; tests put others in their place.
var (
	open   = os.Open
	syncfs = unix.Syncfs
)

// writeOver makes the file hold b, in the blocks that it has as far as they go.
func writeOver(path string, b []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
