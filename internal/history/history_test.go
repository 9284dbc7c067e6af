package history

import (
	"errors"
	"strings"
	"testing"
)

// Each history says what is wrong with it, "" for nothing.
func TestCheck(t *testing.T) {
	app := func(payload string, called, returned int64) Op {
		return Op{Kind: Append, Position: 5, Payload: payload, Called: called, Returned: returned}
	}
	read := func(out string, called, returned int64) Op {
		return Op{Client: 1, Kind: Read, Position: 5, Out: out, Called: called, Returned: returned}
	}
	maybe := Op{Kind: Maybe, Position: 5, Payload: "x", Called: 1, Returned: Never}
	other := read("x", 3, 4)
	other.Position = 6
	for name, c := range map[string]struct {
		h    History
		want string
	}{
		"read after append":               {History{Ops: []Op{app("x", 1, 2), read("x", 3, 4)}}, ""},
		"unwritten beside the append":     {History{Ops: []Op{app("x", 1, 4), read(Unwritten, 2, 3)}}, ""},
		"unwritten after the append":      {History{Ops: []Op{app("x", 1, 2), read(Unwritten, 3, 4)}}, "position 5 is not linearizable"},
		"junk after the append":           {History{Ops: []Op{app("x", 1, 2), read(Junk, 3, 4)}}, "position 5 is not linearizable"},
		"junk, then a value":              {History{Ops: []Op{maybe, read(Junk, 3, 4), read("x", 5, 6)}}, "position 5 is not linearizable"},
		"a value, then junk":              {History{Ops: []Op{maybe, read("x", 3, 4), read(Junk, 5, 6)}}, "position 5 is not linearizable"},
		"unknown, and there":              {History{Ops: []Op{maybe, read(Unwritten, 2, 3), read("x", 3, 4)}}, ""},
		"unknown, and not there":          {History{Ops: []Op{maybe, read(Junk, 3, 4)}}, ""},
		"a position given out twice":      {History{Ops: []Op{app("x", 1, 2), app("y", 3, 4)}}, "position 5 is not linearizable"},
		"read elsewhere":                  {History{Ops: []Op{app("x", 1, 2), other}}, `payload "x" read at 6, appended at 5`},
		"read though nobody wrote it":     {History{Ops: []Op{read("x", 1, 2)}}, "known: false"},
		"read though it failed":           {History{Ops: []Op{maybe, read("x", 3, 4)}, Lost: map[string]error{"x": errors.New("no")}}, "failed for certain: no"},
		"trimmed, then a value":           {History{Ops: []Op{app("x", 1, 2), {Kind: Trim, Position: 5, Called: 3, Returned: 4}, read("x", 5, 6)}}, "not linearizable"},
		"a tail above":                    {History{Ops: []Op{app("x", 1, 2)}, Tails: []Tail{{3, 6}}}, ""},
		"a tail below":                    {History{Ops: []Op{app("x", 1, 2)}, Tails: []Tail{{3, 5}}}, "tail 5, although position 5 was known before"},
		"a tail below, asked for earlier": {History{Ops: []Op{app("x", 1, 4)}, Tails: []Tail{{3, 5}}}, ""},
		"a prefix trimmed, then a value":  {History{Ops: []Op{app("x", 1, 2), read("x", 5, 6)}, Prefixes: []Prefix{{Below: 6, Called: 3, Returned: 4}}}, "position 5 is not linearizable"},
		"a value above a trimmed prefix":  {History{Ops: []Op{app("x", 1, 2), read("x", 5, 6)}, Prefixes: []Prefix{{Below: 5, Called: 3, Returned: 4}}}, ""},
		"trimmed though nobody did":       {History{Ops: []Op{app("x", 1, 2), read(Trimmed, 5, 6)}, Prefixes: []Prefix{{Below: 5, Called: 3, Returned: 4}}}, "position 5 is not linearizable"},
		"half trimmed":                    {History{Ops: []Op{app("x", 1, 2), read("x", 5, 6), read(Trimmed, 7, 8)}, Prefixes: []Prefix{{Below: 6, Called: 3, Returned: Never}}}, ""},
		"half trimmed, and a value again": {History{Ops: []Op{app("x", 1, 2), read(Trimmed, 5, 6), read("x", 7, 8)}, Prefixes: []Prefix{{Below: 6, Called: 3, Returned: Never}}}, "position 5 is not linearizable"},
		"trimmed twice": {History{Ops: []Op{app("x", 1, 2), read(Trimmed, 5, 6)},
			Prefixes: []Prefix{{Below: 6, Called: 3, Returned: 4}, {Below: 9, Called: 7, Returned: 8}}}, ""},
		"trimmed before the first of two": {History{Ops: []Op{app("x", 1, 2), read(Trimmed, 2, 3)},
			Prefixes: []Prefix{{Below: 6, Called: 4, Returned: 5}, {Below: 9, Called: 7, Returned: 8}}}, "position 5 is not linearizable"},
		"the rest of a trimmed entry": {History{Ops: []Op{app(Inside(4), 1, 2), read(Trimmed, 5, 6)},
			Prefixes: []Prefix{{Below: 5, Called: 3, Returned: 4}}, Largest: 2}, ""},
		"an entry is no rest": {History{Ops: []Op{app("x", 1, 2), read(Trimmed, 5, 6)},
			Prefixes: []Prefix{{Below: 5, Called: 3, Returned: 4}}, Largest: 2}, "position 5 is not linearizable"},
		"too far for a rest": {History{Ops: []Op{app(Inside(3), 1, 2), read(Trimmed, 5, 6)},
			Prefixes: []Prefix{{Below: 4, Called: 3, Returned: 4}}, Largest: 2}, "position 5 is not linearizable"},
		"inside of another entry": {History{Ops: []Op{app(Inside(4), 1, 2), read(Inside(4), 3, 4)}}, ""},
	} {
		err := c.h.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
