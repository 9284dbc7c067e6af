package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxRecords is the largest number of records in a batch.
const MaxRecords = 1 << 16

// ErrBadBatch: the payload of an entry with FlagBatch is not a batch. [BatchError] says why.
var ErrBadBatch = errors.New("not a valid batch of records")

// BatchError says what is wrong with a batch.
type BatchError struct{ Reason string }

func (e *BatchError) Error() string { return "wire: " + ErrBadBatch.Error() + ": " + e.Reason }

// Unwrap returns ErrBadBatch.
func (e *BatchError) Unwrap() error { return ErrBadBatch }

// SizeOfLength returns how many bytes a batch takes for the number n: its count, or the length of
// a record.
func SizeOfLength(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// AppendBatchHead appends what stands in front of the records to b: their number and the length of
// each. Between 1 and MaxRecords lengths make a batch that DecodeBatch reads.
func AppendBatchHead(b []byte, lengths []int) []byte {
	b = binary.AppendUvarint(b, uint64(len(lengths)))
	for _, n := range lengths {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// BatchCount returns how many records a batch says that it has. The first bytes of the payload are enough: those of
// fragment 0. It fails with a *BatchError.
func BatchCount(payload []byte) (int, error) {
	n, _, err := batchNumber(payload)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, &BatchError{"no records"}
	case n > MaxRecords:
		return 0, &BatchError{fmt.Sprintf("%d records: at most %d", n, MaxRecords)}
	}
	return int(n), nil
}

// DecodeBatch returns the records of a batch. They share the payload's memory, without room behind
// them. It fails with a *BatchError, and allocates no more than 24 bytes for each byte of payload.
func DecodeBatch(payload []byte) ([][]byte, error) {
	count, err := BatchCount(payload)
	if err != nil {
		return nil, err
	}
	lengths := payload[SizeOfLength(count):]
	if count > len(lengths) { // each has a byte of length at least
		return nil, &BatchError{fmt.Sprintf("%d records in %d bytes", count, len(payload))}
	}
	data, sum := lengths, uint64(0)
	for range count {
		var n uint64
		if n, data, err = batchNumber(data); err != nil {
			return nil, err
		}
		if n > MaxEntry {
			return nil, &BatchError{fmt.Sprintf("a record of %d bytes: at most %d", n, MaxEntry)}
		}
		sum += n
	}
	if sum != uint64(len(data)) {
		return nil, &BatchError{fmt.Sprintf("records of %d bytes in all, and %d bytes of records", sum, len(data))}
	}
	records := make([][]byte, count)
	for i := range records {
		var n uint64
		n, lengths, _ = batchNumber(lengths)
		records[i], data = data[:n:n], data[n:]
	}
	return records, nil
}

// batchNumber takes the first number off b. There is one way to write each.
func batchNumber(b []byte) (n uint64, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	switch {
	case size == 0:
		return 0, nil, &BatchError{"cut off"}
	case size < 0 || (size > 1 && b[size-1] == 0):
		return 0, nil, &BatchError{"a number that no writer makes"}
	}
	return n, b[size:], nil
}
