package flash

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reversion makes the record in b one of another format, whole, as a release to come would write it.
func reversion(b []byte, version uint32) {
	binary.LittleEndian.PutUint32(b[8:], version)
	clear(b[12:16])
	n := recordHead + binary.LittleEndian.Uint64(b[32:])
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:n], castagnoli))
}

// R14, R3: where a newer release wrote one copy of a record, the other one is what stood there before: its promise, or its trims, are not
// taken for the last word, and nothing is written over.
func TestR14NewerRecordIsRefusedNotSkipped(t *testing.T) {
	for copied := range 2 {
		d := &disk{b: make([]byte, 2*4096)}
		w := twin{magic: magicMeta, owner: 7, size: 4096, best: 1}
		must(t, w.store(d, []byte("promise")))
		reversion(d.b[4096*copied:][:4096], recordVersion+1)
		if got, _, err := w.load(d); got != nil || !errors.Is(err, errNewer) {
			t.Errorf("copy %d is newer: %q, %v", copied, got, err)
		}
		// A version that is damage is damage: the other copy counts.
		d.b[4096*copied+8] = 77
		if got, _, err := w.load(d); string(got) != "promise" || err != nil {
			t.Errorf("copy %d is damaged: %q, %v", copied, got, err)
		}
	}
}

// A device of a release to come is refused with a line that says so, --format or not, and stays as it is.
func TestNewerDeviceIsRefused(t *testing.T) {
	path := blank(t)
	s, err := Open(path, 1, Options{SegmentPages: 16}, quiet())
	must(t, err)
	must(t, s.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	for _, at := range []int{0, deviceBytes - align, align, align + metaRecord} { // superblocks, metas
		b := append([]byte(nil), good...)
		reversion(b[at:], recordVersion+1)
		must(t, os.WriteFile(path, b, 0o600))
		for _, format := range []bool{false, true} {
			_, err := Open(path, 1, Options{Format: format}, quiet())
			if err == nil || !strings.Contains(err.Error(), "newer corfu") {
				t.Errorf("record at %d, format %v: %v", at, format, err)
			}
		}
		if after, _ := os.ReadFile(path); string(after) != string(b) {
			t.Errorf("record at %d: the device was changed", at)
		}
	}
}

// Trims of a release to come: the segment is not read without them, and they are not written over.
func TestNewerTrimsAreNotLost(t *testing.T) {
	dir := filled(t, 16, 16)
	s := open(t, dir, Options{})
	must(t, s.Trim(trimsOf(1)))
	punched(t, s)
	must(t, s.Close())
	path := filepath.Join(dir, "seg-000000000000")
	b, err := os.ReadFile(path)
	must(t, err)
	reversion(b[16*4096:], recordVersion+1)
	must(t, os.WriteFile(path, b, 0o600))
	s, err = Open(dir, 1, Options{}, quiet())
	if err == nil {
		err = errors.Join(s.Trim(trimsOf(2)), s.Close())
	}
	if !errors.Is(err, errNewer) {
		t.Error(err)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after[16*4096:]) != string(b[16*4096:]) {
		t.Errorf("the trims were changed (%v)", err)
	}
}
