package twinfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inodes gives size and blocks of the file and its twin, whichever is which.
func inodes(t *testing.T, f *File) map[uint64][2]int64 {
	t.Helper()
	all := map[uint64][2]int64{}
	for _, name := range []string{f.Name, f.Twin} {
		info, err := os.Stat(filepath.Join(f.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		all[st.Ino] = [2]int64{st.Size, st.Blocks}
	}
	return all
}

func put(f *File, b string) error { return f.Put(func(int64) []byte { return []byte(b) }) }

func check(t *testing.T, f *File, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(f.Dir, f.Name)); err != nil || string(got) != want {
		t.Errorf("it holds %q, %v; want %q", got, err, want)
	}
}

func TestPutTakesNothingFromTheDisk(t *testing.T) {
	f := &File{Dir: t.TempDir(), Name: "promise", Twin: "promise.new"}
	if err := put(f, "epoch 1"); err != nil {
		t.Fatal(err)
	}
	before := inodes(t, f)
	for _, b := range []string{"epoch 2", "epoch 3", "epoch 4"} {
		if err := put(f, b); err != nil {
			t.Fatal(err)
		}
		check(t, f, b)
		if after := inodes(t, f); len(after) != 2 || !reflect.DeepEqual(after, before) {
			t.Errorf("%q made %v of %v", b, after, before)
		}
	}
	// A power cut may leave anything in the twin, and another process goes on.
	if err := os.WriteFile(filepath.Join(f.Dir, f.Twin), bytes.Repeat([]byte("x"), 20000), 0o600); err != nil {
		t.Fatal(err)
	}
	f = &File{Dir: f.Dir, Name: f.Name, Twin: f.Twin}
	if err := put(f, "epoch 5"); err != nil {
		t.Fatal(err)
	}
	check(t, f, "epoch 5")
}

// TestPutOnAFullDisk fills a small file system.
func TestPutOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f := &File{Dir: dir, Name: "promise", Twin: "promise.new"}
	if err := put(f, "epoch 1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the disk is not full: ", err)
	}
	for _, b := range []string{"epoch 2", "epoch 3"} {
		if err := put(f, b); err != nil {
			t.Errorf("%q: %v", b, err)
		}
		check(t, f, b)
	}
	// Without a twin there is no room: the old one stays, whole.
	if err := os.Remove(filepath.Join(dir, f.Twin)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the disk is not full: ", err)
	}
	if err := put(f, "epoch 4"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("without a twin: %v", err)
	}
	check(t, f, "epoch 3")
}
