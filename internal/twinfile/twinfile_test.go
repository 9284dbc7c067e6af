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

func put(f *File, b string) error { return f.Put(func(int64, bool) []byte { return []byte(b) }) }

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

// TestPutGrowsBeforeItNeedsTo: while there is room both files grow to the padding that was asked for; on a disk without room what fits goes.
func TestPutGrowsBeforeItNeedsTo(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f := &File{Dir: dir, Name: "meta", Twin: "meta.tmp"}
	padded := func(n, room int) error { // n bytes of a kind, in room bytes if it may grow
		return f.Put(func(has int64, grow bool) []byte {
			size := max(int64(n), has)
			if grow {
				size = max(size, int64(room))
			}
			return append(bytes.Repeat([]byte{'a' + byte(n%26)}, n), make([]byte, int(size)-n)...)
		})
	}
	holds := func(n int) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil || !bytes.Equal(bytes.TrimRight(b, "\x00"), bytes.Repeat([]byte{'a' + byte(n%26)}, n)) {
			t.Errorf("it does not hold its %d bytes: %d bytes, %v", n, len(b), err)
		}
	}
	sizes := func(want ...int64) {
		t.Helper()
		for i, name := range []string{f.Name, f.Twin} {
			if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() != want[i] {
				t.Fatalf("%s has %d bytes, %v, want %d", name, st.Size(), err, want[i])
			}
		}
	}
	for _, x := range []struct{ n, room int }{{3000, 16 << 10}, {12000, 32 << 10}} {
		if err := padded(x.n, x.room); err != nil {
			t.Fatal(err)
		}
		holds(x.n)
		sizes(int64(x.room), int64(x.room))
	}
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the disk is not full: ", err)
	}
	for n := 18000; n <= 30000; n += 4000 { // each wants more padding than there is room for
		if err := padded(n, 64<<10); err != nil {
			t.Errorf("%d bytes on a full disk: %v", n, err)
		}
		holds(n)
		sizes(32<<10, 32<<10)
	}
	if err := padded(40000, 80<<10); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than there is room for: %v", err)
	}
	holds(30000)
	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
	if err := padded(30000, 64<<10); err != nil {
		t.Fatal(err)
	}
	holds(30000)
	sizes(64<<10, 64<<10)
}
