package main

import (
	"strings"
	"testing"
)

// story lets a witness hear boots, each a list of lines.
func story(t *testing.T, boots ...string) *witness {
	t.Helper()
	w := newWitness()
	for i, b := range boots {
		w.begin(i == len(boots)-1)
		for _, s := range strings.Split(strings.TrimSuffix(b, "; "), ";") {
			l, err := parseLine(strings.TrimSpace(s))
			if err != nil {
				t.Fatal(err)
			}
			w.hear(l)
		}
	}
	return w
}

func TestWhatTheWitnessSays(t *testing.T) {
	const load = "boot 1; flash-done; up 1; scan-done 0; load; ack 0 v:a; ack 1 v:b; read 1 v:b; read 2 junk; read 3 v:c"
	const flash = "boot 2; flash 0 2 2 v:a; flash 1 2 2 v:b; flash 2 1 2 junk; flash 3 1 2 v:c; flash 4 1 2 v:d; flash-done; "
	const scan = "up 2; read 0 v:a; read 1 v:b; read 2 junk; read 3 v:c; read 4 v:d; scan-done 5; "
	const closed = "closed; flash 0 2 2 v:a; flash 1 2 2 v:b; flash 2 2 2 junk; flash 3 2 2 v:c; flash 4 2 2 v:d; end"
	replace := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q in %q", old, s)
		}
		return strings.Replace(s, old, new, 1)
	}
	for _, c := range []struct {
		name    string
		boots   []string
		wrong   []string // parts of all that is said to be wrong, in order
		missing int
	}{
		{"all is there", []string{load, flash + scan + closed}, nil, 0},
		{"cut in recovery", []string{load, flash, flash + scan + closed}, nil, 0},
		{"acknowledged, on no flash", []string{load, replace(flash, "flash 0 2 2 v:a; ", "")}, []string{"position 0: was v:a, on no replica's flash (acknowledged)"}, 1},
		{"acknowledged, on one of two", []string{load, replace(flash, "flash 0 2 2", "flash 0 1 2")}, []string{"position 0: on the flash of 1 of 2 replicas (acknowledged)"}, 1},
		{"read, on no flash", []string{load, replace(flash, "flash 3 1 2 v:c; ", "")}, []string{"position 3: was v:c, on no replica's flash"}, 0},
		{"junk became a value", []string{load, replace(flash, "flash 2 1 2 junk", "flash 2 1 2 v:e")}, []string{"position 2: was junk, now on flash as v:e"}, 0},
		{"other bytes are read", []string{load, flash + replace(scan, "read 1 v:b", "read 1 v:x")}, []string{"position 1: was v:b, now read as v:x (acknowledged)"}, 1},
		{"unwritten again", []string{load, flash + replace(scan, "read 1 v:b", "read 1 nothing")}, []string{"position 1: was v:b, now read as nothing (acknowledged)"}, 1},
		{"corrupt", []string{load, flash + replace(scan, "read 3 v:c", "read 3 corrupt")}, []string{"position 3: was v:c, now read as corrupt"}, 0},
		{"the tail went back", []string{load, flash + "up 2; read 0 v:a; read 1 v:b; read 2 junk; scan-done 3"}, []string{"position 3: was v:c, beyond the tail 3 now"}, 0},
		{"one entry twice", []string{load, flash + replace(scan, "read 4 v:d", "read 4 v:a")}, []string{"v:a stands at positions 0 and 4"}, 0},
		{"failed and there after all", []string{load + "; lost v:d", flash}, []string{"position 4 holds v:d, whose append was reported as failed"}, 0},
		{"there and then failed", []string{load + "; lost v:c", flash + scan + closed}, []string{"position 3 holds v:c, whose append was reported as failed",
			"position 3 holds v:c", "position 3 holds v:c", "position 3 holds v:c"}, 0},
		{"half replicated after a clean stop", []string{load, flash + scan + replace(closed, "flash 4 2 2", "flash 4 1 2")}, []string{"position 4: 1 of 2 replicas have v:d after a clean stop"}, 0},
		{"gone after a clean stop", []string{load, flash + scan + replace(closed, "flash 4 2 2 v:d; ", "")}, []string{"position 4: was read as v:d, on no replica's flash after a clean stop"}, 0},
		{"the guest complains", []string{load, "boot 2; bad position 1: replicas disagree"}, []string{"the guest says: position 1: replicas disagree"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := story(t, c.boots...)
			ok := len(w.wrong) == len(c.wrong) && len(w.missing) == c.missing && (w.verdict() == nil) == (len(c.wrong) == 0)
			for i := range min(len(w.wrong), len(c.wrong)) {
				ok = ok && strings.HasPrefix(w.wrong[i], c.wrong[i])
			}
			if !ok {
				t.Errorf("%d missing, wrong:\n%s\nwant %d missing, wrong:\n%s", len(w.missing), strings.Join(w.wrong, "\n"), c.missing, strings.Join(c.wrong, "\n"))
			}
		})
	}
}

// An entry of three positions is whole or not there, on flash and for readers.
func TestWhatTheWitnessSaysOfLargeEntries(t *testing.T) {
	const load = "boot 1; flash-done; up 1; scan-done 0; load; ack 0 v:a/3"
	const flash = "boot 2; flash 0 2 2 v:a/3; flash 1 2 2 in:0; flash 2 2 2 in:0; flash 3 2 2 part; flash-done; "
	const scan = "up 2; read 0 v:a/3; read 1 in:0; read 2 in:0; read 3 junk; scan-done 4; "
	const closed = "closed; flash 0 2 2 v:a/3; flash 1 2 2 in:0; flash 2 2 2 in:0; flash 3 2 2 part; end"
	for _, c := range []struct {
		name     string
		old, new string // what is told otherwise
		wrong    string // how that which is said begins; "": nothing is
		missing  int
	}{
		{"all is there", "", "", "", 0},
		{"a fragment on one of two", "flash 1 2 2 in:0", "flash 1 1 2 in:0", "position 1: on the flash of 1 of 2 replicas (acknowledged)", 1},
		{"a fragment on no flash", "flash 0 2 2 v:a/3; flash 1 2 2 in:0; flash 2 2 2 in:0", "flash 0 2 2 part; flash 2 2 2 part", "position 0: was v:a/3, now on flash as part (acknowledged)", 3},
		{"something else inside", "read 1 in:0", "read 1 v:b", "position 1: was in:0, now read as v:b (acknowledged)", 2},
		{"not read to its end", "read 2 in:0; ", "", "position 2: was in:0, beyond the tail 4 now (acknowledged)", 2},
		{"another length", "read 0 v:a/3", "read 0 v:a/2", "position 0: was v:a/3, now read as v:a/2 (acknowledged)", 2},
		{"inside of what is none", "read 3 junk", "read 3 in:0", "position 3: read as in:0, where \"v:a/3\" was read", 0},
		{"half of an entry", "read 3 junk; scan-done 4", "read 3 v:c/2; read 4 junk; scan-done 5", "position 3: read as v:c/2, but position 4 as \"junk\"", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := flash + scan + closed
			if c.old != "" && !strings.Contains(told, c.old) {
				t.Fatalf("no %q in %q", c.old, told)
			}
			told = strings.Replace(told, c.old, c.new, 1)
			if c.wrong != "" {
				told, _, _ = strings.Cut(told, "closed")
			}
			w := story(t, load, told)
			if len(w.missing) != c.missing || (c.wrong == "") != (len(w.wrong) == 0) || len(w.wrong) > 0 && !strings.HasPrefix(w.wrong[0], c.wrong) {
				t.Errorf("%d missing, wrong:\n%s\nwant %d missing, first:\n%s", len(w.missing), strings.Join(w.wrong, "\n"), c.missing, c.wrong)
			}
		})
	}
}

// TestLookingBack: what was looked at long ago is not asked for again, until the last boot.
func TestLookingBack(t *testing.T) {
	w := story(t, "boot 1; flash-done; up 1; scan-done 0; load; ack 0 v:a; ack 5000 v:b", "boot 2; flash 0 2 2 v:a; flash 5000 2 2 v:b; flash-done; read 0 v:a; read 5000 v:b; scan-done 5001")
	if w.verdict() != nil {
		t.Fatal(w.verdict())
	}
	if from := w.begin(false); from != 5001-overlap {
		t.Errorf("looks from %d on, want %d", from, 5001-overlap)
	}
	w.hear(line{fact: factFlash, position: 5000, copies: 2, of: 2, what: "v:b"})
	w.hear(line{fact: factFlashDone})
	if w.verdict() != nil {
		t.Fatal(w.verdict())
	}
	if from := w.begin(true); from != 0 {
		t.Errorf("the last look is from %d on", from)
	}
}
