package flash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// Inspector reads the directory of a unit that is not running, and changes nothing.
type Inspector struct {
	dir  string
	meta Meta
	x    shape
	lock *os.File
}

// OpenInspector opens a unit's directory to look at it. It fails with ErrLocked while the unit runs, and with ErrBadMeta.
func OpenInspector(dir string) (*Inspector, error) {
	lock, err := os.Open(filepath.Join(dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("flash: %s is not a unit's directory: %w", dir, err)
	}
	in := &Inspector{dir: dir, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("flash: %s: %w: stop the unit first", dir, ErrLocked), in.Close())
	}
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if err == nil {
		in.meta, err = decodeMeta(b)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("flash: %s: %w", dir, err), in.Close())
	}
	in.x.perFile = in.meta.SegmentPages
	if in.meta.Layout != nil {
		in.x.pageSize = in.meta.Layout.Geometry.PageSize
	}
	return in, nil
}

// Meta is what the unit must not forget.
func (in *Inspector) Meta() Meta { return in.meta }

// Close lets go of the directory.
func (in *Inspector) Close() error { return in.lock.Close() }

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
	ns, err := listSegments(in.dir)
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
	f, err := os.Open(segmentPath(in.dir, n))
	if err != nil {
		return fmt.Errorf("flash: %w", err)
	}
	defer f.Close()
	buf := make([]byte, scanBytes)
	count := layout.Address(len(buf) / in.x.pageSize)
	for a := first; a < last; a += count {
		piece := buf[:int(min(count, last-a))*in.x.pageSize]
		_, off := in.x.place(a)
		got, err := f.ReadAt(piece, off)
		clear(piece[got:])
		bad := err != nil && err != io.EOF
		for i := 0; i < len(piece)/in.x.pageSize; i++ {
			page := piece[i*in.x.pageSize : (i+1)*in.x.pageSize]
			x := in.judge(a+layout.Address(i), page)
			if bad && i*in.x.pageSize >= got {
				if _, err := f.ReadAt(page, off+int64(i*in.x.pageSize)); err != nil {
					x = Found{Address: x.Address, Position: x.Position, Mapped: x.Mapped, Page: page, Problem: "cannot be read: " + err.Error()}
				} else {
					x = in.judge(x.Address, page)
				}
			}
			if err := fn(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// judge tells what a page is.
func (in *Inspector) judge(a layout.Address, page []byte) Found {
	x := Found{Address: a, Page: page}
	x.Position, x.Mapped = in.meta.Layout.PositionAt(in.meta.Unit, a)
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
