// Table prints the tables and ratios of docs/performance.md from the results of run.sh: medians of
// the repetitions, each ratio of systems that ran interleaved.
//
//	table results.json
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
)

type result struct {
	Sys      string  `json:"sys"`
	Repl     int     `json:"repl"`
	Mode     string  `json:"mode"`
	Size     int     `json:"size"`
	Measure  string  `json:"measure"`
	OpsPerS  float64 `json:"ops_per_s"`
	MBPerS   float64 `json:"mb_per_s"`
	P50us    float64 `json:"p50_us"`
	AckP50us float64 `json:"ack_p50_us"`
	Foreign  float64 `json:"foreign_cpu"`
	SrvCPU   float64 `json:"srv_cpu_us_op"`
	CliCPU   float64 `json:"cli_cpu_us_op"`
	Err      string  `json:"err"`
}

type system struct {
	name string
	repl int
}

func (s system) String() string { return fmt.Sprintf("%s r%d", s.name, s.repl) }

// inProcess reports whether replicas and reader are goroutines of the load generator: no socket
// stands between them.
func (s system) inProcess() bool {
	return len(s.name) > 5 && (s.name[:5] == "hraft" || s.name[:6] == "dragon")
}

type cell struct {
	mode    string
	size    int
	sys     system
	measure string
}

type results map[cell][]result

// median of a field over the repetitions; NaN if there is none.
func (rs results) median(c cell, field func(result) float64) float64 {
	var v []float64
	for _, r := range rs[c] {
		v = append(v, field(r))
	}
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func ops(r result) float64    { return r.OpsPerS }
func mb(r result) float64     { return r.MBPerS }
func p50(r result) float64    { return r.P50us }
func ackP50(r result) float64 { return r.AckP50us }
func cpu(r result) float64    { return r.SrvCPU + r.CliCPU }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: table results.json")
		os.Exit(2)
	}
	rs, reps, foreign, err := load(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
	fmt.Printf("Medians of up to %d repetitions; others used up to %.0f %% of the machine beside them.\n", reps, 100*foreign)
	for _, mode := range []string{"flash", "memory"} {
		for _, size := range []int{4000, 256, 32768} {
			rs.table(mode, size)
		}
	}
	rs.ratios()
}

func load(name string) (rs results, reps int, foreign float64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, 0, err
	}
	defer func() { _ = f.Close() }()
	rs = results{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, 0, 0, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if r.Err != "" {
			fmt.Printf("%s r%d %s %d %s failed: %s\n", r.Sys, r.Repl, r.Mode, r.Size, r.Measure, r.Err)
			continue
		}
		c := cell{r.Mode, r.Size, system{r.Sys, r.Repl}, r.Measure}
		rs[c] = append(rs[c], r)
		reps, foreign = max(reps, len(rs[c])), max(foreign, r.Foreign)
	}
	return rs, reps, foreign, lines.Err()
}

// systems are those that ran in a mode and size, corfu first.
func (rs results) systems(mode string, size int) (list []system) {
	for c := range rs {
		if c.mode == mode && c.size == size && !slices.Contains(list, c.sys) {
			list = append(list, c.sys)
		}
	}
	slices.SortFunc(list, func(a, b system) int {
		if x := cmp.Compare(first(a), first(b)); x != 0 {
			return x
		}
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.repl, b.repl))
	})
	return list
}

func first(s system) int {
	if s.name == "corfu" {
		return 0
	}
	return 1
}

func (rs results) table(mode string, size int) {
	list := rs.systems(mode, size)
	if len(list) == 0 {
		return
	}
	fmt.Printf("\n| %d-byte entries, %s | 1 outstanding p50 µs | 16 clients /s | 512 outstanding /s | CPU µs per entry, servers + client | catch-up read /s | CPU µs per entry read | append → seen, p50 µs |\n", size, mode)
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, s := range list {
		at := func(measure string, field func(result) float64) string {
			return number(rs.median(cell{mode, size, s, measure}, field))
		}
		fmt.Printf("| %v | %s | %s | %s | %s + %s | %s | %s | %s |\n", s, at("lat1", p50), at("w16", ops), at("pipe", ops),
			at("pipe", func(r result) float64 { return r.SrvCPU }), at("pipe", func(r result) float64 { return r.CliCPU }),
			at("read", ops), at("read", cpu), at("e2e", p50))
	}
}

func number(v float64) string {
	if math.IsNaN(v) || v == 0 {
		return "–"
	}
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// best is the best peer's median among those that are replicated; sockets: only those that are
// read over a socket.
func (rs results) best(size int, measure string, field func(result) float64, sockets bool) (best float64, who string) {
	for _, s := range rs.systems("flash", size) {
		v := rs.median(cell{"flash", size, s, measure}, field)
		if s.name != "corfu" && s.repl > 1 && !(sockets && s.inProcess()) && v > best {
			best, who = v, s.String()
		}
	}
	return best, who
}

// ratios prints what docs/performance.md has bars for.
func (rs results) ratios() {
	corfu := system{"corfu", 2}
	own := func(size int, measure string, field func(result) float64) float64 {
		return rs.median(cell{"flash", size, corfu, measure}, field)
	}
	fmt.Println("\n| flash, corfu r2 | measured | bar |\n|---|---|---|")
	row := func(what string, v float64, bar string) {
		text := "–"
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			text = fmt.Sprintf("%.2f", v)
		}
		fmt.Printf("| %s | %s | %s |\n", what, text, bar)
	}
	to := func(what string, size int, measure string, field func(result) float64, sockets bool, bar string) {
		best, who := rs.best(size, measure, field, sockets)
		if who == "" {
			who = "best peer"
		}
		row(fmt.Sprintf("%s / %s", what, who), own(size, measure, field)/best, bar)
	}
	row("4000 bytes, 1 outstanding p50 / redis r2", own(4000, "lat1", p50)/rs.median(cell{"flash", 4000, system{"redis", 2}, "lat1"}, p50), "≤ 0.7")
	to("4000 bytes, 16 clients", 4000, "w16", ops, false, "≥ 1.5")
	to("4000 bytes, 512 outstanding", 4000, "pipe", ops, false, "≥ 2")
	row("4000 bytes, CPU µs per entry, 512 outstanding", own(4000, "pipe", cpu), "≤ 25")
	to("4000 bytes, catch-up read", 4000, "read", ops, true, "≥ 1.2")
	row("4000 bytes, CPU µs per entry read", own(4000, "read", cpu), "≤ 6")
	row("4000 bytes, append → seen p50 / acknowledgement p50", own(4000, "e2e", p50)/own(4000, "e2e", ackP50), "≤ 1.15")
	to("256-byte records by Producer, 512 outstanding", 256, "pipe", ops, false, "≥ 2")
	to("256-byte records, catch-up read", 256, "read", ops, true, "≥ 1.5")
	to("32 KiB, appended MB/s", 32768, "pipe", mb, false, "≥ 1.5")
	to("32 KiB, read MB/s", 32768, "read", mb, true, "≥ 1.2")
}
