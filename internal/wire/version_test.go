package wire

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"corfu/layout"
)

// TestPageOfAnotherFormatIsRefusedByItsNumber, whole as it is.
func TestPageOfAnotherFormatIsRefusedByItsNumber(t *testing.T) {
	page := make([]byte, 4096)
	SealPage(page, Header{Flags: FlagData, Length: 10, Log: layout.LogID{1}, Position: 5, Epoch: 1, Attempt: 1})
	for _, version := range []byte{0, pageVersion + 1} {
		page[4] = version
		binary.LittleEndian.PutUint32(page[8:], pageCRC(page, 10))
		if _, err := ParsePage(page); !errors.Is(err, ErrBadPage) || !strings.Contains(err.Error(), "this build reads 1") {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
