package server

import (
	"errors"
	"hash/crc32"
	"strings"
	"testing"
)

// R14: a promise that a release to come wrote is a promise all the same, and the error says who can read it.
func TestR14NewerPromiseIsRefusedByItsNumber(t *testing.T) {
	b := encodePromise(1, 7)
	b[4] = promiseVersion + 1
	clear(b[12:16])
	sum := crc32.Checksum(b, castagnoli)
	b[12], b[13], b[14], b[15] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	if _, err := decodePromise(b, 1); !errors.Is(err, errPromise) || !strings.Contains(err.Error(), "format 2, and this release knows 1") {
		t.Error(err)
	}
}
