package server

import (
	"bytes"
	"errors"
	"log/slog"
	"syscall"
	"testing"

	"corfu/layout"
	"corfu/unit/flash"
)

// counting counts the reads of segment files; those that touch the bad page fail.
type counting struct {
	flash.File
	reads *int
	bad   int64 // offset, or negative
}

func (f counting) Read(b []byte, off int64) error {
	*f.reads++
	if f.bad >= off && f.bad < off+int64(len(b)) {
		return syscall.EIO
	}
	return f.File.Read(b, off)
}

// Runs give what single reads give, with far fewer of them, over the ends of segments and around a page that cannot be read.
func TestRunsAreAsPages(t *testing.T) {
	const pages, perSegment, size = 100, 32, 4096
	for name, bad := range map[string]int64{"sound": -1, "a bad page in each segment": 20 * size} {
		t.Run(name, func(t *testing.T) {
			reads := 0
			o := flash.Options{SegmentPages: perSegment, Wrap: func(_ string, f flash.File) flash.File { return counting{f, &reads, bad} }}
			store, err := flash.Open(t.TempDir(), 1, o, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			l := &layout.Layout{Log: layout.LogID{7}, Epoch: 1, Geometry: layout.Geometry{PageSize: size, Window: 64, SessionSlots: 1, MaxSessions: 1},
				Sequencer: layout.Sequencer{ID: 1, Control: "s"}, Units: []layout.Unit{{ID: 1, Control: "u"}},
				Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1}}}}}}
			if err := store.UpdateMeta(func(m *flash.Meta) { m.Log, m.Layout = flash.LogID(l.Log), l }); err != nil {
				t.Fatal(err)
			}
			var all []flash.Page
			for a := range layout.Address(pages) {
				all = append(all, flash.Page{Address: a, Bytes: bytes.Repeat([]byte{byte(a + 1)}, size)})
			}
			if err := store.Write(all); err != nil {
				t.Fatal(err)
			}
			r := (&Server{store: store}).newRuns(size)
			reads = 0
			for a := layout.Address(3); a < pages; a++ {
				if a%7 == 0 {
					continue // ascending, with gaps
				}
				got, err := r.page(a, pages)
				want := make([]byte, size)
				if e := store.ReadPage(a, want); !errors.Is(err, e) || err == nil && !bytes.Equal(got, want) {
					t.Errorf("address %d: %v, alone %v", a, err, e)
				}
			}
			singly := pages - 3 - pages/7
			if most := singly/4 + 3*20; reads-singly > most {
				t.Errorf("%d reads for %d pages, at most %d expected", reads-singly, singly, most)
			}
			// Nothing from below on is read, and nothing is remembered that was to be forgotten.
			r.forget()
			reads = 0
			if _, err := r.page(0, 1); err != nil || r.count != 1 || reads != 1 {
				t.Errorf("%v: %d pages with %d reads", err, r.count, reads)
			}
			r.forget()
			if _, err := r.page(0, 1); err != nil || reads != 2 {
				t.Errorf("%v: %d reads in all", err, reads)
			}
		})
	}
}
