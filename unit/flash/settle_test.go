package flash

import (
	"errors"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// TestR3WhatAKilledProcessWroteIsSyncedBeforeItIsRead: it lies in the drive's cache maybe, and a power cut would take it, after readers had it. Where the
// disk cannot sync it nobody reads it.
func TestR3WhatAKilledProcessWroteIsSyncedBeforeItIsRead(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		must(t, s.Write([]Page{page(3, 7)}))
		must(t, s.Close())
		fdatasync = func(int) error { return unix.EIO }
		defer func() { fdatasync = unix.Fdatasync }()
		s, err := Open(path, 1, Options{}, quiet())
		if err == nil {
			defer s.Close()
			err = s.ReadPage(3, alignedBytes(4096))
		}
		if !errors.Is(err, unix.EIO) {
			t.Errorf("read: %v", err)
		}
		if s != nil {
			must(t, s.Close())
		}
		fdatasync = unix.Fdatasync
		wantPage(t, open(t, path, Options{}), page(3, 7))
	})
}

// TestR3PagesThatCouldNotBeWrittenAreDropped from the page cache: a process that starts after one that got EIO would find them there.
func TestR3PagesThatCouldNotBeWrittenAreDropped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "segment")
	f, err := openFile(path, unix.O_RDWR|unix.O_CREAT, false)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	f.direct = false // as on a file system that knows no O_DIRECT
	var calls []string
	fdatasync = func(int) error { calls = append(calls, "fdatasync"); return unix.EIO }
	fadvise = func(_ int, off, n int64, advice int) error {
		if off == 0 && n == 0 && advice == unix.FADV_DONTNEED {
			calls = append(calls, "drop")
		}
		return nil
	}
	defer func() { fdatasync, fadvise = unix.Fdatasync, unix.Fadvise }()
	if err := f.settle(); !errors.Is(err, unix.EIO) || !reflect.DeepEqual(calls, []string{"fdatasync", "drop"}) {
		t.Errorf("%v, %v", calls, err)
	}
}
