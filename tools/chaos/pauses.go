package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// pauses gives, for each kind of fault, the longest time without an acknowledgement, over all clients, that began before the end
// of such a fault and ended after its beginning. Where faults overlap, the pause counts for both.
func pauses(t *testimony, hurt []inflicted) (lines []string) {
	var acks []int64
	for _, facts := range t.clients {
		for _, x := range facts {
			if x.Kind == factAck {
				acks = append(acks, x.At)
			}
		}
	}
	slices.Sort(acks)
	byName := map[string][]time.Duration{}
	for _, h := range hurt {
		byName[h.name] = append(byName[h.name], longest(acks, h))
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all := byName[name]
		slices.SortFunc(all, cmp.Compare)
		lines = append(lines, fmt.Sprintf("%-12s %3d times, longest time without an acknowledgement: median %v, most %v", name, len(all),
			all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond)))
	}
	return lines
}

// longest is the longest gap between acknowledgements, sorted, that has a moment in common with the fault.
func longest(acks []int64, h inflicted) (gap time.Duration) {
	first, _ := slices.BinarySearch(acks, h.from)
	for i := max(first, 1); i < len(acks) && acks[i-1] < h.to; i++ {
		gap = max(gap, time.Duration(acks[i]-acks[i-1]))
	}
	return gap
}
