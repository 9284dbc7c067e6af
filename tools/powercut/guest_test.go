package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit/flash"
)

// runGuest is one boot on this machine, over tcp, and what it told.
func runGuest(t *testing.T, g guest) []line {
	t.Helper()
	g.provider, g.out = "tcp", filepath.Join(t.TempDir(), "facts")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := g.run(ctx); err != nil {
		t.Error(err)
	}
	return factsIn(t, g.out)
}

func factsIn(t *testing.T, path string) (lines []line) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	texts, rest := cutLines(b)
	if len(rest) != 0 {
		t.Errorf("torn line %q", rest)
	}
	for _, s := range texts {
		l, err := parseLine(s)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// steps are the lines that stand for a step, without those that tell what was found.
func steps(lines []line) string {
	var s []string
	for _, l := range lines {
		switch l.fact {
		case factFlash, factRead, factAck, factLost:
		default:
			s = append(s, string(l.fact))
		}
	}
	return strings.Join(s, " ")
}

// loaded tells whether there was load enough to judge by, and of how many entries larger than a page.
func loaded(w *witness) (large int, enough bool) {
	for _, x := range w.acked {
		if x.pages() > 1 {
			large++
		}
	}
	return large, len(w.acked) >= 20 && w.reads >= 20 && large >= 2
}

// TestGuestTellsTheTruth: boots without a cut in between, on this machine, judged as the real ones are; three of them, and more where
// the machine is so busy that little is done in one.
func TestGuestTellsTheTruth(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	w := newWitness()
	const most = 30
	for boot, last := 1, false; !last; boot++ {
		_, enough := loaded(w)
		last = boot >= 3 && (enough || boot == most)
		lines := runGuest(t, guest{boot: boot, dir: dir, from: w.begin(last), last: last, limit: 500 * time.Millisecond})
		for _, l := range lines {
			w.hear(l)
		}
		want := "boot flash-done up scan-done load end"
		if last {
			want = "boot flash-done up scan-done closed end"
		}
		if got := steps(lines); got != want {
			t.Errorf("boot %d: %s, want %s", boot, got, want)
		}
	}
	if err := w.verdict(); err != nil {
		t.Error(err)
	}
	large, enough := loaded(w)
	if !enough {
		t.Errorf("%d positions acknowledged, %d entries of several, %d reads: no load", len(w.acked), large, w.reads)
	}
	t.Logf("%d positions acknowledged, %d entries of several, %d reads", len(w.acked), large, w.reads)
	t.Run("replicas", func(t *testing.T) { damage(t, dir, w) })
}

// damage changes single pages on flash and wants it to be found.
func damage(t *testing.T, dir string, w *witness) {
	look := func() *witness {
		out := filepath.Join(t.TempDir(), "facts")
		r, err := newRecorder(out)
		if err != nil {
			t.Fatal(err)
		}
		w.wrong, w.missing = nil, map[layout.Position]bool{}
		w.begin(true)
		if err := tellFlash(r, dir, 0); err != nil {
			t.Fatal(err)
		}
		if err := r.tell(line{fact: factFlashDone}); err != nil {
			t.Fatal(err)
		}
		for _, l := range factsIn(t, out) {
			w.hear(l)
		}
		return w
	}
	if err := look().verdict(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(page []byte, h wire.Header)
		want   string
	}{
		{"torn", func(p []byte, _ wire.Header) { p[70]++ }, "on the flash of 1 of 2 replicas"},
		{"never written", func(p []byte, _ wire.Header) { clear(p) }, "on the flash of 1 of 2 replicas"},
		{"other bytes, valid", func(p []byte, h wire.Header) { p[wire.HeaderSize]++; wire.SealPage(p, h) }, "replicas disagree"},
		{"another attempt, valid", func(p []byte, h wire.Header) { h.Attempt++; wire.SealPage(p, h) }, "replicas disagree"},
		{"another position, valid", func(p []byte, h wire.Header) { h.Position++; wire.SealPage(p, h) }, "holds position"},
		{"other bytes behind the payload", func(p []byte, _ wire.Header) { p[len(p)-1]++ }, "replicas disagree"},
	} {
		t.Run(c.name, func(t *testing.T) {
			restore := changePage(t, dir, w, c.change)
			got := look().verdict()
			if got == nil || !strings.Contains(got.Error(), c.want) {
				t.Errorf("%v, want %q", got, c.want)
			}
			restore()
			if err := look().verdict(); err != nil {
				t.Fatalf("after mending: %v", err)
			}
		})
	}
}

// changePage changes a value of unit 1 that does not fill its page, and returns what undoes it.
func changePage(t *testing.T, dir string, w *witness, change func([]byte, wire.Header)) (restore func()) {
	t.Helper()
	write := func(a layout.Address, page []byte) {
		s := openStore(t, dir)
		defer s.Close()
		if err := s.Write([]flash.Page{{Address: a, Bytes: page}}); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, dir)
	page := make([]byte, geometry.PageSize)
	for a := layout.Address(0); a < 200; a++ {
		if err := s.ReadPage(a, page); err != nil {
			t.Fatal(err)
		}
		h, err := wire.ParsePage(page)
		if err != nil || h.Flags.Kind() != wire.FlagData || h.Flags&wire.FlagFragment != 0 || h.Length == geometry.MaxPayload() {
			continue
		}
		if _, acked := w.acked[h.Position]; !acked {
			continue // one replica may lack it
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		changed := append([]byte(nil), page...)
		change(changed, h)
		write(a, changed)
		return func() { write(a, page) }
	}
	t.Fatal("unit 1 has no such page")
	return nil
}

func openStore(t *testing.T, dir string) *flash.Store {
	t.Helper()
	all, err := openReplicas(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all[1:] {
		if err := x.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return all[0].store
}
