package flash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"corfu/layout"
)

// super is the superblock of a device, written once: when it is formatted. It is a record in the first block, and again in
// the last one.
//
//	0                 superblock
//	4096              meta, a twin of 1 MiB each
//	tableAt           table, a twin
//	dataAt            slots, each with a segment's pages and its trims, as a segment file has them
//	bytes − 4096      superblock
//
// Its body is made of eight numbers of 8 bytes: the device's size, where the meta, the table and the data begin, the rows of
// the table, the pages of a segment, and two zeros.
type super struct {
	unit    layout.UnitID
	bytes   int64
	metaAt  int64
	tableAt int64
	dataAt  int64
	rows    int
	pages   int
}

const (
	superBody  = 64
	metaRecord = 1 << 20 // bytes of each copy of the meta
	dataAlign  = 1 << 20 // what drives like parts to begin at
	maxRows    = 1 << 24
)

// ErrForeign: the device holds something that is no unit's store. If that may be lost, start the unit once with --format.
var ErrForeign = errors.New("not a unit's store: --format takes it all the same, and what is there is lost")

var (
	errNoSuper = errors.New("no superblock")
	errSuper   = errors.New("superblock not valid")
)

func (s super) tableSize() int { return recordBytes(8 + 8*s.rows) }

// dataEnd is where the data end at the latest.
func (s super) dataEnd() int64 { return s.bytes - align }

// planSuper lays out a device of size bytes.
func planSuper(id layout.UnitID, size int64, pages int) (super, error) {
	s := super{unit: id, bytes: size / align * align, metaAt: align, tableAt: align + 2*metaRecord, pages: pages}
	// As many as there are of the smallest pages.
	s.rows = int(min(maxRows, size/(int64(pages)*align)))
	s.dataAt = (s.tableAt + 2*int64(s.tableSize()) + dataAlign - 1) / dataAlign * dataAlign
	if s.rows < 2 || s.dataEnd()-s.dataAt < 2*int64(pages)*align {
		return s, fmt.Errorf("%d bytes are too few for two segments of %d pages", size, pages)
	}
	return s, nil
}

func (s super) encode() []byte {
	b := alignedBytes(recordBytes(superBody))
	for i, n := range [...]int64{s.bytes, s.metaAt, s.tableAt, s.dataAt, int64(s.rows), int64(s.pages)} {
		binary.LittleEndian.PutUint64(b[recordHead+8*i:], uint64(n))
	}
	sealRecord(b, magicSuper, uint64(s.unit), 1, superBody)
	return b
}

// decodeSuper reads a superblock. It fails with errNoSuper if the block is none, with errSuper if it is damaged.
func decodeSuper(b []byte) (super, error) {
	if string(b[:8]) != magicSuper {
		return super{}, errNoSuper
	}
	owner, _, body, err := openRecord(b, magicSuper)
	if err != nil {
		return super{}, fmt.Errorf("%w: %w", errSuper, err)
	}
	if len(body) != superBody || owner == 0 || owner > 1<<32-1 {
		return super{}, fmt.Errorf("%w: %d bytes, of unit %d", errSuper, len(body), owner)
	}
	var n [8]uint64
	for i := range n {
		n[i] = binary.LittleEndian.Uint64(body[8*i:])
		if n[i] > 1<<62 {
			return super{}, fmt.Errorf("%w: number %d is %d", errSuper, i, n[i])
		}
	}
	s := super{layout.UnitID(owner), int64(n[0]), int64(n[1]), int64(n[2]), int64(n[3]), int(n[4]), int(n[5])}
	if s.pages < minSegmentPages || s.pages > maxSegmentPages {
		return super{}, fmt.Errorf("%w: segments of %d pages", errSuper, s.pages)
	}
	if want, err := planSuper(s.unit, s.bytes, s.pages); err != nil || want != s {
		return super{}, fmt.Errorf("%w: %+v", errSuper, s)
	}
	return s, nil
}

// loadSuper reads both superblocks of a device of size bytes. The first must be valid, so that what was written over the beginning
// of the device by mistake, or for good, is not written over in turn. It fails with errNoSuper if there is none at all.
func loadSuper(f *osFile, size int64) (s super, copies [2]error, err error) {
	b := alignedBytes(align)
	if err := f.Read(b, 0); err != nil {
		return s, copies, err
	}
	s, copies[0] = decodeSuper(b)
	end := size/align*align - align
	if copies[0] == nil {
		end = s.dataEnd()
	}
	var last super
	if end > 0 && end+align <= size {
		if copies[1] = f.Read(b, end); copies[1] == nil {
			last, copies[1] = decodeSuper(b)
		}
	} else {
		copies[1] = errNoSuper
	}
	switch {
	case errors.Is(copies[0], errNewer):
		return s, copies, copies[0]
	case errors.Is(copies[1], errNewer):
		return s, copies, copies[1]
	case copies[0] == nil && copies[1] == nil && last != s:
		copies[1] = fmt.Errorf("%w: it is another store's", errSuper)
		return s, copies, nil
	case copies[0] == nil:
		return s, copies, nil
	case copies[1] == nil:
		return last, copies, fmt.Errorf("the first block is not what was written there, and the last one is of the store of unit %d: "+
			"corfu fsck --repair writes it again, if nothing else was put on the device", last.unit)
	case errors.Is(copies[0], errSuper) || errors.Is(copies[1], errSuper):
		return s, copies, fmt.Errorf("%w: first block: %v; last block: %v", errSuper, copies[0], copies[1])
	}
	return s, copies, errNoSuper
}

// twins are the meta and the table.
func (s super) twins() (meta, table twin) {
	return twin{magic: magicMeta, owner: uint64(s.unit), base: s.metaAt, size: metaRecord, best: 1},
		twin{magic: magicTable, owner: uint64(s.unit), base: s.tableAt, size: s.tableSize(), best: 1}
}

// write formats: everything in front of the data becomes zero, then come a meta without a body and a table without segments, so
// that neither is ever missing, and then the superblocks, the first one last.
func (s super) write(f *osFile) error {
	if err := zeroBlocks(f, 0, s.dataAt); err != nil {
		return err
	}
	meta, segments := s.twins()
	empty := newTable(s.rows)
	if err := errors.Join(meta.store(f, nil), segments.store(f, empty.encode())); err != nil {
		return err
	}
	b := s.encode()
	for _, at := range [...]int64{s.dataEnd(), 0} {
		if err := f.Write([][]byte{b}, at, true); err != nil {
			return err
		}
	}
	return nil
}

// RestoreSuperblock writes a superblock again of which one copy is left, and tells whether it did: a tool that puts its
// own mark on a device hits one of them. For a directory there is nothing to do. It fails with ErrLocked while the unit runs.
func RestoreSuperblock(path string) (done bool, err error) {
	st, err := os.Stat(path)
	if err != nil || st.IsDir() {
		return false, err
	}
	f, size, err := openBlock(path, access{})
	if errors.Is(err, ErrLocked) {
		return false, fmt.Errorf("%w: stop the unit first", err)
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s, copies, err := loadSuper(f, size)
	for i, at := range [...]int64{0, s.dataEnd()} {
		if copies[i] != nil && copies[1-i] == nil {
			return true, f.Write([][]byte{s.encode()}, at, true)
		}
	}
	return false, err
}
