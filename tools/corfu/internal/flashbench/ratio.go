package flashbench

import (
	"slices"
	"strings"
)

// Ratio compares two rows: the median over the rounds of the quotients of figures that were measured side by side, and
// the lowest and highest of these quotients.
type Ratio struct {
	Name  string  `json:"name"`
	Ratio float64 `json:"ratio"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Bar   float64 `json:"bar,omitempty"` // 0: none, the ratio is only shown
	Met   bool    `json:"met"`
}

// quotient is a ratio to be taken: of the engine's row to the better one of fio's of the same kind and depth.
type quotient struct {
	name   string
	kind   string
	depth  int
	bar    float64
	atMost bool // less is better
	of     func(*Row) []float64
}

func rates(r *Row) []float64 { return r.rates }
func p50s(r *Row) []float64  { return r.p50s }

// bars are what the engine is held to.
var bars = []quotient{
	{"p50 of a durable write, depth 1", kindWrite, 1, 1.15, true, p50s},
	{"durable writes a second, depth 16", kindWrite, 16, 0.9, false, rates},
	{"cold random reads a second, depth 16", kindRead, 16, 0.85, false, rates},
}

// judge takes all ratios.
func (rep *Report) judge() {
	for _, q := range bars {
		mine := rep.row(q.kind, q.depth, engineName)
		var best *Row // of fio's ways, the better one: nothing is won by a bad neighbour
		for _, r := range rep.Rows {
			if r.Kind != q.kind || r.Depth != q.depth || !strings.HasPrefix(r.Name, "fio") {
				continue
			}
			if best == nil || (median(q.of(r)) < median(q.of(best))) == q.atMost {
				best = r
			}
		}
		x := divide(q.name+" / "+best.Name, q.of(mine), q.of(best))
		x.Bar, x.Met = q.bar, (x.Ratio <= q.bar) == q.atMost
		rep.Ratios = append(rep.Ratios, x)
	}
	// What a flood of reads does to writes, and what it does to fio's.
	for _, name := range []string{engineName, fioMixed} {
		alone, beside := rep.row(kindWrite, 16, name), rep.row(kindMixedWrite, 16, name)
		rep.Ratios = append(rep.Ratios,
			divide(name+": p99 of a durable write, depth 16, beside 16 readers / alone", beside.p99s, alone.p99s),
			divide(name+": durable writes a second, depth 16, beside 16 readers / alone", beside.rates, alone.rates),
			divide(name+": cold reads a second, 16 readers, beside the writes / alone", rep.row(kindMixedRead, 16, name).rates, rep.row(kindRead, 16, name).rates))
	}
}

// row gives a row; it is there.
func (rep *Report) row(kind string, depth int, name string) *Row {
	i := slices.IndexFunc(rep.Rows, func(r *Row) bool { return r.Kind == kind && r.Depth == depth && r.Name == name })
	return rep.Rows[i]
}

// divide compares figures of the same rounds.
func divide(name string, a, b []float64) Ratio {
	var q []float64
	for i, x := range b {
		if x > 0 {
			q = append(q, a[i]/x)
		}
	}
	r := Ratio{Name: name, Met: true, Ratio: median(q)}
	if len(q) > 0 {
		r.Min, r.Max = slices.Min(q), slices.Max(q)
	}
	return r
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
