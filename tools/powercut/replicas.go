package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit/flash"
)

// replica is a unit's store, opened while no unit runs.
type replica struct {
	id    layout.UnitID
	store *flash.Store
}

// copyOf is what one unit holds of one position.
type copyOf struct {
	unit    layout.UnitID
	what    what
	attempt layout.Attempt
	page    [sha256.Size]byte // of the whole page
	frag    wire.Fragment     // Count is 0 if the page is not one of several
	payload [sha256.Size]byte // of a fragment
}

// tellFlash compares the stores below dir page by page, for positions from on, and tells what they hold. What cannot be
// right becomes bad lines. Nothing is told of a directory without units.
func tellFlash(r *recorder, dir string, from layout.Position) (err error) {
	replicas, err := openReplicas(dir)
	defer func() {
		for _, x := range replicas {
			if e := x.store.Close(); err == nil {
				err = e
			}
		}
	}()
	if err != nil {
		return err
	}
	var lay *layout.Layout // the newest that any unit knows
	for _, x := range replicas {
		if l := x.store.Meta().Layout; l != nil && (lay == nil || l.Epoch > lay.Epoch) {
			lay = l
		}
	}
	if lay == nil {
		return nil
	}
	all := map[layout.Position][]copyOf{}
	for _, x := range replicas {
		// An entry that begins below is to be seen as a whole.
		if err := x.collect(r, lay, from-min(from, largest), all); err != nil {
			return fmt.Errorf("unit %d: %w", x.id, err)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if p < from {
			continue
		}
		l := judgeCopies(lay, p, all[p])
		if l.what == part {
			l.what = fragment(p, all)
		}
		if err := r.note(l); err != nil {
			return err
		}
	}
	return nil
}

func openReplicas(dir string) (all []replica, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "unit-*"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		_, number, _ := strings.Cut(filepath.Base(name), "-")
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return all, fmt.Errorf("%s: not a unit's directory", name)
		}
		s, err := flash.Open(name, layout.UnitID(id), flash.Options{}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		if err != nil {
			return all, err
		}
		all = append(all, replica{layout.UnitID(id), s})
	}
	return all, nil
}

// collect adds what the unit holds of positions from on. It ends behind a whole window of empty addresses: an undecided
// address holds the window back, so that nothing is written that far above it (rule R4).
func (x replica) collect(r *recorder, lay *layout.Layout, from layout.Position, all map[layout.Position][]copyOf) error {
	if x.store.Meta().Layout == nil {
		return nil // it never was part of the log
	}
	page := make([]byte, lay.Geometry.PageSize)
	empty := 0 // addresses in a row
	for a := x.first(lay, from); empty < lay.Geometry.Window; a++ {
		if err := x.store.ReadPage(a, page); err != nil {
			return err
		}
		h, err := wire.ParsePage(page)
		if err != nil || h.Log != lay.Log {
			empty++ // or torn: the outside must not have been told of it
			continue
		}
		empty = 0
		if p, ok := lay.PositionAt(x.id, a); !ok || p != h.Position {
			err := r.note(line{fact: factBad, text: fmt.Sprintf("unit %d address %d holds position %d", x.id, a, h.Position)})
			if err != nil {
				return err
			}
			continue
		}
		c := copyOf{unit: x.id, attempt: h.Attempt}
		switch h.Flags.Kind() {
		case wire.FlagData:
			c.what, c.page = value(h.Payload(page)), sha256.Sum256(page)
			if h.Flags&wire.FlagFragment != 0 {
				c.what, c.frag, c.payload = part, h.Fragment(page), sha256.Sum256(h.Payload(page))
			}
		case wire.FlagJunk:
			c.what = junk // a mark carries the epoch that made it, which may differ
		case wire.FlagTrimmed:
			c.what = trimmed
		default:
			c.what = corrupt
		}
		all[h.Position] = append(all[h.Position], c)
	}
	return nil
}

// first is the lowest address of the unit at which a position from on may live.
func (x replica) first(lay *layout.Layout, from layout.Position) layout.Address {
	var lowest layout.Address
	found := false
	for p := from; p < from+layout.Position(len(lay.Units)); p++ {
		place, err := lay.Locate(p)
		if err == nil && slices.Contains(place.Chain.Units, x.id) && (!found || place.Address < lowest) {
			lowest, found = place.Address, true
		}
	}
	return lowest
}

// fragment is what the fragment at p is by all that stands beside it: of a whole entry; or junk, as readers have it, where
// something else stands in the place of one of them; or part.
func fragment(p layout.Position, all map[layout.Position][]copyOf) what {
	f := all[p][0].frag
	first := f.First(p)
	var sums []byte
	missing := false
	for i := range f.Count {
		copies := all[first+layout.Position(i)]
		if len(copies) == 0 {
			missing = true
			continue
		}
		if g := copies[0].frag; g.Count == 0 || g.Entry != f.Entry {
			return junk
		}
		sums = append(sums, copies[0].payload[:]...)
	}
	switch {
	case missing:
		return part
	case p == first:
		return sumOf(sha256.Sum256(sums), f.Count)
	}
	return inside(first)
}

// judgeCopies makes one line of all copies of a position.
func judgeCopies(lay *layout.Layout, p layout.Position, copies []copyOf) line {
	place, err := lay.Locate(p)
	if err != nil {
		return line{fact: factBad, text: err.Error()}
	}
	first := copies[0]
	for _, c := range copies[1:] {
		if c.what != first.what || c.attempt != first.attempt || !bytes.Equal(c.page[:], first.page[:]) {
			return line{fact: factBad, text: fmt.Sprintf("position %d: replicas disagree: unit %d has %s of attempt %#x, unit %d %s of attempt %#x, sums %x and %x",
				p, first.unit, first.what, first.attempt, c.unit, c.what, c.attempt, first.page[:4], c.page[:4])}
		}
	}
	return line{fact: factFlash, position: p, copies: len(copies), of: len(place.Chain.Units), what: first.what}
}
