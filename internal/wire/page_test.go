package wire

import (
	"bytes"
	"errors"
	"testing"

	"corfu/internal/golden"
	"corfu/layout"
)

var log1 = layout.LogID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

// sample makes a page of 4096 bytes with the payload.
func sample(h Header, payload string) (page []byte, n int) {
	page = bytes.Repeat([]byte{0xee}, 4096) // what stands behind the payload means nothing
	h.Length = copy(page[HeaderSize:], payload)
	return page, SealPage(page, h)
}

func headers() map[string]Header {
	h := Header{Log: log1, Position: 0x0000_1122_3344_5566, Epoch: 0x7_8899_aabb, Attempt: MakeAttempt(0x01020304, 0x05060708)}
	with := func(f PageFlags, extension int) Header {
		c := h
		c.Flags, c.Extension = f, extension
		if f.Kind() != FlagData {
			c.Attempt = 0
		}
		return c
	}
	return map[string]Header{"data": with(FlagData, 0),
		"fragment": with(FlagData|FlagFragment|FlagExtension, FragmentSize), "extension": with(FlagData|FlagExtension, 2*extensionHead+3),
		"batch": with(FlagData|FlagBatch, 0), "batchfragment": with(FlagData|FlagFragment|FlagExtension|FlagBatch, FragmentSize),
		"junk": with(FlagJunk, 0), "trimmed": with(FlagTrimmed, 0), "corrupt": with(FlagCorrupt, 0)}
}

// payloadOf is what stands behind the header: extensions, then the payload.
func payloadOf(h Header) string {
	var b []byte
	switch {
	case h.Flags.Kind() != FlagData:
		return ""
	case h.Flags&FlagFragment != 0:
		b = fragment1.Append(nil)
	case h.Flags&FlagExtension != 0: // of types that this build does not know
		b = AppendExtension(AppendExtension(nil, 0x7e, nil), 0x7f, []byte("ext"))
	case h.Flags&FlagBatch != 0:
		return string(batchOf("one", "", "two"))
	default:
		b = []byte("EXT-") // looks like more than a payload, and is not
	}
	return string(append(b, "the payload"...))
}

// fragment1 is of the entry whose first attempt was before that of headers.
var fragment1 = Fragment{Entry: MakeAttempt(0x01020304, 0x05060706), Length: 0x000a_0b0c, Number: 2, Count: 0x0102}

func TestPageGolden(t *testing.T) {
	for name, h := range headers() {
		page, n := sample(h, payloadOf(h))
		golden.Equal(t, "page-"+name, page[:n])
		h.Length = n - HeaderSize
		for _, b := range [][]byte{page, page[:n]} {
			got, err := VerifyPage(b, log1, h.Position)
			if err != nil || got != h || string(got.Payload(b)) != payloadOf(h)[h.Extension:] {
				t.Errorf("%s: %+v, %v; want %+v", name, got, err, h)
			}
			if PageLength(b) != n {
				t.Errorf("%s: length %d, want %d", name, PageLength(b), n)
			}
		}
	}
}

func TestPageFillsToTheLastByte(t *testing.T) {
	for _, g := range []layout.Geometry{{PageSize: 4096}, {PageSize: 65536}} {
		page := bytes.Repeat([]byte{7}, g.PageSize)
		h := Header{Flags: FlagData, Length: g.MaxPayload(), Log: log1, Position: 1, Attempt: 1}
		if n := SealPage(page, h); n != g.PageSize {
			t.Errorf("%d bytes of %d matter", n, g.PageSize)
		}
		if got, err := ParsePage(page); err != nil || got != h {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestPageEveryBitCounts flips each bit that the CRC covers, and the CRC's own.
func TestPageEveryBitCounts(t *testing.T) {
	h := headers()["extension"]
	page, n := sample(h, payloadOf(h))
	for i := range n * 8 {
		page[i/8] ^= 1 << (i % 8)
		if _, err := ParsePage(page); !errors.Is(err, ErrBadPage) {
			t.Errorf("bit %d flipped: %v", i, err)
		}
		page[i/8] ^= 1 << (i % 8)
	}
	page[n] ^= 0xff
	if _, err := ParsePage(page); err != nil {
		t.Errorf("what stands behind the payload counts: %v", err)
	}
	for i := range n {
		if _, err := ParsePage(page[:i]); !errors.Is(err, ErrBadPage) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestPageRefusesWhatNoWriterMakes(t *testing.T) {
	for name, h := range map[string]Header{
		"no kind":                    {},
		"two kinds":                  {Flags: FlagData | FlagJunk},
		"an unknown flag":            {Flags: FlagData | 0x80},
		"junk with a payload":        {Flags: FlagJunk, Length: 1},
		"a fragment of junk":         {Flags: FlagJunk | FlagFragment},
		"a batch of junk":            {Flags: FlagJunk | FlagBatch},
		"a batch of nothing":         {Flags: FlagBatch},
		"extension without its flag": {Flags: FlagData, Length: 8, Extension: 4},
		"flag without extension":     {Flags: FlagData | FlagExtension, Length: 8},
		"extension beyond the rest":  {Flags: FlagData | FlagExtension, Length: 8, Extension: 9},
	} {
		page := make([]byte, 4096)
		SealPage(page, h)
		if _, err := ParsePage(page); !errors.Is(err, ErrBadPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyPageWantsItsOwnLogAndPosition(t *testing.T) {
	h := headers()["data"]
	page, _ := sample(h, "x")
	var e *PageError
	if _, err := VerifyPage(page, layout.LogID{1}, h.Position); !errors.As(err, &e) {
		t.Errorf("another log: %v", err)
	}
	if _, err := VerifyPage(page, log1, h.Position+1); !errors.As(err, &e) {
		t.Errorf("another position: %v", err)
	}
}

func TestPageAllocatesNothing(t *testing.T) {
	h := headers()["data"]
	page, _ := sample(h, "x")
	if n := testing.AllocsPerRun(100, func() {
		SealPage(page, h)
		if _, err := VerifyPage(page, log1, h.Position); err == nil && PageLength(page) == 0 {
			panic("no length")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParsePage(f *testing.F) {
	for _, h := range headers() {
		page, n := sample(h, payloadOf(h))
		f.Add(page[:n], false)
		f.Add(page[:n], true)
	}
	f.Fuzz(func(t *testing.T, page []byte, reseal bool) {
		if reseal && PageLength(page) != 0 { // or the fuzzer gets stuck at the CRC
			le32(page[8:], pageCRC(page, PageLength(page)-HeaderSize))
		}
		h, err := ParsePage(page)
		if err != nil {
			if !errors.Is(err, ErrBadPage) {
				t.Errorf("%v", err)
			}
			return
		}
		if f := h.Fragment(page); (f.Count != 0) != (h.Flags&FlagFragment != 0) {
			t.Errorf("%+v is fragment %+v", h, f)
		}
		if HeaderSize+h.Length != PageLength(page) || len(h.Payload(page)) != h.Length-h.Extension {
			t.Errorf("%+v of %d bytes", h, len(page))
		}
		again := append([]byte(nil), page...)
		SealPage(again, h)
		if got, err := ParsePage(again); err != nil || got != h {
			t.Errorf("%+v sealed again is %+v, %v", h, got, err)
		}
	})
}

func le32(b []byte, v uint32) { b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24) }

func BenchmarkSealAndVerifyPage(b *testing.B) { // go test -bench Page ./internal/wire
	h := headers()["data"]
	page := make([]byte, 4096)
	h.Length = 4032
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		SealPage(page, h)
		if _, err := VerifyPage(page, log1, h.Position); err != nil {
			b.Fatal(err)
		}
	}
}
