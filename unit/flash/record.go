package flash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A record is what the store itself notes beside the pages: trims, and on a device the superblock, the meta and the table.
//
//	 0  magic     8 bytes, of its kind
//	 8  version   4 bytes, 1
//	12  crc       4 bytes, CRC-32C over head (with crc = 0) and body
//	16  sequence  8 bytes, from 1 on
//	24  owner     8 bytes: the segment's number, or the unit's id
//	32  length    8 bytes, of the body
//	40  zero      24 bytes
//	64  body
//
// Little-endian. A record starts at a block of 4096 bytes and is filled up with zeros to the end of one.
const (
	recordHead    = 64
	recordVersion = 1
)

// Kinds of records.
const (
	magicTrims = "corfutrm"
	magicSuper = "corfudev"
	magicMeta  = "corfumet"
	magicTable = "corfutab"
)

var (
	errBlank  = errors.New("nothing was written there")
	errRecord = errors.New("record not valid")
	// errNewer: the record is whole, and of a format to come. Nobody else may decide what it says, nor write over it.
	errNewer = errors.New("written by a newer corfu: start the unit with that release")
)

// recordBytes is the space of a record with a body of n bytes.
func recordBytes(n int) int { return (recordHead + n + align - 1) / align * align }

// sealRecord makes b, whose body of n bytes stands in its place, a record.
func sealRecord(b []byte, magic string, owner, sequence uint64, n int) {
	clear(b[:recordHead])
	clear(b[recordHead+n:])
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], recordVersion)
	binary.LittleEndian.PutUint64(b[16:], sequence)
	binary.LittleEndian.PutUint64(b[24:], owner)
	binary.LittleEndian.PutUint64(b[32:], uint64(n))
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:recordHead+n], castagnoli))
}

// openRecord gives owner, sequence and body of the record in b. It fails with errBlank, errRecord or errNewer: every version keeps
// magic, version, checksum and length where they are. b is as it was when it returns.
func openRecord(b []byte, magic string) (owner, sequence uint64, body []byte, err error) {
	if zeroBytesOnly(b[:recordHead]) {
		return 0, 0, nil, errBlank
	}
	if string(b[:8]) != magic {
		return 0, 0, nil, fmt.Errorf("%w: magic %q", errRecord, b[:8])
	}
	n := binary.LittleEndian.Uint64(b[32:])
	if n > uint64(len(b)-recordHead) {
		return 0, 0, nil, fmt.Errorf("%w: %d bytes long", errRecord, n)
	}
	sum := binary.LittleEndian.Uint32(b[12:])
	clear(b[12:16])
	got := crc32.Checksum(b[:recordHead+n], castagnoli)
	binary.LittleEndian.PutUint32(b[12:], sum)
	if got != sum {
		return 0, 0, nil, fmt.Errorf("%w: checksum", errRecord)
	}
	switch v := binary.LittleEndian.Uint32(b[8:]); {
	case v > recordVersion:
		return 0, 0, nil, fmt.Errorf("%w: %s of format %d, and this one knows %d", errNewer, magic, v, recordVersion)
	case v != recordVersion:
		return 0, 0, nil, fmt.Errorf("%w: format %d", errRecord, v)
	}
	return binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[16:]), b[recordHead : recordHead+n], nil
}

// twin is a record that is kept twice, one copy behind the other, each as large as it will ever be. A change writes the
// copy that is worse and then the other one, and is made when both are durable. So a write that is cut off leaves one
// copy whole, and a copy that the disk spoils takes nothing with it, not even the last change. One goroutine at a time uses it.
type twin struct {
	magic string
	owner uint64
	base  int64 // of the first copy
	size  int   // bytes of each

	sequence uint64 // the highest that was seen or tried
	best     int    // the copy that stays while the other one is written
}

// load gives the body of the newest copy, nil if nothing was ever written, and why a copy is not as the newest: damaged, or
// older. It fails with errRecord if something is there and neither copy is valid, and with errNewer if either copy is: the other one is what
// stood there before, and does not count.
func (t *twin) load(f File) (body []byte, bad [2]error, err error) {
	t.sequence = 0
	for i := range 2 {
		b := alignedBytes(t.size)
		if bad[i] = f.Read(b, t.base+int64(i*t.size)); bad[i] != nil {
			continue
		}
		owner, n, found, err := openRecord(b, t.magic)
		if err == nil && owner != t.owner {
			err = fmt.Errorf("%w: of %d, not of %d", errRecord, owner, t.owner)
		}
		if bad[i] = err; err != nil {
			continue
		}
		switch {
		case n > t.sequence && i == 1 && bad[0] == nil:
			bad[0] = errOlder
		case n < t.sequence:
			bad[i] = errOlder
			continue
		}
		body, t.sequence, t.best = found, n, i
	}
	switch {
	case errors.Is(bad[0], errNewer):
		return nil, bad, bad[0]
	case errors.Is(bad[1], errNewer):
		return nil, bad, bad[1]
	case t.sequence > 0:
		return body, bad, nil
	case errors.Is(bad[0], errBlank) || errors.Is(bad[1], errBlank):
		return nil, [2]error{}, nil // of the first change no more than a half was made
	}
	return nil, bad, fmt.Errorf("%w: neither copy: %w; %w", errRecord, bad[0], bad[1])
}

var errOlder = errors.New("older than the other copy: a change was cut off")

// store makes body the record: durable in both copies when it returns nil. If it fails the old or the new one is there.
func (t *twin) store(f File, body []byte) error {
	if recordHead+len(body) > t.size {
		return fmt.Errorf("flash: %s of %d bytes: there is room for %d", t.magic, len(body), t.size-recordHead)
	}
	b := alignedBytes(recordBytes(len(body)))
	copy(b[recordHead:], body)
	t.sequence++
	sealRecord(b, t.magic, t.owner, t.sequence, len(body))
	for range 2 {
		other := 1 - t.best
		if err := f.Write([][]byte{b}, t.base+int64(other*t.size), true); err != nil {
			return err
		}
		t.best = other
	}
	return nil
}
