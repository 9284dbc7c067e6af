package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// Lines that wait go together as batches, in the order of stdin, and are read by position, by record, as a range and as they come.
func TestLinesGoTogetherAsBatches(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	const n = 3000
	var lines, want strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	names := strings.Fields(c.okIn(lines.String(), "append", "-"))
	if len(names) != n {
		t.Fatalf("%d names of %d lines", len(names), n)
	}
	entries := map[string]int{}
	for i, s := range names {
		parsed, err := parseNames([]string{s})
		if err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprint(parsed[0].position)
		if parsed[0].index != entries[at] {
			t.Errorf("line %d has the name %s, and is record %d of its batch", i, s, entries[at])
		}
		entries[at]++
	}
	if len(entries) > n/10 {
		t.Errorf("%d lines went as %d entries", n, len(entries))
	}
	c.want(want.String(), "read", "--from", "0")
	c.want("line 0\nline 2999\n", "read", names[0], names[n-1])
	last, _, _ := strings.Cut(names[n-1], "/")
	all := strings.SplitAfter(c.ok("read", last), "\n")
	if k := len(all) - 1; k != entries[last] || all[k-1] != "line 2999\n" {
		t.Errorf("the last batch is read as %q, want %d lines", all, entries[last])
	}
	c.fails(1, []string{fmt.Sprintf("the batch at position %s has %d records: 0 to %d, and no %d", last, entries[last], entries[last]-1, entries[last])},
		"read", last+"/"+fmt.Sprint(entries[last]))
	if got := c.okIn("", "append", "-"); got != "" {
		t.Errorf("no lines: %q", got)
	}
}

// A line that does not fit in a page is an entry of its own, in its place among the others.
func TestLongLinesAmongShortOnes(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	long := strings.Repeat("long", 2000)
	from := "0"
	for _, how := range [][]string{{"append", "-"}, {"append", "-", "--ordered=false"}} {
		names := strings.Fields(c.okIn("a\nb\n"+long+"\nc\n", how...))
		if len(names) != 4 || strings.Contains(names[2], "/") || !strings.Contains(names[3], "/") {
			t.Fatalf("%v: names %v", how, names)
		}
		for i, want := range []string{"a", "b", long, "c"} {
			c.want(want+"\n", "read", names[i])
		}
		if got := c.ok("read", "--from", from); got != "a\nb\n"+long+"\nc\n" {
			t.Errorf("%v: from %s on the log has %d bytes, not in the order of the lines", how, from, len(got))
		}
		from = strings.TrimSpace(c.ok("tail"))
		c.want(long+"\n", "read", names[2]+"/0")
		c.fails(1, []string{"position " + names[2] + " holds no batch"}, "read", names[2]+"/1")
	}
}

func TestBatchesAsJSON(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	c.want("{\"position\":0}\n", "append", "-o", "json", "plain")
	if got, want := c.okIn("a\n", "append", "-o", "json", "-"), "{\"position\":1,\"index\":0}\n"; got != want {
		t.Errorf("append -: %q, want %q", got, want)
	}
	c.want("{\"position\":0,\"payload\":\"plain\"}\n{\"position\":1,\"index\":0,\"payload\":\"a\"}\n", "read", "-o", "json", "--from", "0")
	f := c.start("tail", "--follow", "--from", "1")
	if got := f.word("payload"); got != "a" || fmt.Sprint(f.said["index"]) != "0" {
		t.Errorf("tail -f: %v", f.said)
	}
	f.stop()
}

// batchStore makes the store of a unit with a batch of a page and one of two pages, and returns its directory.
func batchStore(t *testing.T) string {
	t.Helper()
	d, err := devcluster.Start(t.Context(), devcluster.Options{Provider: "tcp", Dir: t.TempDir(), Chains: 1, Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := client.Open(t.Context(), client.Options{LayoutServers: []string{d.LayoutAddr()}, Provider: "tcp"})
	if err == nil {
		_, err = l.AppendBatch(t.Context(), [][]byte{[]byte("one"), []byte("two")})
	}
	if err == nil {
		_, err = l.AppendBatch(t.Context(), slices.Repeat([][]byte{[]byte("rec")}, 1100))
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := d.UnitDir(1)
	if err := errors.Join(l.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The store of a unit, as fsck and dump show it.
func TestInspectorsShowRecords(t *testing.T) {
	dir := batchStore(t)
	c := newCLI(t)
	c.want("3 entries (2 batches of 1102 records), 0 junk, 0 trimmed, 0 corrupt, 0 torn; trimmed below 0, noted as durable below 3, nothing missing below 3, end 3\n", "fsck", dir)
	got := strings.Split(c.ok("dump", "--payload", "9", dir), "\n")
	for i, want := range []string{`length 9 batch of 2 records "one" "two"`, `batch of 1100 records "`, `part of a batch "`} {
		if !strings.Contains(got[i], want) {
			t.Errorf("dump of address %d: %q, want %q", i, got[i], want)
		}
	}
	if got := c.ok("dump", "--payload", "4", "--to", "1", dir); !strings.HasSuffix(got, "batch of 2 records \"one\" \"t\"…\n") {
		t.Errorf("dump of 4 bytes: %q", got)
	}
	pages := unmarshalLines[pageJSON](t, c.ok("dump", "-o", "json", dir))
	if p := pages[0]; !p.Batch || len(p.Records) != 2 || string(p.Records[1]) != "two" || p.Payload != nil || *p.Position != layout.Position(0) {
		t.Errorf("dump -o json: %+v", p)
	}
}
