package main

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

// What the fragments of an entry are on flash depends on all of its positions.
func TestFragmentsAreWholeTornOrUndecided(t *testing.T) {
	payload := make([]byte, 2*(geometry.MaxPayload()-wire.FragmentSize)+5)
	for i := range payload {
		payload[i] = byte(i >> 4)
	}
	var pages []copyOf
	for f := range slices.Chunk(payload, geometry.MaxPayload()-wire.FragmentSize) {
		pages = append(pages, copyOf{what: part, payload: sha256.Sum256(f), frag: wire.Fragment{Entry: 9, Length: len(payload), Number: len(pages), Count: 3}})
	}
	alien := pages[1]
	alien.frag.Entry++
	for _, c := range []struct {
		name string
		at   map[layout.Position]copyOf // positions 5, 6, 7
		want string
	}{
		{"whole", map[layout.Position]copyOf{5: pages[0], 6: pages[1], 7: pages[2]}, fmt.Sprint([]what{value(payload), inside(5), inside(5)})},
		{"one is missing", map[layout.Position]copyOf{5: pages[0], 7: pages[2]}, "[part  part]"},
		{"one is junk", map[layout.Position]copyOf{5: pages[0], 6: {what: junk}, 7: pages[2]}, "[junk junk junk]"},
		{"one is junk, one is missing", map[layout.Position]copyOf{6: pages[1], 7: {what: junk}}, "[ junk junk]"},
		{"one is another's", map[layout.Position]copyOf{5: pages[0], 6: alien, 7: pages[2]}, "[junk junk junk]"},
	} {
		all := map[layout.Position][]copyOf{}
		for p, x := range c.at {
			all[p] = []copyOf{x, x}
		}
		got := make([]what, 3)
		for p, copies := range all {
			if got[p-5] = copies[0].what; copies[0].what == part {
				got[p-5] = fragment(p, all)
			}
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %q, want %q", c.name, fmt.Sprint(got), c.want)
		}
	}
}
