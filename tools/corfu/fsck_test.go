package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"corfu/layout"
)

// A store with six pages, at addresses that are their positions: two entries, one of two pages, one trimmed.
const (
	storeFirst = "first entry"
	storeLast  = "the last\tone"
)

var storeLarge = strings.Repeat("large ", 800) // 4800 bytes, two pages

// writeStore makes that store with a cluster of one unit, lets fn have a look while the unit runs, and gives its directory.
func writeStore(c *cli, whileRunning func(dir string)) (dir string) {
	c.t.Helper()
	dev := startDev(c, "--chains", "1", "--replicas", "1")
	c.want("0\n1\n", "append", storeFirst, storeLarge)
	c.want("3\n4\n5\n", "append", "trimmed", "fourth", storeLast)
	c.want("trimmed 3\n", "trim", "3")
	dir = filepath.Join(dev.word("dir"), "unit-1")
	if whileRunning != nil {
		whileRunning(dir)
	}
	dev.stop()
	return dir
}

// flip changes one bit of the page with this payload; what it returns flips it back.
func flip(t *testing.T, dir, payload string) (back func()) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "seg-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range segments {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(b, []byte(payload))
		if i < 0 {
			continue
		}
		write := func(mask byte) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{b[i] ^ mask}, int64(i)); err != nil {
				t.Fatal(err)
			}
		}
		write(1)
		return func() { write(0) }
	}
	t.Fatalf("no page with %q", payload)
	return nil
}

func unmarshalLines[T any](t *testing.T, out string) (all []T) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		var x T
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, x)
	}
	return all
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n%+v\nwant\n%+v", what, got, want)
	}
}

// sound is how fsck ends for writeStore's store, all of it noted as durable.
var sound = summaryJSON{Entries: 5, Trimmed: 1, Settled: 6, Watermark: 6, End: 6}

func TestFsckOfASoundStore(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dir := writeStore(c, func(dir string) {
		for _, args := range [][]string{{"fsck", dir}, {"fsck", "--repair", dir}, {"dump", dir}} {
			c.fails(1, []string{dir, "in use by another process", "stop the unit first"}, args...)
		}
	})
	// What the unit had noted by the end depends on the time; --repair notes all that verifies, and says so.
	c.ok("fsck", dir)
	want := "5 entries, 0 junk, 1 trimmed, 0 corrupt, 0 torn; trimmed below 0, noted as durable below 6, nothing missing below 6, end 6\n"
	c.want(want, "fsck", "--repair", dir)
	c.want(want, "fsck", dir)
	wantEqual(t, "fsck -o json", unmarshalLines[summaryJSON](t, c.ok("fsck", "-o", "json", dir)), []summaryJSON{sound})
}

func TestFsckPrintsProblemsAndFails(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dir := writeStore(c, nil)
	c.ok("fsck", "--repair", dir)
	meta := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "meta"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := meta()
	restore := []func(){flip(t, dir, storeFirst), flip(t, dir, "fourth")}

	for _, args := range [][]string{{"fsck", dir}, {"fsck", "--repair", dir}} {
		got := c.run("", args...)
		lines := strings.Split(got.stdout, "\n")
		if got.code != 1 || len(lines) != 4 || got.stderr != fmt.Sprintf("corfu: %s: problems found: 2\n", dir) ||
			!strings.HasPrefix(lines[0], "address 0: position 0: ") || !strings.HasPrefix(lines[1], "address 4: position 4: ") ||
			lines[2] != "3 entries, 0 junk, 1 trimmed, 0 corrupt, 0 torn; trimmed below 0, noted as durable below 6, nothing missing below 0, end 6" {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if got := meta(); got != before {
		t.Errorf("--repair changed the note of a store that lost pages:\n%s\nwas\n%s", got, before)
	}

	got := c.run("", "fsck", "-o", "json", dir)
	lines := strings.SplitAfter(got.stdout, "\n")
	if got.code != 1 || len(lines) != 4 {
		t.Fatalf("fsck -o json: %+v", got)
	}
	problems := unmarshalLines[problemJSON](t, lines[0]+lines[1])
	for i := range problems {
		if problems[i].Problem == "" {
			t.Errorf("%+v does not say what is wrong", problems[i])
		}
		problems[i].Problem = ""
	}
	at := func(p layout.Position) *layout.Position { return &p }
	wantEqual(t, "problems", problems, []problemJSON{{Address: 0, Count: 1, Position: at(0)}, {Address: 4, Count: 1, Position: at(4)}})
	wantEqual(t, "summary", unmarshalLines[summaryJSON](t, lines[2]), []summaryJSON{{Entries: 3, Trimmed: 1, Problems: 2, Settled: 6, End: 6}})

	for _, back := range restore {
		back()
	}
	wantEqual(t, "fsck after mending", unmarshalLines[summaryJSON](t, c.ok("fsck", "-o", "json", dir)), []summaryJSON{sound})
}

func TestFsckAndDumpWantAUnitsDirectory(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dir := t.TempDir()
	for _, name := range []string{"fsck", "dump"} {
		c.fails(1, []string{dir, "not a unit's directory"}, name, dir)
		c.fails(1, []string{"missing", "no such file"}, name, filepath.Join(dir, "missing"))
		c.fails(2, []string{map[string]string{"fsck": "needs the STORE of a unit, or --cluster", "dump": "STORE"}[name], "corfu " + name + " --help"}, name)
		c.fails(2, []string{"STORE", "corfu " + name + " --help"}, name, dir, dir)
	}
	c.fails(2, []string{"the range ends at 3, before it begins at 5"}, "dump", "--from", "5", "--to", "3", dir)
	c.fails(2, []string{`"x"`, "--from"}, "dump", "--from", "x", dir)
	if err := os.WriteFile(filepath.Join(dir, "LOCK"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.fails(1, []string{dir, "no such file"}, "fsck", dir) // a unit's, but for its meta file
	if err := os.WriteFile(filepath.Join(dir, "meta"), []byte("corfu unit meta 1 crc32c 00000000\n{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.fails(1, []string{dir, "meta"}, "dump", dir)
}

var attempts = regexp.MustCompile(`attempt 0x[0-9a-f]+`)

func TestDumpPrintsPages(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dir := writeStore(c, nil)
	dump := func(args ...string) string {
		return attempts.ReplaceAllString(c.ok(append([]string{"dump", dir}, args...)...), "attempt A")
	}
	large := storeLarge[4012:]
	lines := []string{
		`address 0 position 0 DURABLE epoch 1 attempt A length 11 "first entry"`,
		`address 1 position 1 DURABLE epoch 1 attempt A length 4012 "large large large large large large large large "…`,
		fmt.Sprintf(`address 2 position 2 DURABLE epoch 1 attempt A length %d %q…`, len(large), large[:48]),
		`address 3 position 3 TRIMMED epoch 1`,
		`address 4 position 4 DURABLE epoch 1 attempt A length 6 "fourth"`,
		`address 5 position 5 DURABLE epoch 1 attempt A length 12 "the last\tone"`,
	}
	for _, d := range []struct {
		args     []string
		from, to int
	}{{nil, 0, 6}, {[]string{"--from", "3"}, 3, 6}, {[]string{"--to", "2"}, 0, 2}, {[]string{"--from", "1", "--to", "4"}, 1, 4}, {[]string{"--from", "4", "--to", "4"}, 4, 4}} {
		wantEqual(t, fmt.Sprint("dump ", d.args), strings.SplitAfter(dump(d.args...), "\n"), strings.SplitAfter(strings.Join(append(lines[d.from:d.to:d.to], ""), "\n"), "\n"))
	}
	wantEqual(t, "three bytes", dump("--payload", "3", "--to", "1"), `address 0 position 0 DURABLE epoch 1 attempt A length 11 "fir"…`+"\n")
	wantEqual(t, "all bytes", dump("--payload", "-1", "--from", "2", "--to", "3"),
		fmt.Sprintf("address 2 position 2 DURABLE epoch 1 attempt A length %d %q\n", len(large), large))

	// A page that does not verify is shown as that; its bytes are nobody's.
	flip(t, dir, storeFirst)
	if got := dump("--to", "1"); !strings.HasPrefix(got, "address 0 position 0 NOT WHOLE (") || strings.Count(got, "\n") != 1 {
		t.Errorf("a damaged page: %q", got)
	}
	pages := unmarshalLines[pageJSON](t, c.ok("dump", "-o", "json", "--payload", "5", dir))
	if len(pages) != 6 || pages[0].Problem == "" || pages[1].Attempt == "" {
		t.Fatalf("dump -o json: %+v", pages)
	}
	at := func(p layout.Position) *layout.Position { return &p }
	wantEqual(t, "damaged", pages[0], pageJSON{Position: at(0), State: "NOT WHOLE", Problem: pages[0].Problem})
	wantEqual(t, "fragment", pages[1], pageJSON{Address: 1, Position: at(1), State: "DURABLE", Epoch: 1, Attempt: pages[1].Attempt, Flags: pages[1].Flags, Length: 4012, Payload: []byte("large")})
	wantEqual(t, "trimmed", pages[3], pageJSON{Address: 3, Position: at(3), State: "TRIMMED", Epoch: 1, Flags: pages[3].Flags})
}
