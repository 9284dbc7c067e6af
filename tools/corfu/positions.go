package main

import (
	"strconv"

	"corfu/layout"
)

// parsePosition reads a position of the log.
func parsePosition(s string) (layout.Position, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usagef("position %q: must be a whole number from 0 on", s)
	}
	p := layout.Position(v)
	if p >= layout.MaxPosition {
		return 0, usagef("position %s: must be below %d", s, uint64(layout.MaxPosition))
	}
	return p, nil
}

// parsePositions reads all of them before anything is done with the first.
func parsePositions(args []string) ([]layout.Position, error) {
	ps := make([]layout.Position, len(args))
	for i, s := range args {
		p, err := parsePosition(s)
		if err != nil {
			return nil, err
		}
		ps[i] = p
	}
	return ps, nil
}
