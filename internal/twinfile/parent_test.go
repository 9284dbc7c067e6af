package twinfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A parent that may be passed through and not opened, or not synced, keeps nobody from starting:
// the file system is synced in its place. An error of the disk stays one, and the parent is not
// needed again for what is written later.
func TestAParentThatCannotBeSyncedIsSyncedWithItsFileSystem(t *testing.T) {
	defer func() { open, syncfs = os.Open, unix.Syncfs }()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	parents := 0
	for _, c := range []struct {
		refused error
		want    error
		synced  int
	}{{unix.EACCES, nil, 1}, {unix.EPERM, nil, 1}, {unix.EROFS, nil, 1}, {unix.EINVAL, nil, 1}, {unix.EIO, unix.EIO, 0}} {
		open = func(path string) (*os.File, error) {
			if path == filepath.Dir(dir) {
				parents++
				return nil, &os.PathError{Op: "open", Path: path, Err: c.refused}
			}
			return os.Open(path)
		}
		synced := 0
		syncfs = func(fd int) error { synced++; return unix.Syncfs(fd) }
		if err := SyncNames(dir); !errors.Is(err, c.want) || synced != c.synced {
			t.Errorf("%v: %v, %d file systems synced; want %v and %d", c.refused, err, synced, c.want, c.synced)
		}
		if c.want != nil {
			continue
		}
		f := &File{Dir: dir, Name: "promise", Twin: "promise.new"}
		for range 3 {
			if err := put(f, "x"); err != nil {
				t.Errorf("%v: %v", c.refused, err)
			}
		}
	}
	if parents != 5+4 {
		t.Errorf("the parent was opened %d times, want once for each start", parents)
	}
	syncfs = func(int) error { return unix.EIO }
	open = func(path string) (*os.File, error) {
		if path == filepath.Dir(dir) {
			return nil, unix.EACCES
		}
		return os.Open(path)
	}
	if err := SyncNames(dir); !errors.Is(err, unix.EIO) {
		t.Errorf("a file system that cannot be synced: %v, want EIO", err)
	}
}
