package flash

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// files gives inode, size and blocks of the meta and its twin, whichever is which.
func metaFiles(t *testing.T, dir string) map[uint64][2]int64 {
	t.Helper()
	all := map[uint64][2]int64{}
	for _, name := range []string{metaName, twinName} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		all[st.Ino] = [2]int64{st.Size, st.Blocks}
	}
	return all
}

// TestR14PromiseTakesNothingFromTheDisk: a save writes into the blocks that the two files have, so that a full disk cannot keep a unit from
// promising; and what stands there is the new meta.
func TestR14PromiseTakesNothingFromTheDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise = 1 }))
	before := metaFiles(t, dir)
	if len(before) != 2 {
		t.Fatalf("the meta and its twin are %v", before)
	}
	for n := layout.Epoch(2); n < 6; n++ {
		must(t, s.UpdateMeta(func(m *Meta) { m.Promise = n }))
		if after := metaFiles(t, dir); !reflect.DeepEqual(after, before) {
			t.Fatalf("a save made %v of %v", after, before)
		}
		b, err := os.ReadFile(filepath.Join(dir, metaName))
		must(t, err)
		if m, err := decodeMeta(b); err != nil || m.Promise != n || !reflect.DeepEqual(m, s.Meta()) {
			t.Errorf("on flash: %+v, %v; want promise %d", m, err, n)
		}
	}
	must(t, s.Close())
	// A power cut may leave anything in the twin.
	must(t, os.WriteFile(filepath.Join(dir, twinName), bytes.Repeat([]byte("x"), 20000), 0o600))
	s = open(t, dir, Options{})
	defer s.Close()
	if got := s.Meta().Promise; got != 5 {
		t.Errorf("promise %d after a start", got)
	}
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise = 6 }))
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	must(t, err)
	if m, err := decodeMeta(b); err != nil || m.Promise != 6 {
		t.Errorf("%+v, %v after a twin with nonsense", m, err)
	}
}

// TestMetaGrowsBeyondItsRoom: what is longer than the room gets more, once.
func TestMetaGrowsBeyondItsRoom(t *testing.T) {
	for _, c := range []struct{ n, want int }{{1, metaRoom}, {metaRoom / 2, metaRoom}, {metaRoom/2 + 1, 2 * metaRoom}, {5 * metaRoom, 16 * metaRoom}} {
		if got := roomFor(c.n); got != c.want {
			t.Errorf("room for %d bytes: %d, want %d", c.n, got, c.want)
		}
	}
	b, err := encodeMeta(Meta{Unit: 1, SegmentPages: 64})
	must(t, err)
	for _, n := range []int{0, len(b), len(b) + 1, metaRoom} {
		p := padded(b, n)
		if m, err := decodeMeta(p); len(p) != max(n, len(b)) || err != nil || m.Unit != 1 {
			t.Errorf("in %d bytes: %d bytes, %+v, %v", n, len(p), m, err)
		}
	}
}

// TestR14PromiseOfALargeLayoutOnAFullDisk: a meta of more than 16 KiB is saved where the disk filled up since the last save.
func TestR14PromiseOfALargeLayoutOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, dir, Options{})
	defer s.Close()
	grown := func(bytes int) *layout.Layout { // a layout of about so many bytes: its spares have long names
		l := testLayout(4096)
		for i := range bytes / 400 {
			l.Spares = append(l.Spares, layout.Unit{ID: layout.UnitID(100 + i), Control: strings.Repeat("x", 370) + ":1"})
		}
		return l
	}
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise, m.Log, m.Layout = 1, LogID(testLog), grown(12<<10) }))
	b, err := encodeMeta(s.Meta())
	must(t, err)
	if len(b) <= metaRoom/2 || len(b) > metaRoom {
		t.Fatalf("the first meta has %d bytes, want between %d and %d", len(b), metaRoom/2, metaRoom)
	}
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 8<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the disk is not full: ", err)
	}
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise, m.Layout = 2, grown(20<<10) }))
	must(t, s.UpdateMeta(func(m *Meta) { m.Promise = 3 }))
	if b, err = encodeMeta(s.Meta()); err != nil || len(b) <= metaRoom {
		t.Fatalf("the last meta has %d bytes, %v, want more than %d", len(b), err, metaRoom)
	}
	b, err = os.ReadFile(filepath.Join(dir, metaName))
	must(t, err)
	if m, err := decodeMeta(b); err != nil || m.Promise != 3 || !reflect.DeepEqual(m, s.Meta()) {
		t.Errorf("on flash: promise %d, %v", m.Promise, err)
	}
}

// Only a meta that names CORRUPT pages is of the format that knows of them, so that one may go back to the release before while there are none.
func TestMetaNamesCorruptPages(t *testing.T) {
	for _, x := range []struct {
		corrupt []layout.Address
		more    bool
		version int
		valid   bool
	}{
		{nil, false, 2, true}, {[]layout.Address{3, 40}, false, 3, true}, {nil, true, 3, true},
		{[]layout.Address{40, 3}, false, 3, false}, {make([]layout.Address, MaxNoted+1), true, 3, false},
	} {
		m := Meta{Unit: 1, SegmentPages: 64, Corrupt: x.corrupt, MoreCorrupt: x.more}
		b, err := encodeMeta(m)
		must(t, err)
		got, err := decodeMeta(b)
		if v := versionOfMeta(b); v != x.version || (err == nil) != x.valid || (x.valid && !reflect.DeepEqual(got, m)) {
			t.Errorf("format %d, %+v, %v; want format %d of %+v", v, got, err, x.version, m)
		}
		if len(b) > metaRoom/2 && x.valid {
			t.Errorf("%d bytes", len(b))
		}
	}
	full := Meta{Unit: 1, SegmentPages: 64, MoreCorrupt: true}
	for a := range layout.Address(MaxNoted) {
		full.Corrupt = append(full.Corrupt, 1<<36+a)
	}
	if b, err := encodeMeta(full); err != nil || len(b) > metaRoom/2 {
		t.Errorf("as many as there may be take %d bytes, %v", len(b), err)
	}
}
