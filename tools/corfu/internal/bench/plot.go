package bench

import (
	"fmt"
	"strings"
	"time"
)

// Bucket counts the operations that took longer than the bucket before says, and up to To.
type Bucket struct {
	To    time.Duration
	Count int64
}

// Buckets are the operations by their latency, each bucket twice as wide as the one before it; empty ones at both ends are left out.
func (l Latencies) Buckets() []Bucket {
	var list []Bucket
	to := int64(1)
	for _, b := range l.h.Distribution() {
		for b.To > to {
			to *= 2
			if len(list) > 0 {
				list = append(list, Bucket{To: time.Duration(to) * scale})
			}
		}
		if b.Count == 0 {
			continue
		}
		if len(list) == 0 {
			list = append(list, Bucket{To: time.Duration(to) * scale})
		}
		list[len(list)-1].Count += b.Count
	}
	for len(list) > 0 && list[len(list)-1].Count == 0 {
		list = list[:len(list)-1]
	}
	return list
}

// Count is how many operations were recorded.
func (l Latencies) Count() int64 { return l.h.TotalCount() }

// Max is the longest.
func (l Latencies) Max() time.Duration { return time.Duration(l.h.Max()) * scale }

// Percentiles that tables and plots show.
var Percentiles = []float64{50, 90, 99, 99.9, 99.99, 100}

// PercentileName is "p50", "p99.9", and "max" for the last.
func PercentileName(q float64) string {
	if q == 100 {
		return "max"
	}
	return fmt.Sprintf("p%g", q)
}

// Plot draws the histogram in plain text, at most width columns wide: a line for each bucket, with a bar of its share, and behind it the
// percentiles that lie in it. A bucket with few operations has a dot, so that no tail hides.
func (l Latencies) Plot(width int) string {
	buckets := l.Buckets()
	if len(buckets) == 0 {
		return "nothing was measured\n"
	}
	marks := make([]string, len(buckets))
	for _, q := range Percentiles {
		v, i := l.At(q), 0
		for i < len(buckets)-1 && buckets[i].To < v {
			i++
		}
		if marks[i] != "" {
			marks[i] += ", "
		}
		marks[i] += PercentileName(q) + " " + Round(v)
	}
	most, digits, longest := int64(0), 1, 0
	for i, b := range buckets {
		most, digits, longest = max(most, b.Count), max(digits, len(fmt.Sprint(b.Count))), max(longest, len([]rune(marks[i])))
	}
	bar := max(width-len("up to ")-8-2-digits-2-2-longest, 4)
	var out strings.Builder
	for i, b := range buckets {
		n := int(b.Count * int64(bar) / most)
		full := strings.Repeat("#", n)
		if n == 0 && b.Count > 0 {
			full = "."
		}
		line := fmt.Sprintf("up to %8s  %*d  %-*s  %s", Round(b.To), digits, b.Count, bar, full, marks[i])
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return out.String()
}

// Round gives a time with three digits and its unit.
func Round(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond))
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}
