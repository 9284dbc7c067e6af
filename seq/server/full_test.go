package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// R14: a full disk keeps no sequencer from promising, not even one that has not promised yet, or whose promise an older release wrote.
func TestR14PromiseOnAFullDisk(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"fresh": func(string) error { return nil },
		"older releases": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, promiseFile), encodePromise(1, 3), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
				t.Skip("no tmpfs: ", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			b := start(t, dir, false)
			if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
				t.Fatal("the disk is not full: ", err)
			}
			for n := layout.Epoch(4); n < 7; n++ {
				if err := b.server.seal(layout.LogID{1}, n); err != nil {
					t.Fatalf("seal %d: %v", n, err)
				}
				if got, err := loadPromise(dir, 1); err != nil || got != n {
					t.Errorf("on disk: promise %d, %v; want %d", got, err, n)
				}
			}
		})
	}
}
