// Package scratch finds room for temporary clusters: on a file system that takes
// O_DIRECT, since a flash store on any other measures the page cache.
package scratch

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// block is the alignment and the size that every O_DIRECT file system takes, in bytes.
const block = 4096

// Dir makes a directory whose name begins with prefix, on a file system with O_DIRECT if
// $TMPDIR, /var/tmp, the user's cache or the current directory is on one, else under $TMPDIR.
// remove deletes it.
func Dir(prefix string) (dir string, remove func() error, err error) {
	roots := []string{os.TempDir(), "/var/tmp"}
	if d, err := os.UserCacheDir(); err == nil {
		roots = append(roots, d)
	}
	if d, err := os.Getwd(); err == nil {
		roots = append(roots, d)
	}
	fallback := ""
	for _, root := range roots {
		dir, err := os.MkdirTemp(root, prefix)
		if err != nil {
			continue
		}
		if Direct(dir) {
			if fallback != "" {
				_ = os.Remove(fallback)
			}
			return dir, func() error { return os.RemoveAll(dir) }, nil
		}
		if fallback == "" {
			fallback = dir
		} else {
			_ = os.Remove(dir)
		}
	}
	if fallback == "" {
		return "", nil, fmt.Errorf("no temporary directory can be made in any of %v", roots)
	}
	return fallback, func() error { return os.RemoveAll(fallback) }, nil
}

// In makes a directory whose name begins with prefix in root, which is made if it is not there; an empty root leaves the
// choice to Dir. It is a new one each time: what an earlier run left in root is nobody's concern. remove deletes it, and not root.
func In(root, prefix string) (dir string, remove func() error, err error) {
	if root == "" {
		return Dir(prefix)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(root, prefix); err != nil {
		return "", nil, err
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// Direct tells whether files in dir take O_DIRECT writes.
func Direct(dir string) bool {
	path := filepath.Join(dir, ".direct")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_DIRECT, 0o600)
	if err != nil {
		_ = os.Remove(path) // some file systems make the file and then refuse to open it so
		return false
	}
	defer os.Remove(path)
	defer f.Close()
	b, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		return false
	}
	defer unix.Munmap(b)
	_, err = f.Write(b)
	return err == nil
}
