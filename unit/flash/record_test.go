package flash

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// disk is a File in memory.
type disk struct {
	b   []byte
	cut int // this write is made by half and fails, as all after it do; 0: none
}

func (d *disk) Write(bufs [][]byte, off int64, _ bool) error {
	b := bytes.Join(bufs, nil)
	if d.cut > 0 {
		if d.cut--; d.cut == 0 {
			copy(d.b[off:], b[:len(b)/2])
			d.cut = -1
		}
	}
	if d.cut < 0 {
		return errPower
	}
	copy(d.b[off:], b)
	return nil
}

func (d *disk) Read(b []byte, off int64) error { copy(b, d.b[off:]); return nil }
func (d *disk) Sync() error                    { return nil }
func (d *disk) Punch(int64, int64) error       { return nil }
func (d *disk) Used() (int64, error)           { return int64(len(d.b)), nil }
func (d *disk) Close() error                   { return nil }

func body(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 2500) }

// Three changes of a twin, each cut off at any of its writes or not at all, with a start behind each: what is read is the last one that
// was told, or one that was tried after it, and the copies agree again after a change that was not cut off.
func TestTwinUnderRepeatedCuts(t *testing.T) {
	for plan := range 27 {
		d := &disk{b: make([]byte, 4*8192)}
		told, tried := 0, 0
		for change, rest := 1, plan; change <= 3; change, rest = change+1, rest/3 {
			w := twin{magic: magicTable, owner: 7, base: 8192, size: 8192, best: 1}
			got, _, err := w.load(d)
			if err != nil {
				t.Fatalf("plan %d, change %d: %v", plan, change, err)
			}
			found := 0
			if got != nil {
				found = int(got[0])
			}
			if found < told || found > tried || (found > 0 && !bytes.Equal(got, body(found))) {
				t.Fatalf("plan %d, change %d: found %d, told %d, tried %d", plan, change, found, told, tried)
			}
			d.cut = rest % 3 // 0: none, else the first or the second write
			err = w.store(d, body(change))
			tried = change
			if err == nil {
				told = change
			}
			if (err == nil) != (rest%3 == 0) {
				t.Fatalf("plan %d, change %d: %v", plan, change, err)
			}
			d.cut = 0
			if err != nil {
				continue
			}
			for i := range 2 { // either copy alone has it
				half := &disk{b: bytes.Clone(d.b)}
				clear(half.b[8192*(1+i) : 8192*(2+i)])
				if got, _, err := w.load(half); err != nil || !bytes.Equal(got, body(change)) {
					t.Fatalf("plan %d, change %d: without copy %d: %v", plan, change, i, err)
				}
			}
		}
	}
}

// A record that is damaged anywhere, of another kind, or of another owner is not read.
func TestDamagedRecordIsNotRead(t *testing.T) {
	d := &disk{b: make([]byte, 2*4096)}
	w := twin{magic: magicTrims, owner: 7, size: 4096, best: 1}
	if err := w.store(d, []byte("trims")); err != nil {
		t.Fatal(err)
	}
	for i := range recordHead + 5 {
		bad := &disk{b: bytes.Clone(d.b)}
		bad.b[i] ^= 0x10
		bad.b[4096+i] ^= 0x10
		if got, _, err := w.load(bad); !errors.Is(err, errRecord) {
			t.Fatalf("byte %d changed: %q, %v", i, got, err)
		}
	}
	for _, x := range []twin{{magic: magicTable, owner: 7, size: 4096}, {magic: magicTrims, owner: 8, size: 4096}} {
		if got, _, err := x.load(d); !errors.Is(err, errRecord) {
			t.Fatalf("%+v: %q, %v", x, got, err)
		}
	}
	before := bytes.Clone(d.b)
	if err := w.store(d, make([]byte, 4096)); err == nil || !bytes.Equal(before, d.b) {
		t.Fatalf("too long: %v", err)
	}
}

// The record's format, byte by byte.
func TestRecordFormat(t *testing.T) {
	b := alignedBytes(recordBytes(3))
	copy(b[recordHead:], "abc")
	sealRecord(b, magicTrims, 0x0102, 0x0304, 3)
	want := "636f72667574726d" + "01000000" + "%s" + "0403000000000000" + "0201000000000000" + "0300000000000000" +
		"000000000000000000000000000000000000000000000000" + "616263"
	if got := fmt.Sprintf("%x", b[:67]); got != fmt.Sprintf(want, fmt.Sprintf("%x", b[12:16])) || len(b) != 4096 {
		t.Fatal(got)
	}
}

func FuzzRecord(f *testing.F) {
	good := alignedBytes(4096)
	copy(good[recordHead:], "body")
	sealRecord(good, magicSuper, 1, 1, 4)
	f.Add(good)
	f.Add((super{unit: 1, bytes: deviceBytes, pages: 16}).encode())
	if s, err := planSuper(3, deviceBytes, 16); err == nil {
		f.Add(s.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		block := alignedBytes(4096)
		copy(block, b)
		before := bytes.Clone(block)
		_, _, body, err := openRecord(block, string(block[:8]))
		if err == nil {
			_, _ = decodeTable(body, 100)
		}
		if s, err := decodeSuper(block); err == nil && (s.dataAt >= s.dataEnd() || s.unit == 0) {
			t.Fatalf("%+v", s)
		}
		if !bytes.Equal(before, block) {
			t.Fatal("the bytes were changed")
		}
	})
}

func FuzzTable(f *testing.F) {
	t := newTable(10)
	t.slot, t.where[3], t.where[9] = 8192, 1, 4
	f.Add(t.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeTable(b, 10)
		if err != nil {
			return
		}
		y, err := decodeTable(x.encode(), 10)
		if err != nil || len(y.where) != len(x.where) || y.slot != x.slot {
			t.Fatalf("%+v, %+v, %v", x, y, err)
		}
	})
}
