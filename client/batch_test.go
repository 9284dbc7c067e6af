package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/wire"
	"corfu/layout"
)

// recordsOf makes n records of which no two are alike.
func recordsOf(seed, n, size int) [][]byte {
	records := make([][]byte, n)
	for i := range records {
		records[i] = patterned(seed+i, size)
	}
	return records
}

// theSame fails the test unless got is want, record by record.
func theSame(t *testing.T, what string, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d records, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("%s: record %d is of %d bytes and not what was appended, %d bytes", what, i, len(got[i]), len(want[i]))
		}
	}
}

// largestRecord is what a batch of one record takes.
const largestRecord = 1<<20 - 1 - 3

func TestBatchesOfAllSizes(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l, other, ctx := c.open(client.Options{}), c.open(client.Options{}), within(t)
		if l.MaxRecord() != largestRecord {
			t.Errorf("MaxRecord is %d, want %d", l.MaxRecord(), largestRecord)
		}
		batches := [][][]byte{
			{{}},
			{[]byte("alone")},
			{nil, []byte("a"), {}, []byte("bb")},
			recordsOf(1, 40, 100),                // just below a page,
			{patterned(2, 4032-3)},               // a page,
			{patterned(3, 4032-2)},               // two fragments
			recordsOf(4, 1000, 200),              // many
			{patterned(5, largestRecord)},        // all that an entry takes
			make([][]byte, wire.MaxRecords),      // as many as there may be
			{patterned(6, 300_000), []byte("x")}, //
		}
		at := make([]layout.Position, len(batches))
		for i, want := range batches {
			p, err := l.AppendBatch(ctx, want)
			if err != nil {
				t.Fatalf("batch %d: %v", i, err)
			}
			at[i] = p
			e, err := other.ReadEntry(ctx, p)
			if err != nil || e.Position != p || e.Payload != nil || e.ID == 0 {
				t.Fatalf("batch %d: read position %d, id %v, a payload of %d bytes, %v", i, e.Position, e.ID, len(e.Payload), err)
			}
			theSame(t, fmt.Sprintf("batch %d", i), e.Records, want)
			if b, err := other.Read(ctx, p); !errors.Is(err, client.ErrBatch) || b != nil {
				t.Errorf("batch %d: Read returns %d bytes, %v; want ErrBatch", i, len(b), err)
			}
		}
		plain, err := l.Append(ctx, []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for e, err := range other.ReadRange(ctx, 0, plain+1) {
			switch {
			case err != nil:
				t.Fatal(err)
			case n == len(batches):
				if e.Position != plain || string(e.Payload) != "plain" || e.Records != nil {
					t.Errorf("behind the batches: %d, %q, %d records", e.Position, e.Payload, len(e.Records))
				}
			case e.Position != at[n]:
				t.Errorf("batch %d is at %d, want %d", n, e.Position, at[n])
			default:
				theSame(t, fmt.Sprintf("batch %d of the range", n), e.Records, batches[n])
			}
			n++
		}
		if n != len(batches)+1 {
			t.Errorf("%d entries, want %d", n, len(batches)+1)
		}
		// A range that ends inside a large batch has all of its records.
		for e, err := range other.ReadRange(ctx, at[6], at[6]+1) {
			if err != nil {
				t.Fatal(err)
			}
			theSame(t, "a range that ends inside", e.Records, batches[6])
		}
	})
}

// Records yields what plain entries and batches hold, in order, under their names.
func TestRecordsOfPlainEntriesAndBatches(t *testing.T) {
	c := start(t, devcluster.Options{})
	l, ctx := c.open(client.Options{}), within(t)
	must := func(p layout.Position, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Append(ctx, []byte("plain")))
	must(l.AppendBatch(ctx, [][]byte{[]byte("one"), {}, []byte("two")}))
	must(l.Append(ctx, nil))
	must(l.AppendBatch(ctx, [][]byte{[]byte(strings.Repeat("x", 5000)), []byte("three")})) // at 3 and 4
	must(l.Append(ctx, []byte("last")))
	var got []string
	ids := map[client.EntryID]int{}
	for r, err := range l.Records(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%v %.5s", r, r.Data))
		if ids[r.Entry]++; string(r.Data) == "last" {
			break
		}
	}
	want := []string{"0/0 plain", "1/0 one", "1/1 ", "1/2 two", "2/0 ", "3/0 xxxxx", "3/1 three", "5/0 last"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records %q, want %q", got, want)
	}
	if len(ids) != 5 || ids[0] != 0 {
		t.Errorf("%d entries by their ids, want 5: %v", len(ids), ids)
	}
	for r := range client.Records(l.ReadRange(ctx, 1, 2)) { // a reader may stop inside a batch
		if r.Index == 1 {
			break
		}
	}
}

func TestBatchesThatAreRefused(t *testing.T) {
	c := start(t, devcluster.Options{})
	l, ctx := c.open(client.Options{}), within(t)
	for name, c := range map[string]struct {
		records [][]byte
		is      error
		want    string
	}{
		"no records":            {nil, client.ErrEmptyBatch, "give one at least"},
		"one too many":          {make([][]byte, wire.MaxRecords+1), client.ErrTooLarge, "a batch of 65537 records"},
		"a byte too many":       {[][]byte{make([]byte, largestRecord-1), {}, nil}, client.ErrTooLarge, "a batch that takes 1048577 bytes"},
		"a record too long":     {[][]byte{{}, make([]byte, largestRecord+1)}, client.ErrTooLarge, "record 1 has 1048573 bytes"},
		"a record far too long": {[][]byte{make([]byte, 5<<20)}, client.ErrTooLarge, "record 0 has 5242880 bytes"},
	} {
		_, err := l.AppendBatch(ctx, c.records)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", name, err, c.want)
		}
	}
	if tail, err := l.Tail(ctx); err != nil || tail != 0 {
		t.Errorf("tail %d, %v: want nothing appended", tail, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.AppendBatch(ctx, [][]byte{{}}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
