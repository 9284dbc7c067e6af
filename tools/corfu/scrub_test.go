package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// spoilPage flips bits of the page at address a of a unit of a dev cluster, on flash.
func spoilPage(t *testing.T, dir string, unit, a int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("unit-%d", unit), "seg-000000000000"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	off := int64(a)*4096 + 66
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// A scrub finds a page whose bits flipped and has it repaired; one that is damaged everywhere is an error, until it is given up.
func TestScrub(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dev := startDev(c, "--chains", "1")
	dir := dev.word("dir")
	for i := range 20 {
		c.want(fmt.Sprintf("%d\n", i), "append", fmt.Sprintf("entry %d", i))
	}
	scrub := func(args ...string) (units []scrubJSON) {
		t.Helper()
		if err := json.Unmarshal([]byte(c.ok(append([]string{"scrub", "-o", "json"}, args...)...)), &units); err != nil {
			t.Fatal(err)
		}
		return units
	}
	plain := func(u scrubJSON) scrubJSON { u.Seconds = 0; return u }
	for i, u := range scrub() {
		if want := (scrubJSON{Unit: u.Unit, Pages: 20, Bytes: 20 * 4096}); int(u.Unit) != i+1 || plain(u) != want {
			t.Errorf("scrub of a sound unit: %+v", u)
		}
	}
	spoilPage(t, dir, 2, 7)
	units := scrub("--unit", "2", "--rate", "1GiB")
	if want := (scrubJSON{Unit: 2, Pages: 20, Bytes: 20 * 4096, Corrupt: 1, Repaired: 1}); len(units) != 1 || plain(units[0]) != want {
		t.Errorf("scrub of a unit with a damaged page: %+v", units)
	}
	c.want("entry 7\n", "read", "7")

	spoilPage(t, dir, 1, 11)
	spoilPage(t, dir, 2, 11)
	got := c.run("", "scrub", "--timeout", "30s")
	table := regexp.MustCompile(`(?m)^UNIT +PAGES +BYTES +CORRUPT +REPAIRED +LEFT +TOOK\n1 +20 +81920 +1 +0 +1 +\S+\n2 +20 +81920 +1 +0 +1 +\S+\n$`)
	if got.code != 1 || !table.MatchString(got.stdout) || !strings.Contains(got.stderr, "unit 2: corrupt pages left: 1") {
		t.Errorf("scrub with a page that is damaged everywhere: %+v", got)
	}
	if status := c.ok("layout", "status"); !strings.Contains(status, "1 (1 lost)") {
		t.Errorf("status: %s", status)
	}
	if got := c.run("", "read", "11"); got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "position 11 is corrupt") {
		t.Errorf("read: %+v", got)
	}
	if got := c.run("", "trim", "11"); got.code != 0 || got.stdout != "trimmed 11\n" {
		t.Errorf("trim: %+v", got)
	}
	for _, u := range scrub() {
		if want := (scrubJSON{Unit: u.Unit, Pages: 20, Bytes: 20 * 4096}); plain(u) != want {
			t.Errorf("scrub after the trim: %+v", u)
		}
	}
	if out := c.ok("scrub", "--wait=false"); !strings.HasPrefix(out, "UNIT ") {
		t.Errorf("begun: %s", out)
	}
}

// What makes no sense is refused before anything is done, in one line that says what does.
func TestScrubRefusesBadInput(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	c.fails(1, []string{"no cluster answers"}, "scrub", "--timeout", "1s")
	c.fails(2, []string{"rate \"fast\"", "KiB"}, "scrub", "--rate", "fast")
	c.fails(2, []string{"--unit"}, "scrub", "--unit", "one")
	c.fails(2, []string{"unknown command", "1"}, "scrub", "1")
	c.fails(2, []string{"scrub rate \"8\"", "MiB"}, "unit", "--id", "1", "--dir", t.TempDir(), "--scrub-rate", "8")
	c.fails(2, []string{"scrub every \"never\"", "168h"}, "unit", "--id", "1", "--dir", t.TempDir(), "--scrub-every", "never")
	startDev(c, "--chains", "1")
	c.fails(2, []string{"--unit 9", "[1 2]"}, "scrub", "--unit", "9")
}
