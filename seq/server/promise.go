package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"corfu/internal/twinfile"
	"corfu/layout"
)

// The promise's file, 24 bytes, little-endian:
//
//	magic "CFSQ", version u32 = 1, sequencer u32, CRC-32C u32 (of the file with crc = 0), promise u64
const (
	promiseFile    = "promise"
	promiseMagic   = 0x51534643
	promiseVersion = 1
	promiseSize    = 24
)

// errPromise: the promise's file is damaged, or of another sequencer. Nobody knows what was promised then: the
// operator decides (an empty directory is a sequencer that promised nothing, which is safe once no old one runs).
var errPromise = errors.New("not this sequencer's promise file")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodePromise draws the file.
func encodePromise(id layout.SequencerID, e layout.Epoch) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, promiseMagic)
	b = le.AppendUint32(b, promiseVersion)
	b = le.AppendUint32(b, uint32(id))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(e))
	le.PutUint32(b[12:], crc32.Checksum(b, castagnoli))
	return b
}

// decodePromise fails with errPromise.
func decodePromise(b []byte, id layout.SequencerID) (layout.Epoch, error) {
	if len(b) != promiseSize {
		return 0, fmt.Errorf("%d bytes: %w", len(b), errPromise)
	}
	le := binary.LittleEndian
	e := layout.Epoch(le.Uint64(b[16:]))
	if v := le.Uint32(b[4:]); le.Uint32(b) == promiseMagic && v > promiseVersion {
		return 0, fmt.Errorf("%w: it is of format %d, and this release knows %d: start the sequencer with the release that wrote it", errPromise, v, promiseVersion)
	}
	if string(b) != string(encodePromise(id, e)) || e > layout.MaxEpoch {
		return 0, errPromise
	}
	return e, nil
}

// loadPromise gives 0 if there is no file, or no directory.
func loadPromise(dir string, id layout.SequencerID) (layout.Epoch, error) {
	if dir == "" {
		return 0, nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(dir, promiseFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	e, err := decodePromise(b, id)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, promiseFile), err)
	}
	return e, nil
}

// promiseTwin is the name of the file's twin; releases before used it for a new file that was to replace the old one.
const promiseTwin = promiseFile + ".new"

// promises keeps the promise in a directory; the zero value keeps none.
type promises struct {
	id   layout.SequencerID
	file *twinfile.File
}

func newPromises(dir string, id layout.SequencerID) promises {
	if dir == "" {
		return promises{id: id}
	}
	return promises{id, &twinfile.File{Dir: dir, Name: promiseFile, Twin: promiseTwin}}
}

// save makes the promise durable (rule R14), on a disk that is full, too, if it was saved before.
func (p promises) save(e layout.Epoch) error {
	if p.file == nil {
		return nil
	}
	return p.file.Put(func(int64, bool) []byte { return encodePromise(p.id, e) })
}
