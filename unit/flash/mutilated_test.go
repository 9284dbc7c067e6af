package flash

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// window is unit.Memory without a fabric.
type window struct {
	words []wire.Word
	ring  []byte
}

func (m *window) LoadWord(i int) wire.Word          { return m.words[i] }
func (m *window) StoreWord(i int, w wire.Word)      { m.words[i] = w }
func (m *window) LoadEpoch() layout.Epoch           { return 1 }
func (m *window) StoreEpoch(layout.Epoch)           {}
func (m *window) Ring() []byte                      { return m.ring }
func (m *window) Staging(s wire.StagingSlot) []byte { return nil }

// Whatever happens to the bytes of a store, pages, trims, meta, superblock or table: a start does not panic, it fails or every address
// holds its own entry, or says that it was trimmed if it was, that it is damaged, or (above what was noted as durable) that
// it is empty. Never another entry, never changed bytes.
func FuzzMutilatedStore(f *testing.F) {
	f.Cleanup(func() {
		if theWhole != nil {
			_ = os.RemoveAll(filepath.Dir(theWhole.dir))
			theWhole = nil
		}
	})
	f.Add(uint32(3*4096+70), []byte{0xff}, uint8(0), false)
	f.Add(uint32(0), bytes.Repeat([]byte{0}, 5000), uint8(1), false)
	f.Add(uint32(4096), entryPage(2).Bytes, uint8(0), true)
	f.Add(uint32(100), []byte{}, uint8(2), true)
	f.Add(uint32(16*4096+64), []byte{0xff, 0xff}, uint8(0), false)    // trims, first copy
	f.Add(uint32(17*4096+12), []byte{1}, uint8(1), false)             // second one
	f.Add(uint32(16*4096), make([]byte, 8192), uint8(1), false)       // both
	f.Add(uint32(16*4096+5), []byte{}, uint8(0), true)                // cut off
	f.Add(uint32(10), []byte{1}, uint8(4), false)                     // meta
	f.Add(uint32(20), []byte{9}, uint8(3), false)                     // superblock
	f.Add(uint32(4096+70), []byte{9}, uint8(3), false)                // meta on a device
	f.Add(uint32(4096+2<<20+70), []byte{9}, uint8(3), false)          // table
	f.Add(uint32(4096+2<<20), make([]byte, 40<<10), uint8(3), false)  // both its copies
	f.Add(uint32(3<<20+3*4096), entryPage(9).Bytes, uint8(3), false)  // a page in a slot
	f.Add(uint32(3<<20+16*4096), make([]byte, 8192), uint8(3), false) // trims in a slot
	f.Add(uint32(4096+1<<20+200), []byte("garbage"), uint8(3), true)  // half a device
	f.Fuzz(func(t *testing.T, off uint32, b []byte, where uint8, cut bool) {
		path := mutilated(t, off, b, where, cut)
		if in, err := OpenInspector(path); err == nil {
			_, _ = in.Check(func(Problem) {})
			must(t, in.Close())
		}
		s, err := Open(path, 1, Options{NoSync: true}, quiet())
		if err != nil {
			return // it says so, and serves nothing
		}
		defer s.Close()
		judgeStore(t, s)
	})
}

// The store that is mutilated: 40 entries, all below 36 noted as durable, two trimmed.
const (
	fuzzEntries = layout.Address(40)
	fuzzSettled = layout.Address(36)
)

func fuzzTrimmed(a layout.Address) bool { return a == 5 || a == 20 }

// mutilated changes or cuts one file of a directory, its meta, or a device.
func mutilated(t *testing.T, off uint32, b []byte, where uint8, cut bool) string {
	path, name, size := t.TempDir(), metaName, int64(400)
	switch where %= 5; where {
	case 3:
		path, name, size = filepath.Join(path, "device"), "", deviceBytes
		must(t, os.WriteFile(path, wholeStore(t).device, 0o600))
	case 4:
	default:
		name, size = filepath.Base(segmentPath(path, uint64(where))), segmentSize
	}
	if where != 3 {
		must(t, os.CopyFS(path, os.DirFS(wholeStore(t).dir)))
	}
	at := int64(off) % size
	if cut {
		must(t, os.Truncate(filepath.Join(path, name), at))
	} else {
		damage(t, path, name, at, b[:min(len(b), int(size-at))])
	}
	return path
}

// whole is the store before anything happens to it, made once.
type whole struct {
	dir    string
	device []byte
}

var theWhole *whole

func wholeStore(t *testing.T) *whole {
	if theWhole != nil {
		return theWhole
	}
	dir, err := os.MkdirTemp("", "corfu-fuzz-")
	must(t, err)
	w := &whole{dir: filepath.Join(dir, "directory")}
	device := filepath.Join(dir, "device")
	must(t, errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, deviceBytes)))
	for _, path := range []string{w.dir, device} {
		filledAt(t, path, fuzzEntries, fuzzSettled)
		s, err := Open(path, 1, Options{NoSync: true}, quiet())
		must(t, err)
		must(t, errors.Join(s.Trim(trimsOf(5, 20)), s.Close()))
	}
	w.device, err = os.ReadFile(device)
	must(t, errors.Join(err, os.Remove(device)))
	theWhole = w
	return w
}

// judgeStore starts a unit on s and looks at all that it holds.
func judgeStore(t *testing.T, s *Store) {
	meta := s.Meta()
	if meta.Layout == nil {
		return
	}
	u := unit.New(1, testLog, 1)
	m := &window{make([]wire.Word, 64), alignedBytes(64 * 4096)}
	u.SetMemory(testLayout(4096), m)
	if u.Load(s, meta.SettledBelow, 0) != nil {
		return
	}
	page := alignedBytes(4096)
	for a := range fuzzEntries {
		if s.ReadPage(a, page) != nil {
			continue
		}
		want := entryPage(a).Bytes
		state, h := unit.Classify(page, testLog, layout.Position(a))
		if n := wire.HeaderSize + h.Length; state == wire.Durable && !bytes.Equal(page[:n], want[:n]) {
			t.Fatalf("address %d: another entry verifies", a)
		}
		if state == wire.Trimmed && !fuzzTrimmed(a) {
			t.Fatalf("address %d: trimmed by nobody", a)
		}
		if a < u.View().Base {
			continue
		}
		switch w := m.words[a]; {
		case w.State() == wire.Durable && bytes.Equal(m.ring[a*4096:][:wire.HeaderSize+600], want[:wire.HeaderSize+600]):
		case w.State() == wire.Corrupt, w.State() == wire.Empty && a >= meta.SettledBelow:
		case w.State() == wire.Trimmed && fuzzTrimmed(a):
		default:
			t.Fatalf("address %d: word %v", a, w)
		}
	}
}
