package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestExtensionsOfAPage(t *testing.T) {
	h := headers()["fragment"]
	page, n := sample(h, payloadOf(h))
	h.Length = n - HeaderSize
	got, err := ParsePage(page)
	if err != nil || got != h || got.Fragment(page) != fragment1 || string(got.Payload(page)) != "the payload" {
		t.Errorf("%+v, fragment %+v, payload %q, %v", got, got.Fragment(page), got.Payload(page), err)
	}
	if first := fragment1.First(h.Position); first != h.Position-2 {
		t.Errorf("first position %d of a fragment at %d", first, h.Position)
	}
	plain := headers()["extension"] // types of tomorrow are passed over
	page, _ = sample(plain, payloadOf(plain))
	if got, err := ParsePage(page); err != nil || got.Fragment(page) != (Fragment{}) || string(got.Payload(page)) != "the payload" {
		t.Errorf("a page without a fragment: %+v, %v", got.Fragment(page), err)
	}
}

func TestPageRefusesExtensionsThatNoWriterMakes(t *testing.T) {
	good := fragment1
	with := func(change func(*Fragment)) []byte {
		f := good
		change(&f)
		return f.Append(nil)
	}
	const fragment = FlagData | FlagFragment | FlagExtension
	for name, c := range map[string]struct {
		flags PageFlags
		ext   []byte
	}{
		"cut off":                     {FlagData | FlagExtension, []byte{9, 0, 0}},
		"longer than all":             {FlagData | FlagExtension, []byte{9, 0, 1, 0}},
		"the zero byte is not":        {FlagData | FlagExtension, []byte{9, 1, 0, 0}},
		"one type twice":              {FlagData | FlagExtension, AppendExtension(AppendExtension(nil, 9, nil), 9, nil)},
		"out of order":                {FlagData | FlagExtension, AppendExtension(AppendExtension(nil, 9, nil), 8, nil)},
		"a fragment without its flag": {FlagData | FlagExtension, good.Append(nil)},
		"the flag without a fragment": {fragment, AppendExtension(nil, 9, nil)},
		"the flag alone":              {FlagData | FlagFragment, nil},
		"a short fragment":            {fragment, AppendExtension(nil, ExtFragment, make([]byte, fragmentValue-1))},
		"no entry":                    {fragment, with(func(f *Fragment) { f.Entry = 0 })},
		"no bytes":                    {fragment, with(func(f *Fragment) { f.Length = 0 })},
		"too many bytes":              {fragment, with(func(f *Fragment) { f.Length = MaxEntry + 1 })},
		"one alone":                   {fragment, with(func(f *Fragment) { f.Number, f.Count = 0, 1 })},
		"a number too high":           {fragment, with(func(f *Fragment) { f.Number = f.Count })},
		"before the log begins":       {fragment, with(func(f *Fragment) { f.Number = 8 })}, // at position 7
		"0 of another attempt":        {fragment, with(func(f *Fragment) { f.Number = 0 })},
		"longer than the entry":       {fragment, with(func(f *Fragment) { f.Length = 3 })},
	} {
		h := Header{Flags: c.flags, Log: log1, Position: 7, Epoch: 1, Attempt: good.Entry + 2, Extension: len(c.ext)}
		page, _ := sample(h, string(c.ext)+"four")
		if _, err := ParsePage(page); !errors.Is(err, ErrBadPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtensionsAllocateNothing(t *testing.T) {
	h := headers()["fragment"]
	page, _ := sample(h, payloadOf(h))
	var room [64]byte
	if n := testing.AllocsPerRun(100, func() {
		fragment1.Append(room[:0])
		if h, err := ParsePage(page); err != nil || h.Fragment(page).Count == 0 {
			panic("no fragment")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzExtensions(f *testing.F) {
	f.Add(fragment1.Append(nil))
	f.Add(AppendExtension(AppendExtension(nil, 0x7e, nil), 0x7f, []byte("ext")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		for rest := b; len(rest) > 0; {
			kind, value, next, err := NextExtension(rest)
			if err != nil {
				if !errors.Is(err, ErrBadPage) {
					t.Errorf("%v", err)
				}
				return
			}
			if kind == ExtFragment {
				if fr, err := parseFragment(value); err == nil && !bytes.Equal(fr.Append(nil), AppendExtension(nil, kind, value)) {
					t.Errorf("%+v is written in another way than %x", fr, value)
				}
			}
			again, rest = AppendExtension(again, kind, value), next
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
