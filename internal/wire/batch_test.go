package wire

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"corfu/internal/golden"
)

// batchOf makes the payload of a batch.
func batchOf(records ...string) []byte {
	lengths := make([]int, len(records))
	for i, r := range records {
		lengths[i] = len(r)
	}
	return append(AppendBatchHead(nil, lengths), strings.Join(records, "")...)
}

func TestBatchGolden(t *testing.T) {
	records := []string{"first", "", strings.Repeat("x", 0x80), "last"}
	b := batchOf(records...)
	golden.Equal(t, "batch", b)
	got, err := DecodeBatch(b)
	if err != nil || len(got) != len(records) {
		t.Fatalf("%q, %v", got, err)
	}
	for i, r := range got {
		if string(r) != records[i] || cap(r) != len(r) {
			t.Errorf("record %d is %q with room for %d bytes, want %q and no room", i, r, cap(r), records[i])
		}
	}
	head := 0
	for _, n := range []int{len(records), 5, 0, 0x80, 4} {
		head += SizeOfLength(n)
	}
	if want := len(b) - len(strings.Join(records, "")); head != want {
		t.Errorf("%d bytes in front of the records, want %d", head, want)
	}
}

func TestBatchLimits(t *testing.T) {
	for name, lengths := range map[string][]int{
		"one empty record":    {0},
		"the most records":    make([]int, MaxRecords),
		"the largest":         {MaxEntry - 4}, // count, and a length of three bytes
		"lengths of one byte": {0x7f, 0x7f},
		"lengths of two":      {0x80, 0x3fff, 0x4000},
	} {
		head := AppendBatchHead(nil, lengths)
		size, sum := SizeOfLength(len(lengths)), 0
		for _, n := range lengths {
			size, sum = size+SizeOfLength(n), sum+n
		}
		if size != len(head) {
			t.Errorf("%s: SizeOfLength says %d bytes in front of the records, and there are %d", name, size, len(head))
		}
		got, err := DecodeBatch(append(head, make([]byte, sum)...))
		if err != nil || len(got) != len(lengths) {
			t.Fatalf("%s: %d records, %v; want %d", name, len(got), err, len(lengths))
		}
		for i, r := range got {
			if len(r) != lengths[i] {
				t.Errorf("%s: record %d has %d bytes, want %d", name, i, len(r), lengths[i])
			}
		}
	}
}

func TestDecodeBatchRefusesWhatNoWriterMakes(t *testing.T) {
	for name, c := range map[string]struct {
		payload []byte
		want    string
	}{
		"nothing":                     {nil, "cut off"},
		"no records":                  {[]byte{0}, "no records"},
		"bytes behind no records":     {[]byte{0, 1}, "no records"},
		"a count cut off":             {[]byte{0x80}, "cut off"},
		"a count of no end":           {bytes.Repeat([]byte{0xff}, 20), "a number that no writer makes"},
		"a count in a longer form":    {[]byte{0x81, 0, 0}, "a number that no writer makes"},
		"a length in a longer form":   {[]byte{1, 0x80, 0}, "a number that no writer makes"},
		"more records than bytes":     {[]byte{5, 0, 0}, "5 records in 3 bytes"},
		"too many records":            {AppendBatchHead(nil, make([]int, MaxRecords+1)), "65537 records: at most 65536"},
		"a length cut off":            {[]byte{2, 1, 0x80}, "cut off"},
		"a record too long":           {AppendBatchHead(nil, []int{MaxEntry + 1}), "a record of 1048577 bytes"},
		"a record of 2^64 - 1":        {append([]byte{1}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "a record of 18446744073709551615 bytes"},
		"records that are too short":  {[]byte{2, 1, 1, 'a'}, "records of 2 bytes in all, and 1 bytes of records"},
		"something behind the record": {[]byte{1, 1, 'a', 'b'}, "records of 1 bytes in all, and 2 bytes of records"},
	} {
		var e *BatchError
		if got, err := DecodeBatch(c.payload); got != nil || !errors.Is(err, ErrBadBatch) || !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d records, %v; want an error with %q", name, len(got), err, c.want)
		}
	}
}

// Releases before batches refuse every flag above 0x3f, with the whole page: they do not take a
// batch for a payload.
func TestBatchIsRefusedByABuildThatDoesNotKnowIt(t *testing.T) {
	const knownBefore = 0x3f
	if OldFlags != knownBefore {
		t.Errorf("OldFlags are %#x: releases before batches know %#x", OldFlags, knownBefore)
	}
	for name, h := range headers() {
		page, _ := sample(h, payloadOf(h))
		refused := page[5]&^knownBefore != 0
		if batch := strings.HasPrefix(name, "batch"); refused != batch {
			t.Errorf("%s has flags %#x: an older build refuses it: %v, want %v", name, page[5], refused, batch)
		}
	}
}

func TestDecodeBatchAllocatesTheListAlone(t *testing.T) {
	b := batchOf(slices.Repeat([]string{"a record"}, 100)...)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := DecodeBatch(b); err != nil {
			panic(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(batchOf("a", "", "ccc"))
	f.Add(batchOf(""))
	f.Add([]byte{0xff, 0xff, 3, 0})
	f.Add([]byte{1, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := DecodeBatch(b)
		if err != nil {
			if !errors.Is(err, ErrBadBatch) || records != nil {
				t.Errorf("%d records, %v", len(records), err)
			}
			return
		}
		lengths := make([]int, len(records))
		for i, r := range records {
			lengths[i] = len(r)
		}
		if again := append(AppendBatchHead(nil, lengths), bytes.Join(records, nil)...); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
