package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"corfu/layout"
)

var everyLine = []struct {
	line line
	text string
}{
	{line{fact: factBoot, number: 3}, "boot 3\n"},
	{line{fact: factFlash, position: 17, copies: 1, of: 2, what: "v:0011223344556677"}, "flash 17 1 2 v:0011223344556677\n"},
	{line{fact: factFlashDone}, "flash-done\n"},
	{line{fact: factUp, number: 5}, "up 5\n"},
	{line{fact: factRead, position: 4, what: junk}, "read 4 junk\n"},
	{line{fact: factScanDone, number: 99}, "scan-done 99\n"},
	{line{fact: factLoad}, "load\n"},
	{line{fact: factAck, position: 8, what: value([]byte("x"))}, "ack 8 v:2d711642b726b044\n"},
	{line{fact: factLost, what: "v:01"}, "lost v:01\n"},
	{line{fact: factAck, position: 9, what: "v:01/3"}, "ack 9 v:01/3\n"},
	{line{fact: factRead, position: 10, what: inside(9)}, "read 10 in:9\n"},
	{line{fact: factClosed}, "closed\n"},
	{line{fact: factEnd}, "end\n"},
	{line{fact: factFailed, text: "no disk"}, "failed no disk\n"},
	{line{fact: factBad, text: "this is wrong"}, "bad this is wrong\n"},
}

func TestLinesThereAndBack(t *testing.T) {
	for _, c := range everyLine {
		if got := string(c.line.append(nil)); got != c.text {
			t.Errorf("%+v: wrote %q, want %q", c.line, got, c.text)
		}
		got, err := parseLine(strings.TrimSuffix(c.text, "\n"))
		if err != nil || !reflect.DeepEqual(got, c.line) {
			t.Errorf("%q: read %+v, %v; want %+v", c.text, got, err, c.line)
		}
	}
	if got := string(line{fact: factBad, text: "two\nlines"}.append(nil)); got != "bad two lines\n" {
		t.Errorf("a text of two lines became %q", got)
	}
}

// A value is told by its bytes, and how many positions it takes stands in it.
func TestWhatAValueIs(t *testing.T) {
	large := make([]byte, 4012+4012+1)
	other := append([]byte(nil), large...)
	other[len(other)-1]++
	type is struct {
		pages, first layout.Position
		within       bool
		decided      bool
	}
	for _, c := range []struct {
		w    what
		want is
	}{
		{value(nil), is{1, 0, false, true}}, {value(make([]byte, 4032)), is{1, 0, false, true}}, {value(make([]byte, 4033)), is{2, 0, false, true}},
		{value(large), is{3, 0, false, true}}, {inside(7), is{0, 7, true, true}}, {junk, is{0, 0, false, true}}, {part, is{}}, {nothing, is{}},
	} {
		first, within := c.w.entry()
		if got := (is{c.w.pages(), first, within, c.w.decided()}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.w, got, c.want)
		}
	}
	if value(large) == value(other) || value(large) != value(append([]byte(nil), large...)) {
		t.Error("a value is not told by its bytes")
	}
}

func TestLinesThatAreNone(t *testing.T) {
	for _, s := range []string{"", "nonsense", "ack", "ack 5", "ack x v:1", "ack 5 v:1 more", "flash 1 2 v:1", "read 1", "load now", "boot", "lost"} {
		if l, err := parseLine(s); err == nil {
			t.Errorf("%q was taken as %+v", s, l)
		}
	}
}

func TestTornLastLineIsNoLine(t *testing.T) {
	lines, rest := cutLines([]byte("ack 1 v:1\nack 2 v:2\nack 3 v"))
	if !reflect.DeepEqual(lines, []string{"ack 1 v:1", "ack 2 v:2"}) || string(rest) != "ack 3 v" {
		t.Errorf("%q, rest %q", lines, rest)
	}
}

// TestToldMeansWritten: when tell returns, the line is in the file, whatever others do meanwhile.
func TestToldMeansWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts")
	r, err := newRecorder(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 100 {
				l := line{fact: factAck, position: layout.Position(1000*g + i), what: "v:1"}
				if err := r.note(line{fact: factRead, position: l.position, what: "v:1"}); err != nil {
					t.Error(err)
				}
				if err := r.tell(l); err != nil {
					t.Error(err)
				}
				if i%20 != 0 {
					continue
				}
				if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), string(l.append(nil))) {
					t.Errorf("%v: told, and not in the file (%v)", l, err)
				}
			}
		})
	}
	all.Wait()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines, rest := cutLines(b)
	if len(lines) != 1600 || len(rest) != 0 {
		t.Errorf("%d lines and %q, want 1600", len(lines), rest)
	}
	for _, s := range lines {
		if _, err := parseLine(s); err != nil {
			t.Error(err)
		}
	}
	if _, err := newRecorder(path); err == nil {
		t.Error("a second recorder took the first one's file")
	}
}
