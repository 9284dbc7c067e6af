package flash

import (
	"bytes"
	"fmt"
	"hash/crc32"
)

// A directory's meta has a twin, meta.tmp, of the same size (internal/twinfile). So a unit can promise (rule R14), and thereby let the log go
// on without some other unit, on a disk that is full.
//
// Both are longer than what they say: spaces behind it, which the sum covers, keep room for a layout that grows. The room is twice what is
// said, and is made while the disk has some: a meta has to double between two saves to be refused by a disk that filled up meanwhile.
const (
	twinName = metaName + ".tmp"

	metaRoom    = 16 << 10 // bytes, at least
	maxMetaRoom = 16 << 20 // a twin that is larger is none
)

// roomFor is how large the file of a meta of n bytes is to be.
func roomFor(n int) int {
	room := metaRoom
	for room < 2*n {
		room *= 2
	}
	return room
}

// padded is the same meta in n bytes, or as it is if it is longer.
func padded(b []byte, n int) []byte {
	line, body, found := bytes.Cut(b, []byte{'\n'})
	if !found || len(b) >= n {
		return b
	}
	body = append(bytes.Clone(body), bytes.Repeat([]byte{' '}, n-len(b)-1)...)
	body = append(body, '\n')
	return append(fmt.Appendf(nil, metaFormat, versionOfMeta(line), crc32.Checksum(body, castagnoli)), body...)
}

func (v *directory) saveMeta(b []byte) error {
	if err := v.meta.Put(func(room int64, grow bool) []byte {
		if room > maxMetaRoom {
			room = 0
		}
		if grow || room < int64(len(b)) {
			room = max(room, int64(roomFor(len(b))))
		}
		return padded(b, int(room))
	}); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	return nil
}
