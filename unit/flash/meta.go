package flash

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"corfu/layout"
)

// Meta is what a unit must not forget.
type Meta struct {
	Unit         layout.UnitID
	Store        layout.StoreID `json:",omitzero"` // drawn when the store was formatted (rule R21)
	Log          LogID          `json:",omitzero"` // zero until the unit is part of one
	Promise      layout.Epoch   // rule R14: serves no epoch below
	TrimmedBelow layout.Address // all below were given up
	// SettledBelow: all below were durable when the meta was written, so a page there that does not verify is damaged, not torn.
	SettledBelow layout.Address
	// Stopped: the unit stopped cleanly when it was intact in this epoch, with everything on flash (unit.StoppedIn). 0: it runs, or did not.
	Stopped layout.Epoch `json:",omitzero"`
	Scrub   Scrub        `json:",omitzero"`
	// Corrupt are addresses whose pages here were found not to verify, the lowest MaxNoted of them, ascending; MoreCorrupt: there are more. A
	// start looks at them again, so that one that was repaired since does no harm.
	Corrupt      []layout.Address `json:",omitempty"`
	MoreCorrupt  bool             `json:",omitempty"`
	SegmentPages int              // pages of one segment file

	Reconciled layout.RecordRef `json:",omitzero"` // rule R22: the last record that the unit confirmed to be reconciled for, durably before it did
	Active     layout.RecordRef `json:",omitzero"` // rule R25: the newest record that it knows to be, or to have been, ACTIVE
	// Client: no client id above it has had a session here. It is noted ahead, in steps, so that few sessions wait for it.
	Client layout.ClientID `json:",omitzero"`
	Kept   layout.Address  `json:",omitzero"` // the unit came back once with what it had, and kept what lies below; 0: it did not
	Trims  uint64          `json:",omitzero"` // addresses that were trimmed one by one, at least (rule R23); 0: certainly none

	Copied []Copied       `json:",omitempty"` // older ranges that are being copied to the unit, which does not serve them yet
	Layout *layout.Layout `json:",omitempty"` // the last one the unit was reconciled to; nil: none. Its geometry sizes the pages
	// ActiveLayout is that of the record Active where Layout is of a newer one, which may come to nothing; nil: Layout is, or nobody told the
	// unit. A layout store that was lost is built from it.
	ActiveLayout *layout.Layout `json:",omitempty"`
}

// Scrub is how far the verification of all pages came.
type Scrub struct {
	Next  layout.Address `json:",omitempty"` // all below were verified in the pass that was interrupted; 0: none was
	Ended int64          `json:",omitempty"` // when the last whole pass ended, in seconds since 1970; 0: there was none
}

// Copied is how far the addresses From … To-1 were copied: all below Below are durable, as they were in epoch Since or became later.
type Copied struct {
	From, To, Below layout.Address
	Since           layout.Epoch
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
	metaFormat = "corfu unit meta %d crc32c %08x\n"
	// Version 1 knew no trims but pages that were marks. A release that knows no other would take trimmed pages for lost ones.
	// Version 3 may name CORRUPT pages; version 4 has the ids and notes of rules R21 to R25.
	metaVersion = 4
	metaCorrupt = 3
	metaPlain   = 2
)

// MaxNoted bounds how many CORRUPT addresses the meta names: they have to have room beside the layout on a disk that is full.
const MaxNoted = 256

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
	version := metaPlain
	switch {
	case !m.Store.IsZero():
		version = metaVersion
	case len(m.Corrupt) > 0 || m.MoreCorrupt:
		version = metaCorrupt
	}
	return append(fmt.Appendf(nil, metaFormat, version, crc32.Checksum(body, castagnoli)), body...), nil
}

// decodeMeta is the inverse, for this version and the ones before. It fails with ErrBadMeta.
func decodeMeta(b []byte) (Meta, error) {
	var m Meta
	_, body, found := bytes.Cut(b, []byte{'\n'})
	v := versionOfMeta(b)
	if !found || !bytes.Equal(b[:len(b)-len(body)], fmt.Appendf(nil, metaFormat, v, crc32.Checksum(body, castagnoli))) {
		return m, fmt.Errorf("flash: %w: first line or sum", ErrBadMeta)
	}
	if v < 1 || v > metaVersion {
		return m, fmt.Errorf("flash: %w: format %d, and this corfu reads 1 to %d: start the unit with the release that wrote it", ErrBadMeta, v, metaVersion)
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

// OfActive returns the layout of the record Active; nil: the unit does not have it.
func (m *Meta) OfActive() *layout.Layout {
	switch {
	case m.Active.IsZero():
		return nil
	case m.Layout != nil && m.Layout.Epoch == m.Active.Epoch && m.Reconciled == m.Active:
		return m.Layout
	case m.ActiveLayout != nil && m.ActiveLayout.Epoch == m.Active.Epoch:
		return m.ActiveLayout
	}
	return nil
}

// SetActive notes the newest record that is known to be ACTIVE, and keeps its layout where the unit has it.
func (m *Meta) SetActive(r layout.RecordRef) {
	m.Active = r
	if m.ActiveLayout = m.OfActive(); m.ActiveLayout == m.Layout {
		m.ActiveLayout = nil
	}
}

// identify gives the store of a release before version 4 an id. Such a release noted nothing: the unit was reconciled for its layout at
// the latest, of a record without an id.
func (m *Meta) identify() {
	m.Store = NewStoreID()
	if m.Layout != nil {
		m.Reconciled = layout.RecordRef{Epoch: m.Layout.Epoch}
	}
}

// NewStoreID draws the id of a store that is formatted.
func NewStoreID() (id layout.StoreID) {
	_, _ = rand.Read(id[:]) // it never fails (crypto/rand)
	return id
}

// versionOfMeta is the version that a meta file says it has; 0: none.
func versionOfMeta(b []byte) int {
	var v int
	var sum uint32
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	if _, err := fmt.Sscanf(string(line), strings.TrimSpace(metaFormat), &v, &sum); err != nil {
		return 0
	}
	return v
}

func (m Meta) validate() error {
	var errs []error
	if m.Unit == 0 {
		errs = append(errs, errors.New("no unit id"))
	}
	if m.SegmentPages < minSegmentPages || m.SegmentPages > maxSegmentPages {
		errs = append(errs, fmt.Errorf("%d pages in a segment: must be %d to %d", m.SegmentPages, minSegmentPages, maxSegmentPages))
	}
	if len(m.Corrupt) > MaxNoted || !slices.IsSorted(m.Corrupt) {
		errs = append(errs, fmt.Errorf("%d corrupt addresses: must be %d at most, and ascending", len(m.Corrupt), MaxNoted))
	}
	if m.Promise > layout.MaxEpoch {
		errs = append(errs, fmt.Errorf("promise %d is too large", m.Promise))
	}
	for _, l := range []*layout.Layout{m.Layout, m.ActiveLayout} {
		if l == nil {
			continue
		}
		if err := l.Validate(); err != nil {
			errs = append(errs, err)
		}
		if l.Log != layout.LogID(m.Log) {
			errs = append(errs, errors.New("the layout is of another log"))
		}
	}
	return errors.Join(errs...)
}
