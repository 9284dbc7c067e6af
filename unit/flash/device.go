package flash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
)

// device is a volume on a block device, or on a file of fixed size. After the superblock come the meta and the table,
// each as a twin, then slots of one size. The table says which slot holds which segment; a slot that it does not name may hold
// anything. (super.go draws it.)
type device struct {
	f      *osFile
	path   string
	super  super
	copies [2]error // why a copy of the superblock is not valid

	metaMu sync.Mutex
	meta   twin

	mu    sync.Mutex
	twin  twin // of the table
	table table
}

// table is what the table twin holds: the size of a slot, and for each slot the number of its segment plus 1, or 0.
//
//	0  slot size  8 bytes
//	8  slots      8 bytes each
type table struct {
	slot     int64          // bytes; 0: no segment was ever made
	where    map[uint64]int // segment → slot
	limit    int            // how many rows there are
	occupied map[int]bool
}

func newTable(limit int) table {
	return table{limit: limit, where: map[uint64]int{}, occupied: map[int]bool{}}
}

func (t *table) clone() table {
	return table{t.slot, maps.Clone(t.where), t.limit, maps.Clone(t.occupied)}
}

func (t *table) encode() []byte {
	rows := 0
	for _, i := range t.where {
		rows = max(rows, i+1)
	}
	b := make([]byte, 8+8*rows)
	binary.LittleEndian.PutUint64(b, uint64(t.slot))
	for n, i := range t.where {
		binary.LittleEndian.PutUint64(b[8+8*i:], n+1)
	}
	return b
}

var errTable = errors.New("segment table not valid")

func decodeTable(b []byte, limit int) (table, error) {
	t := newTable(limit)
	if len(b) < 8 || len(b)%8 != 0 || len(b)/8-1 > limit {
		return t, fmt.Errorf("flash: %w: %d bytes", errTable, len(b))
	}
	slot := binary.LittleEndian.Uint64(b)
	if slot > math.MaxInt64/2 || slot%align != 0 || (slot == 0 && len(b) > 8) {
		return t, fmt.Errorf("flash: %w: slots of %d bytes", errTable, slot)
	}
	t.slot = int64(slot)
	for i := range len(b)/8 - 1 {
		n := binary.LittleEndian.Uint64(b[8+8*i:])
		if n == 0 {
			continue
		}
		if _, twice := t.where[n-1]; twice {
			return t, fmt.Errorf("flash: %w: segment %d twice", errTable, n-1)
		}
		t.where[n-1] = i
		t.occupied[i] = true
	}
	return t, nil
}

// openDevice opens path and formats it if that was allowed or there is nothing on it.
func openDevice(path string, how access) (volume, error) {
	f, size, err := openBlock(path, how)
	if err != nil {
		return nil, err
	}
	v := &device{f: f, path: path}
	if !how.readonly {
		if err := f.settle(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	v.super, v.copies, err = loadSuper(f, size)
	switch {
	case err == nil && v.super.bytes > size:
		err = fmt.Errorf("it has %d bytes, and had %d when it was formatted: a part of it is missing", size, v.super.bytes)
	case err == nil && how.id != 0 && v.super.unit != how.id:
		err = fmt.Errorf("it belongs to unit %d, not %d: %w", v.super.unit, how.id, ErrOtherUnit)
	case errors.Is(err, errNoSuper):
		err = v.fresh(size, how)
	}
	if err == nil {
		err = v.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("flash: %s: %w", path, err), f.Close())
	}
	return v, nil
}

// fresh formats a device without superblock, unless something else is there.
func (v *device) fresh(size int64, how access) error {
	if how.readonly || how.id == 0 {
		return errors.New("no unit's store is there")
	}
	what, err := foreign(v.f, size)
	if err != nil {
		return err
	}
	if what != "" && !how.format {
		return fmt.Errorf("it holds something else (%s): %w", what, ErrForeign)
	}
	if v.super, err = planSuper(how.id, size, how.pages); err != nil {
		return err
	}
	return v.super.write(v.f)
}

func (v *device) load() error {
	v.meta, v.twin = v.super.twins()
	body, _, err := v.twin.load(v.f)
	if err != nil {
		return fmt.Errorf("%w: %w", errTable, err)
	}
	if v.table, err = decodeTable(body, v.super.rows); err != nil {
		return err
	}
	for n, i := range v.table.where {
		if i >= v.slots(v.table.slot) {
			return fmt.Errorf("%w: segment %d in slot %d, and there are %d", errTable, n, i, v.slots(v.table.slot))
		}
	}
	return nil
}

// slots is how many slots of size bytes there are.
func (v *device) slots(size int64) int {
	return int(min(int64(v.super.rows), (v.super.dataEnd()-v.super.dataAt)/size))
}

func (v *device) loadMeta() ([]byte, error) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	b, _, err := v.meta.load(v.f)
	if err != nil {
		return nil, fmt.Errorf("flash: %s: %w: %w", v.path, ErrBadMeta, err)
	}
	switch {
	case v.meta.sequence == 0, len(b) == 0 && len(v.table.where) > 0:
		return nil, fmt.Errorf("flash: %s has no meta: %w", v.path, ErrBadMeta)
	case len(b) == 0: // as it was formatted
		return nil, nil
	}
	return b, nil
}

func (v *device) saveMeta(b []byte) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.meta.store(v.f, b); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	return nil
}

func (v *device) list() ([]uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.table.where)), nil
}

func (v *device) open(n uint64, size int64) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i, there := v.table.where[n]
	if !there || v.table.slot != size {
		return nil, fmt.Errorf("flash: %s: segment %d of %d bytes: %w", v.path, n, size, errTable)
	}
	return v.section(i), nil
}

func (v *device) section(i int) *section {
	return &section{v.f, v.super.dataAt + int64(i)*v.table.slot, v.table.slot}
}

// create zeroes a free slot and only then names it: its former pages would verify, at the same addresses, after a wipe.
func (v *device) create(n uint64, size int64) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.table.clone()
	if len(t.where) == 0 {
		t.slot = size
	}
	if old, there := t.where[n]; there { // it was to be removed, and that failed
		delete(t.occupied, old)
	}
	if t.slot != size {
		return nil, fmt.Errorf("flash: %s: new segment %d of %d bytes: %w", v.path, n, size, errTable)
	}
	i := 0
	for ; t.occupied[i]; i++ {
	}
	if i >= v.slots(size) {
		return nil, fmt.Errorf("flash: %s: all %d slots of %d bytes are taken: %w", v.path, v.slots(size), size, ErrFull)
	}
	at := v.super.dataAt + int64(i)*size
	if err := zeroBlocks(v.f, at, size); err != nil {
		return nil, fmt.Errorf("flash: new segment: zeros: %w", err)
	}
	t.where[n], t.occupied[i] = i, true
	if err := v.save(t); err != nil {
		return nil, fmt.Errorf("flash: new segment: %w", err)
	}
	return v.section(i), nil
}

// save makes t the table.
func (v *device) save(t table) error {
	if err := v.twin.store(v.f, t.encode()); err != nil {
		return err
	}
	v.table = t
	return nil
}

func (v *device) remove(ns []uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.table.clone()
	var free []int
	for _, n := range ns {
		i, there := t.where[n]
		if !there {
			continue
		}
		delete(t.where, n)
		delete(t.occupied, i)
		free = append(free, i)
	}
	if err := v.save(t); err != nil {
		return err
	}
	for _, i := range free {
		// The drive may forget what is there. It need not, and the next segment does not count on it.
		discardBlocks(v.f, v.super.dataAt+int64(i)*t.slot, t.slot)
	}
	return nil
}

func (v *device) used(uint64) (int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.table.slot, nil
}

func (v *device) slow() bool { return false }

func (v *device) check(_, _ int64, report func(volumeProblem)) error {
	all := func(what string, copies [2]error) {
		for i, err := range copies {
			if err != nil {
				report(volumeProblem{whole: true, what: fmt.Sprintf("%s: copy %d: %v", what, i, err)})
			}
		}
	}
	all("superblock", v.copies)
	_, copies, _ := v.meta.load(v.f)
	all("meta", copies)
	_, copies, _ = v.twin.load(v.f)
	all("segment table", copies)
	return nil
}

func (v *device) close() error { return v.f.Close() }

// section is the slot of one segment as a File.
type section struct {
	f    *osFile
	at   int64
	size int64
}

var errSection = errors.New("flash: beyond the end of a segment")

// Write implements File.
func (s *section) Write(bufs [][]byte, off int64, sync bool) error {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	if off < 0 || off+n > s.size {
		return errSection
	}
	return s.f.Write(bufs, s.at+off, sync)
}

// Sync implements File.
func (s *section) Sync() error { return s.f.Sync() }

// Read implements File.
func (s *section) Read(b []byte, off int64) error {
	if off < 0 || off+int64(len(b)) > s.size {
		return errSection
	}
	return s.f.Read(b, s.at+off)
}

// Punch implements File. A place of a slot is of no use to other addresses, so nothing is done.
func (s *section) Punch(int64, int64) error { return nil }

// Used implements File.
func (s *section) Used() (int64, error) { return s.size, nil }

// Close implements File. The device stays open.
func (s *section) Close() error { return nil }
