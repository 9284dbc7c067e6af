package main

import (
	"fmt"
	"slices"
	"strings"

	"corfu/internal/wire"
	"corfu/layout"
)

// held is what one unit says that it has at an address. The zero value: nothing.
type held struct {
	state   wire.State // DURABLE, DURABLE_JUNK, TRIMMED or CORRUPT
	attempt layout.Attempt
	sum     uint32 // CRC-32C of an entry's page
}

// sound tells whether that is what a position can end as.
func (h held) sound() bool {
	switch h.state {
	case wire.Durable, wire.DurableJunk, wire.Trimmed:
		return true
	}
	return false
}

func (h held) String() string {
	switch h.state {
	case wire.Durable:
		return fmt.Sprintf("an entry of attempt %#x, CRC %#08x", uint64(h.attempt), h.sum)
	case wire.DurableJunk:
		return "junk"
	case wire.Trimmed:
		return "a trimmed position"
	case wire.Corrupt:
		return "a page that does not verify"
	}
	return "nothing"
}

// listing is what one unit says that it has in a range of addresses.
type listing struct {
	unit layout.UnitID
	at   map[layout.Address]held
}

// difference is a position of which not all replicas have the same, or one has nothing sound.
type difference struct {
	position layout.Position
	address  layout.Address
	units    []layout.UnitID
	held     []held // of each unit
}

func (d difference) String() string {
	var parts []string
	for i, u := range d.units {
		parts = append(parts, fmt.Sprintf("unit %d has %s", u, d.held[i]))
	}
	return fmt.Sprintf("position %d, address %d: %s", d.position, d.address, strings.Join(parts, "; "))
}

// compareListings gives the addresses from … to−1 at which not all units hold the same sound thing, and all that they hold there.
func compareListings(all []listing, from, to layout.Address) map[layout.Address][]held {
	diffs := map[layout.Address][]held{}
	for a := from; a < to; a++ {
		first := all[0].at[a]
		same := first.sound()
		for _, l := range all[1:] {
			same = same && l.at[a] == first
		}
		if same {
			continue
		}
		row := make([]held, len(all))
		for i, l := range all {
			row[i] = l.at[a]
		}
		diffs[a] = row
	}
	return diffs
}

// stillDiffer gives those of before that differ again now: what was under way between two looks (a trim, a repair) is no difference.
func stillDiffer(before, now map[layout.Address][]held) map[layout.Address][]held {
	both := map[layout.Address][]held{}
	for a, row := range now {
		if _, was := before[a]; was {
			both[a] = row
		}
	}
	return both
}

// sameChain names a chain as long as its positions, addresses and units stay: what was compared of it in an older epoch needs no second look.
func sameChain(l *layout.Layout, segment, stripe int) string {
	c := l.Segments[segment].Chains[stripe]
	units := slices.Clone(c.Units)
	slices.Sort(units)
	return fmt.Sprint(l.Segments[segment].Start, len(l.Segments[segment].Chains), stripe, c.Base, units)
}
