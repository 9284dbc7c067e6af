package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"corfu/layout"
)

// HeaderSize is the size of a page's header in bytes.
const HeaderSize = layout.HeaderSize

const (
	pageMagic   = 0x47504643 // "CFPG"
	pageVersion = 1
)

// PageFlags say what a page is. Exactly one of Data, Junk, Trimmed and Corrupt is set.
type PageFlags uint8

const (
	FlagData      PageFlags = 1 << iota // an entry, or a fragment of one
	FlagJunk                            // a filled hole; no payload
	FlagFragment                        // with Data: part of a larger entry; its extension says which
	FlagExtension                       // with Data: typed extensions (extension.go) stand in front of the payload
	FlagTrimmed                         // on flash only: the entry was trimmed; no payload
	FlagCorrupt                         // on flash only: what was published did not verify; no payload
	FlagBatch                           // with Data: the payload of the entry is a batch of records (batch.go); all fragments of a larger one have the flag

	kindFlags = FlagData | FlagJunk | FlagTrimmed | FlagCorrupt

	// KnownFlags are the flags that this build reads. It refuses a page with any other.
	KnownFlags = OldFlags | FlagBatch

	// OldFlags are the flags that every build reads, those included that do not say which.
	OldFlags = kindFlags | FlagFragment | FlagExtension
)

// Kind is the one flag that says what the page is.
func (f PageFlags) Kind() PageFlags { return f & kindFlags }

// Attempt identifies one attempt to write an entry: the client's id (upper 32 bits) and its counter. Two pages
// are the same entry when their attempts are equal. Junk has attempt 0.
type Attempt = layout.Attempt

// MakeAttempt joins a client's id and its counter.
func MakeAttempt(c layout.ClientID, n uint32) Attempt { return Attempt(c)<<32 | Attempt(n) }

// Header is what stands in front of every page.
type Header struct {
	Flags     PageFlags
	Length    int // bytes behind the header that the CRC covers: extensions and payload
	Extension int // bytes of it that are extensions
	Log       layout.LogID
	Position  layout.Position
	Epoch     layout.Epoch // in which the attempt was made
	Attempt   Attempt
}

// ErrBadPage: the bytes are not a valid page. [PageError] says why.
var ErrBadPage = errors.New("not a valid page")

// PageError says what is wrong with a page.
type PageError struct{ Reason string }

func (e *PageError) Error() string { return "wire: " + ErrBadPage.Error() + ": " + e.Reason }

func (e *PageError) Unwrap() error { return ErrBadPage }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// zeroCRC stands for the header's own CRC field while the sum is taken.
var zeroCRC [4]byte

func pageCRC(page []byte, length int) uint32 {
	c := crc32.Update(0, castagnoli, page[:8])
	c = crc32.Update(c, castagnoli, zeroCRC[:])
	return crc32.Update(c, castagnoli, page[12:HeaderSize+length])
}

// SealPage writes h in front of the h.Length bytes that already stand at page[HeaderSize:], with their CRC, and
// returns how many bytes of page matter. It panics if page is too short: the caller sized it.
func SealPage(page []byte, h Header) int {
	b := page[:HeaderSize+h.Length]
	le := binary.LittleEndian
	le.PutUint32(b[0:], pageMagic)
	b[4], b[5] = pageVersion, byte(h.Flags)
	le.PutUint16(b[6:], uint16(h.Length))
	le.PutUint16(b[12:], uint16(h.Extension))
	le.PutUint16(b[14:], 0)
	copy(b[16:32], h.Log[:])
	le.PutUint64(b[32:], uint64(h.Position))
	le.PutUint64(b[40:], uint64(h.Epoch))
	le.PutUint64(b[48:], uint64(h.Attempt))
	le.PutUint64(b[56:], 0)
	le.PutUint32(b[8:], pageCRC(b, h.Length))
	return len(b)
}

// PageSum is the CRC-32C in a page's header. Of two pages that verify, those with equal sums hold the same bytes, as far as 32 bits
// can tell. page has at least HeaderSize bytes.
func PageSum(page []byte) uint32 { return binary.LittleEndian.Uint32(page[8:]) }

// PageClient returns the client whose attempt a page is, by its header alone; 0 for junk, and for what cannot be a page. It does not verify it.
func PageClient(page []byte) layout.ClientID {
	if PageLength(page) == 0 {
		return 0
	}
	return layout.ClientID(binary.LittleEndian.Uint64(page[48:]) >> 32)
}

// PageLength tells from a page's header alone how many bytes of the page matter, or 0 if the
// header cannot be one. It does not verify the page.
func PageLength(page []byte) int {
	if len(page) < HeaderSize || binary.LittleEndian.Uint32(page) != pageMagic {
		return 0
	}
	n := HeaderSize + int(binary.LittleEndian.Uint16(page[6:]))
	if n > len(page) {
		return 0
	}
	return n
}

// ParsePage verifies a page on its own: magic, version, flags, lengths, CRC. The payload is
// page[HeaderSize+h.Extension : HeaderSize+h.Length]. It fails with a *PageError.
func ParsePage(page []byte) (Header, error) {
	var h Header
	if len(page) < HeaderSize {
		return h, &PageError{"shorter than its header"}
	}
	le := binary.LittleEndian
	if le.Uint32(page) != pageMagic {
		return h, &PageError{"no magic"}
	}
	if page[4] != pageVersion {
		return h, &PageError{fmt.Sprintf("format version %d: this build reads %d", page[4], pageVersion)}
	}
	h = Header{
		Flags: PageFlags(page[5]), Length: int(le.Uint16(page[6:])), Extension: int(le.Uint16(page[12:])),
		Log: layout.LogID(page[16:32]), Position: layout.Position(le.Uint64(page[32:])),
		Epoch: layout.Epoch(le.Uint64(page[40:])), Attempt: Attempt(le.Uint64(page[48:])),
	}
	if HeaderSize+h.Length > len(page) {
		return h, &PageError{"longer than the page"}
	}
	if crc := pageCRC(page, h.Length); crc != le.Uint32(page[8:]) {
		return h, &PageError{fmt.Sprintf("CRC is %#08x, not %#08x", crc, le.Uint32(page[8:]))}
	}
	if err := h.validate(); err != nil || h.Flags&(FlagExtension|FlagFragment) == 0 {
		return h, err
	}
	_, err := h.extensions(page)
	return h, err
}

// validate refuses what a correct writer never sums up.
func (h Header) validate() error {
	k := h.Flags.Kind()
	switch {
	case h.Flags&^KnownFlags != 0 || k == 0 || k&(k-1) != 0:
		return &PageError{fmt.Sprintf("flags %#02x", uint8(h.Flags))}
	case k != FlagData && (h.Length != 0 || h.Flags != k):
		return &PageError{"a page without an entry has a payload"}
	case h.Extension > h.Length || (h.Extension != 0) != (h.Flags&FlagExtension != 0):
		return &PageError{"bad extension length"}
	}
	return nil
}

// VerifyPage is ParsePage, and the page must belong to position p of the log.
func VerifyPage(page []byte, log layout.LogID, p layout.Position) (Header, error) {
	h, err := ParsePage(page)
	if err != nil {
		return h, err
	}
	if h.Log != log {
		return h, &PageError{"of another log, " + h.Log.String()}
	}
	if h.Position != p {
		return h, &PageError{fmt.Sprintf("of position %d, not %d", h.Position, p)}
	}
	return h, nil
}

// Payload is the payload of a page whose header is h.
func (h Header) Payload(page []byte) []byte {
	return page[HeaderSize+h.Extension : HeaderSize+h.Length]
}
