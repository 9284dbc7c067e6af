package flash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"corfu/layout"
)

// Meta is what a unit must not forget.
type Meta struct {
	Unit         layout.UnitID
	Log          LogID          `json:",omitzero"` // zero until the unit is part of one
	Promise      layout.Epoch   // rule R14: serves no epoch below
	TrimmedBelow layout.Address // all below were given up
	// SettledBelow: all below were durable when the meta was written, so a page there that does not verify is damaged, not torn.
	SettledBelow layout.Address
	SegmentPages int            // pages of one segment file
	Layout       *layout.Layout `json:",omitempty"` // the last one the unit was reconciled to; nil: none. Its geometry sizes the pages
}

// LogID is a layout.LogID that is written in hexadecimal.
type LogID layout.LogID

// MarshalText implements encoding.TextMarshaler.
func (id LogID) MarshalText() ([]byte, error) { return []byte(layout.LogID(id).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *LogID) UnmarshalText(b []byte) error {
	l, err := layout.ParseLogID(string(b))
	*id = LogID(l)
	return err
}

const (
	metaName   = "meta"
	metaFormat = "corfu unit meta 1 crc32c %08x\n"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBadMeta: the meta file is damaged, or of another version. The unit does not know what it promised and must
// not start: restore the file, or give the unit an empty directory and a new id.
var ErrBadMeta = errors.New("meta file not valid")

// encodeMeta gives the bytes of the meta file.
func encodeMeta(m Meta) ([]byte, error) {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("flash: meta: %w", err)
	}
	body = append(body, '\n')
	return append(fmt.Appendf(nil, metaFormat, crc32.Checksum(body, castagnoli)), body...), nil
}

// decodeMeta is the inverse. It fails with ErrBadMeta.
func decodeMeta(b []byte) (Meta, error) {
	var m Meta
	_, body, found := bytes.Cut(b, []byte{'\n'})
	if !found || !bytes.Equal(b[:len(b)-len(body)], fmt.Appendf(nil, metaFormat, crc32.Checksum(body, castagnoli))) {
		return m, fmt.Errorf("flash: %w: first line or sum", ErrBadMeta)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("flash: %w: %w", ErrBadMeta, err)
	}
	if err := m.validate(); err != nil {
		return m, fmt.Errorf("flash: %w: %w", ErrBadMeta, err)
	}
	return m, nil
}

func (m Meta) validate() error {
	var errs []error
	if m.Unit == 0 {
		errs = append(errs, errors.New("no unit id"))
	}
	if m.SegmentPages < minSegmentPages || m.SegmentPages > maxSegmentPages {
		errs = append(errs, fmt.Errorf("%d pages in a segment: must be %d to %d", m.SegmentPages, minSegmentPages, maxSegmentPages))
	}
	if m.Promise > layout.MaxEpoch {
		errs = append(errs, fmt.Errorf("promise %d is too large", m.Promise))
	}
	if m.Layout != nil {
		if err := m.Layout.Validate(); err != nil {
			errs = append(errs, err)
		}
		if m.Layout.Log != layout.LogID(m.Log) {
			errs = append(errs, errors.New("the layout is of another log"))
		}
	}
	return errors.Join(errs...)
}

// readMeta reads the meta file; ok is false if there is none.
func readMeta(dir string) (m Meta, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, os.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("flash: %w", err)
	}
	m, err = decodeMeta(b)
	return m, err == nil, err
}

// writeMeta replaces the meta file: after it returned the new one is there after any
// crash; if it fails, the old one or the new one is.
func writeMeta(dir string, m Meta, sync bool) error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	b, err := encodeMeta(m)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, metaName+".tmp")
	if err := writeFile(tmp, b, sync); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, metaName)); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	if !sync {
		return nil
	}
	return syncDir(dir)
}

func writeFile(path string, b []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flash: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flash: sync %s: %w", dir, err)
	}
	return nil
}
