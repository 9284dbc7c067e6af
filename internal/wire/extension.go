package wire

import (
	"encoding/binary"
	"fmt"

	"corfu/layout"
)

// ExtensionType says what an extension means. A reader passes over types that it does not know: what changes the
// meaning of the payload has a flag in the header as well, and an unknown flag is refused.
type ExtensionType uint8

// ExtFragment is a [Fragment]. It goes with FlagFragment.
const ExtFragment ExtensionType = 1

// extensionHead is what stands in front of an extension's value: type, 0, length (2 bytes).
const extensionHead = 4

// AppendExtension appends one extension to b. A page has at most one of each type, in ascending order of type.
// It panics if value is longer than 65535 bytes.
func AppendExtension(b []byte, t ExtensionType, value []byte) []byte {
	if len(value) > 0xffff {
		panic("wire: extension too long")
	}
	b = append(b, byte(t), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// NextExtension takes the first extension off b, which is not empty. It fails with a *PageError.
func NextExtension(b []byte) (t ExtensionType, value, rest []byte, err error) {
	if len(b) < extensionHead || b[1] != 0 {
		return 0, nil, nil, &PageError{"bad extension"}
	}
	end := extensionHead + int(binary.LittleEndian.Uint16(b[2:]))
	if end > len(b) {
		return 0, nil, nil, &PageError{"an extension longer than all of them"}
	}
	return ExtensionType(b[0]), b[extensionHead:end], b[end:], nil
}

// MaxEntry is the longest payload of an entry, in bytes: one that is longer than a page takes travels as fragments.
const MaxEntry = 1 << 20

// FragmentSize is how many bytes of a page the extension of a fragment takes.
const FragmentSize = extensionHead + fragmentValue

const fragmentValue = 8 + 4 + 2 + 2

// Fragment says which part of a larger entry a page is. All fragments of one entry agree in everything but Number, and
// fragment i stands i positions behind fragment 0.
//
//	0        8        12       14       16
//	+--------+--------+--------+--------+
//	| entry  | length | number | count  |
//	+--------+--------+--------+--------+
type Fragment struct {
	Entry  Attempt // attempt id of fragment 0: fragments of different attempts are never joined
	Length int     // of the whole entry's payload in bytes, 1 to MaxEntry
	Number int     // of this fragment, 0 to Count-1
	Count  int     // of fragments, 2 to 65535
}

// First is the position of fragment 0, given that this one stands at p.
func (f Fragment) First(p layout.Position) layout.Position { return p - layout.Position(f.Number) }

// Append appends the extension to b.
func (f Fragment) Append(b []byte) []byte {
	var v [fragmentValue]byte
	le := binary.LittleEndian
	le.PutUint64(v[0:], uint64(f.Entry))
	le.PutUint32(v[8:], uint32(f.Length))
	le.PutUint16(v[12:], uint16(f.Number))
	le.PutUint16(v[14:], uint16(f.Count))
	return AppendExtension(b, ExtFragment, v[:])
}

func parseFragment(v []byte) (Fragment, error) {
	if len(v) != fragmentValue {
		return Fragment{}, &PageError{fmt.Sprintf("a fragment extension of %d bytes", len(v))}
	}
	le := binary.LittleEndian
	f := Fragment{
		Entry: Attempt(le.Uint64(v)), Length: int(le.Uint32(v[8:])), Number: int(le.Uint16(v[12:])), Count: int(le.Uint16(v[14:])),
	}
	if f.Entry == 0 || f.Length < 1 || f.Length > MaxEntry || f.Count < 2 || f.Number >= f.Count {
		return f, &PageError{"a fragment that no writer makes"}
	}
	return f, nil
}

// Fragment is which part of a larger entry the page with header h is; Count 0 if it is an entry by itself. The page was
// verified by ParsePage.
func (h Header) Fragment(page []byte) Fragment {
	if h.Flags&FlagFragment == 0 {
		return Fragment{}
	}
	f, _ := h.extensions(page)
	return f
}

// extensions refuses extensions that no correct writer makes, and gives the fragment among them.
func (h Header) extensions(page []byte) (f Fragment, err error) {
	b := page[HeaderSize : HeaderSize+h.Extension]
	last := -1
	for len(b) > 0 {
		t, value, rest, err := NextExtension(b)
		if err != nil {
			return f, err
		}
		if int(t) <= last {
			return f, &PageError{"extensions out of order"}
		}
		last, b = int(t), rest
		if t == ExtFragment {
			if f, err = parseFragment(value); err != nil {
				return f, err
			}
		}
	}
	return f, h.agrees(f)
}

// agrees refuses a fragment that the header says nothing of, the other way round, or one that cannot stand where it does.
func (h Header) agrees(f Fragment) error {
	switch {
	case (h.Flags&FlagFragment != 0) != (f.Count != 0):
		return &PageError{"fragment flag and extension disagree"}
	case f.Count == 0:
		return nil
	case uint64(f.Number) > uint64(h.Position), f.Number == 0 && f.Entry != h.Attempt, h.Length-h.Extension > f.Length:
		return &PageError{"a fragment that cannot stand here"}
	}
	return nil
}
