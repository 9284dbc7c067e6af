package flash

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
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
	return filledAt(t, t.TempDir(), n, settled)
}

func filledAt(t testing.TB, dir string, n, settled layout.Address) string {
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

// Batches are counted with their records, by their first pages; one that no reader can take apart is a problem.
func TestFsckCountsRecords(t *testing.T) {
	batch := append(wire.AppendBatchHead(nil, []int{1, 0, 3}), "abcd"...)
	large := wire.AppendBatchHead(nil, make([]int, 5000))
	part := func(number int, payload []byte) []byte {
		return append(wire.Fragment{Entry: wire.Attempt(3), Length: len(large), Number: number, Count: 2}.Append(nil), payload...)
	}
	pages := []struct {
		flags wire.PageFlags
		ext   int
		body  []byte
	}{
		{0, 0, []byte{3, 1, 0, 3}}, // a payload that only looks like one
		{wire.FlagBatch, 0, batch},
		{wire.FlagBatch | wire.FlagFragment | wire.FlagExtension, wire.FragmentSize, part(0, large[:3000])},
		{wire.FlagBatch | wire.FlagFragment | wire.FlagExtension, wire.FragmentSize, part(1, large[3000:])},
		{wire.FlagBatch, 0, batch[:len(batch)-1]},
	}
	dir := filled(t, 0, 0)
	s, err := Open(dir, 1, Options{SegmentPages: 16, NoSync: true}, quiet())
	must(t, err)
	for a, p := range pages {
		b := alignedBytes(4096)
		copy(b[wire.HeaderSize:], p.body)
		wire.SealPage(b, wire.Header{Flags: wire.FlagData | p.flags, Length: len(p.body), Extension: p.ext, Log: testLog, Position: layout.Position(a), Epoch: 1, Attempt: wire.Attempt(a) + 1})
		must(t, s.Write([]Page{{Address: layout.Address(a), Bytes: b}}))
	}
	must(t, s.Close())
	sum, all := fsck(t, dir)
	if want := (Summary{Entries: 5, Batches: 2, Records: 5003, Problems: 1, Watermark: 5, End: 5}); sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
	if len(all) != 1 || all[0].Address != 4 || !strings.Contains(all[0].What, "not a valid batch of records") {
		t.Errorf("problems %+v, want one at address 4", all)
	}
}
