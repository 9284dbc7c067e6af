package flash

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// entryPage is a whole entry of address a, which is position a.
func entryPage(a layout.Address) Page {
	b := alignedBytes(4096)
	n := copy(b[wire.HeaderSize:], bytes.Repeat([]byte{byte(a), byte(a >> 8)}, 300))
	wire.SealPage(b, wire.Header{Flags: wire.FlagData, Length: n, Log: testLog, Position: layout.Position(a), Epoch: 1, Attempt: wire.Attempt(a) + 1})
	return Page{Address: a, Bytes: b}
}

// filled is the closed directory of a store with n entries, all below settled noted as durable.
func filled(t testing.TB, n, settled layout.Address) string {
	dir := t.TempDir()
	s, err := Open(dir, 1, Options{SegmentPages: 16, NoSync: true}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	err = s.UpdateMeta(func(m *Meta) {
		m.Log, m.Layout, m.SettledBelow = LogID(testLog), testLayout(4096), settled
	})
	for a := range n {
		err = errors.Join(err, s.Write([]Page{entryPage(a)}))
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fsck(t *testing.T, dir string) (Summary, []Problem) {
	t.Helper()
	in, err := OpenInspector(dir)
	must(t, err)
	defer in.Close()
	var all []Problem
	sum, err := in.Check(func(p Problem) { all = append(all, p) })
	must(t, err)
	return sum, all
}

func damage(t *testing.T, dir, name string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(b, off)
	must(t, errors.Join(err, f.Close()))
}

func TestFsckFindsEveryProblemAndNoOther(t *testing.T) {
	dir := filled(t, 40, 36)
	if sum, all := fsck(t, dir); len(all) != 0 || sum != (Summary{Entries: 40, Settled: 36, Watermark: 40, End: 40}) {
		t.Fatalf("a sound store: %+v %v", sum, all)
	}
	before, err := os.ReadFile(filepath.Join(dir, metaName))
	must(t, err)
	damage(t, dir, "seg-000000000000", 3*4096+70, []byte{0xff})              // a bit flip at rest
	damage(t, dir, "seg-000000000000", 5*4096, make([]byte, 4096))           // lost
	damage(t, dir, "seg-000000000000", 7*4096, entryPage(8).Bytes)           // at the wrong place
	damage(t, dir, "seg-000000000002", (38-32)*4096+100, []byte{1, 2, 3, 4}) // torn: above what was noted
	damage(t, dir, "seg-000000000002", 0, make([]byte, 64))                  // 32, below
	must(t, os.Remove(filepath.Join(dir, "seg-000000000001")))               // 16 to 31
	must(t, os.WriteFile(filepath.Join(dir, "new-000000000003"), []byte{1}, 0o600))
	sum, all := fsck(t, dir)
	var at []layout.Address
	for _, p := range all {
		if p.Count > 0 && (!p.Mapped || p.Position != layout.Position(p.Address)) {
			t.Errorf("%+v", p)
		}
		at = append(at, p.Address)
	}
	if !slices.Equal(at, []layout.Address{0, 3, 5, 7, 16, 32}) || all[4].Count != 16 {
		t.Fatalf("%+v", all)
	}
	if want := (Summary{Entries: 40 - 16 - 5, Torn: 1, Problems: 6, Settled: 36, Watermark: 3, End: 40}); sum != want {
		t.Fatalf("%+v, want %+v", sum, want)
	}
	must(t, Repair(dir, sum)) // never goes back
	if after, _ := os.ReadFile(filepath.Join(dir, metaName)); !bytes.Equal(before, after) {
		t.Fatal("the meta file changed")
	}
}

func TestRepairNotesWhatVerifies(t *testing.T) {
	dir := filled(t, 40, 3)
	sum, _ := fsck(t, dir)
	must(t, Repair(dir, sum))
	s := open(t, dir, Options{})
	if m := s.Meta(); m.SettledBelow != 40 {
		t.Fatalf("%+v", m)
	}
	if _, err := OpenInspector(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("looked at while it runs: %v", err)
	}
}

// window is unit.Memory without a fabric.
type window struct {
	words []wire.Word
	ring  []byte
}

func (m *window) LoadWord(i int) wire.Word          { return m.words[i] }
func (m *window) StoreWord(i int, w wire.Word)      { m.words[i] = w }
func (m *window) StoreEpoch(layout.Epoch)           {}
func (m *window) Ring() []byte                      { return m.ring }
func (m *window) Staging(s wire.StagingSlot) []byte { return nil }

// Whatever happens to the bytes of a store: a start does not panic, and every address holds its own entry, or says that
// it is damaged, or (above what was noted as durable) that it is empty. Never another entry, never changed bytes.
func FuzzMutilatedStore(f *testing.F) {
	f.Add(uint32(3*4096+70), []byte{0xff}, uint8(0), false)
	f.Add(uint32(0), bytes.Repeat([]byte{0}, 5000), uint8(1), false)
	f.Add(uint32(4096), entryPage(2).Bytes, uint8(0), true)
	f.Add(uint32(100), []byte{}, uint8(2), true)
	const n, settled = 40, 36
	f.Fuzz(func(t *testing.T, off uint32, b []byte, seg uint8, cut bool) {
		dir := filled(t, n, settled)
		name := filepath.Base(segmentPath(dir, uint64(seg%3)))
		at := int64(off % (16 * 4096))
		if cut {
			must(t, os.Truncate(filepath.Join(dir, name), at))
		} else {
			damage(t, dir, name, at, b[:min(len(b), int(16*4096-at))])
		}
		in, err := OpenInspector(dir)
		must(t, err)
		_, err = in.Check(func(Problem) {})
		must(t, errors.Join(err, in.Close()))
		s, err := Open(dir, 1, Options{NoSync: true}, quiet())
		must(t, err)
		defer s.Close()
		u := unit.New(1, testLog, 1)
		m := &window{make([]wire.Word, 64), alignedBytes(64 * 4096)}
		u.SetMemory(testLayout(4096), m)
		must(t, u.Load(s, settled, 0))
		page := alignedBytes(4096)
		for a := range layout.Address(n) {
			must(t, s.ReadPage(a, page))
			want := entryPage(a).Bytes
			if state, h := unit.Classify(page, testLog, layout.Position(a)); state == wire.Durable {
				length := wire.HeaderSize + h.Length
				if !bytes.Equal(page[:length], want[:length]) {
					t.Fatalf("address %d: another entry verifies", a)
				}
			}
			if a < u.View().Base {
				continue
			}
			switch w := m.words[a]; {
			case w.State() == wire.Durable && bytes.Equal(m.ring[a*4096:][:wire.HeaderSize+600], want[:wire.HeaderSize+600]):
			case w.State() == wire.Corrupt, w.State() == wire.Empty && a >= settled:
			default:
				t.Fatalf("address %d: word %v", a, w)
			}
		}
	})
}
