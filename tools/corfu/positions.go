package main

import (
	"strconv"
	"strings"

	"corfu/client"
	"corfu/layout"
)

// name is what append prints, and read takes: a position, or a record of the batch there.
type name struct {
	position layout.Position
	index    int // of the record; -1: the entry is meant
}

func (n name) String() string {
	if n.index < 0 {
		return strconv.FormatUint(uint64(n.position), 10)
	}
	return client.RecordID{Position: n.position, Index: n.index}.String()
}

// before tells whether n stands before m in the log.
func (n name) before(m name) bool {
	return n.position < m.position || n.position == m.position && n.index < m.index
}

// parseNames reads all of them before anything is done with the first.
func parseNames(args []string) ([]name, error) {
	names := make([]name, len(args))
	for i, s := range args {
		at, index, record := strings.Cut(s, "/")
		p, err := parsePosition(at)
		if err != nil {
			return nil, err
		}
		names[i] = name{p, -1}
		if record {
			n, err := strconv.ParseUint(index, 10, 31)
			if err != nil {
				return nil, usagef("record %q: must be POSITION/INDEX, two whole numbers from 0 on", s)
			}
			names[i].index = int(n)
		}
	}
	return names, nil
}

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
