package flash

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A disk is found under its own number and under that of a partition; what is no block device has none.
func TestTheDiskUnderAStoreIsTheWholeOne(t *testing.T) {
	sys := t.TempDir() // made up after Documentation/ABI/stable/sysfs-block
	disk := filepath.Join(sys, "devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1")
	for _, dir := range []string{filepath.Join(disk, "nvme0n1p2"), filepath.Join(sys, "dev/block")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "nvme0n1p2", "partition"), []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]string{"259:0": disk, "259:2": filepath.Join(disk, "nvme0n1p2")} {
		if err := os.Symlink(at, filepath.Join(sys, "dev/block", name)); err != nil {
			t.Fatal(err)
		}
	}
	for minor, want := range map[uint32]string{0: "nvme0n1", 2: "nvme0n1", 7: ""} {
		if got := diskOf(sys, 259, minor); got != want {
			t.Errorf("259:%d: %q, want %q", minor, got, want)
		}
	}
}

// Wear counts what reached the disk: the pages, and more than them; a write that was refused is an error, and no bytes.
func TestWearCountsWhatReachesTheDisk(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		var refuse bool
		s := readyAt(t, path, Options{Wrap: func(_ string, f File) File { return refusing{f, &refuse} }})
		before := s.Wear()
		pages := []Page{page(3, 0), page(4, 0), page(5, 0)}
		if err := s.Write(pages); err != nil {
			t.Fatal(err)
		}
		w, size := s.Wear(), int64(len(pages[0].Bytes))
		if got := w.Pages - before.Pages; got != 3*size {
			t.Errorf("%d bytes of pages, want %d", got, 3*size)
		}
		if w.Written < before.Written+3*size || w.ReadErrors+w.WriteErrors != 0 {
			t.Errorf("%+v, was %+v", w, before)
		}
		refuse = true
		if s.Write(pages) == nil {
			t.Fatal("a refused write succeeded")
		}
		if s.ReadPage(3, make([]byte, size)) == nil {
			t.Fatal("a refused read succeeded")
		}
		if now := s.Wear(); now.Pages != w.Pages || now.WriteErrors == 0 || now.ReadErrors == 0 {
			t.Errorf("after a refusal %+v, was %+v", now, w)
		}
		if free, err := s.Free(); err != nil || free <= 0 {
			t.Errorf("free: %d, %v", free, err)
		}
	})
}

// refusing is a file that refuses everything when it is told to.
type refusing struct {
	File
	on *bool
}

var errRefused = errors.New("refused")

func (f refusing) Write(bufs [][]byte, off int64, sync bool) error {
	if *f.on {
		return errRefused
	}
	return f.File.Write(bufs, off, sync)
}

func (f refusing) Read(b []byte, off int64) error {
	if *f.on {
		return errRefused
	}
	return f.File.Read(b, off)
}
