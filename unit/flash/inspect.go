package flash

import (
	"errors"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// Inspector reads the store of a unit that is not running, and changes nothing.
type Inspector struct {
	vol  volume
	meta Meta
	x    *shape
}

// OpenInspector opens a unit's directory or device to look at it. It fails with ErrLocked while the unit runs, and with ErrBadMeta.
func OpenInspector(path string) (*Inspector, error) {
	vol, err := openVolume(path, access{readonly: true})
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%w: stop the unit first", err)
	}
	if err != nil {
		return nil, err
	}
	in := &Inspector{vol: vol}
	b, err := vol.loadMeta()
	switch {
	case err == nil && b == nil:
		err = fmt.Errorf("%w: no such file, or nothing in it", ErrBadMeta)
	case err == nil:
		in.meta, err = decodeMeta(b)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("flash: %s: %w", path, err), in.Close())
	}
	in.x = shapeOf(in.meta)
	return in, nil
}

// Meta is what the unit must not forget.
func (in *Inspector) Meta() Meta { return in.meta }

// Close lets go of the store.
func (in *Inspector) Close() error { return in.vol.close() }

// Found is what stands at an address.
type Found struct {
	Address  layout.Address
	Position layout.Position // of the address, if Mapped
	Mapped   bool
	State    wire.State // EMPTY for a page that does not verify; Problem says why
	Header   wire.Header
	Page     []byte // valid during the call
	Blank    bool   // never written
	Problem  string // why the page does not verify; "" if it does, or is blank
}

// Scan calls fn with everything at from … to−1 of the segments that exist, in order. It ends with fn's error.
func (in *Inspector) Scan(from, to layout.Address, fn func(Found) error) error {
	if in.meta.Layout == nil {
		return nil
	}
	ns, err := in.vol.list()
	if err != nil {
		return err
	}
	per := layout.Address(in.x.perFile)
	for _, n := range ns {
		first, last := max(from, layout.Address(n)*per), min(to, layout.Address(n+1)*per)
		if first >= last {
			continue
		}
		if err := in.segment(n, first, last, fn); err != nil {
			return err
		}
	}
	return nil
}

func (in *Inspector) segment(n uint64, first, last layout.Address, fn func(Found) error) error {
	f, err := in.vol.open(n, in.x.segmentBytes())
	if err != nil {
		return err
	}
	defer f.Close()
	var trimmed bitmap
	t := in.x.trimTwin(n)
	if trimmed, _, err = t.load(f); err != nil {
		trimmed = nil // Check tells
	}
	size := in.x.pageSize
	buf := alignedBytes(min(scanBytes, int(in.x.pageBytes())))
	count := layout.Address(len(buf) / size)
	for a := first; a < last; a += count {
		piece := buf[:int(min(count, last-a))*size]
		_, off := in.x.place(a)
		bad := f.Read(piece, off) != nil
		for i := 0; i < len(piece)/size; i++ {
			page, at := piece[i*size:(i+1)*size], a+layout.Address(i)
			var unread error
			switch {
			case trimmed.has(int(off)/size + i):
				in.x.mark(at, page)
			case bad:
				unread = f.Read(page, off+int64(i*size))
			}
			if err := fn(in.judge(at, page, unread)); err != nil {
				return err
			}
		}
	}
	return nil
}

// judge tells what a page is. unread: why it could not be read.
func (in *Inspector) judge(a layout.Address, page []byte, unread error) Found {
	x := Found{Address: a, Page: page}
	x.Position, x.Mapped = in.meta.Layout.PositionAt(in.meta.Unit, a)
	if unread != nil {
		x.Problem = "cannot be read: " + unread.Error()
		return x
	}
	log := layout.LogID(in.meta.Log)
	x.State, x.Header = unit.Classify(page, log, x.Position)
	if x.State != wire.Empty {
		if !x.Mapped {
			x.Problem = "a page at an address to which the layout gives no position"
		}
		return x
	}
	if x.Blank = zeroBytesOnly(page[:wire.HeaderSize]); x.Blank {
		return x
	}
	_, err := wire.VerifyPage(page, log, x.Position)
	x.Problem = err.Error()
	return x
}

func zeroBytesOnly(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
