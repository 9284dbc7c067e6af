package main

import (
	"errors"
	"fmt"
	"strings"

	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
)

// report is what the benchmark found, as scripts read it. Latencies are microseconds.
type report struct {
	Provider   string           `json:"provider"`
	Device     string           `json:"device"`
	Reason     string           `json:"reason"`
	Payload    int              `json:"payload_bytes"`
	Spin       string           `json:"spin"`
	Latency    []latencyJSON    `json:"latency"`
	Throughput []throughputJSON `json:"throughput"`
	Records    []recordsJSON    `json:"records,omitempty"`
	Ratios     []ratioJSON      `json:"ratios"`
	Rates      []rateJSON       `json:"rates,omitempty"`
	Pauses     []pauseJSON      `json:"pauses,omitempty"`
	Rebuild    *rebuildCostJSON `json:"rebuild,omitempty"`

	rows    []bench.Row
	missing []string // perftest tools that are not installed
}

type latencyJSON struct {
	Name    string  `json:"name"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	Lowest  float64 `json:"p50_lowest_us"`  // of all rounds
	Highest float64 `json:"p50_highest_us"` // of all rounds
	Rounds  int     `json:"rounds"`
}

type throughputJSON struct {
	Durability string  `json:"durability"`
	Appenders  int     `json:"appenders"`
	Appends    float64 `json:"appends_per_s"`
	MB         float64 `json:"mb_per_s"`
}

type ratioJSON struct {
	Name    string  `json:"name"`
	Ratio   float64 `json:"ratio"`   // median of the rounds
	Lowest  float64 `json:"lowest"`  // of all rounds
	Highest float64 `json:"highest"` // of all rounds
	Bar     float64 `json:"bar"`
	Met     bool    `json:"met"`
}

func (r *report) empty() bool { return len(r.rows)+len(r.Rates)+len(r.Pauses) == 0 && r.Rebuild == nil }

// judge turns rows into figures and ratios.
func (r *report) judge() {
	byName := map[string]bench.Row{}
	for _, row := range r.rows {
		byName[row.Name] = row
		low, high := row.Spread()
		r.Latency = append(r.Latency, latencyJSON{row.Name, micros(row.P50()), micros(row.P99()), micros(low), micros(high), len(row.Rounds)})
	}
	r.ratio("Append (memory) / bare path", byName[appendName(layout.Memory)], byName[bench.BarePathName], barAppend)
	r.ratio("FETCH_ADD / perftest ib_atomic_lat", byName["FETCH_ADD"], byName["perftest ib_atomic_lat"], barPerftest)
}

// ratio is left out if one of the two did not run.
func (r *report) ratio(name string, a, b bench.Row, bar float64) {
	if v := bench.Ratios(a, b); len(v) > 0 {
		middle := bench.Median(v)
		r.Ratios = append(r.Ratios, ratioJSON{name, middle, v[0], v[len(v)-1], bar, middle <= bar})
	}
}

// verdict is an error that names every bar that was not met.
func (r *report) verdict() error {
	var errs []error
	for _, x := range r.Ratios {
		if !x.Met {
			errs = append(errs, fmt.Errorf("%s is %.2f, above the bar of %.1f", x.Name, x.Ratio, x.Bar))
		}
	}
	for _, p := range r.Pauses {
		if !p.Met {
			errs = append(errs, fmt.Errorf("%s: %.1f ms, above the bar of %.0f ms", p.Name, p.Median, p.Bar))
		}
	}
	return errors.Join(errs...)
}

func (a *app) printReport(r *report) error {
	if a.json() {
		return a.printJSON(r)
	}
	if err := a.printLatency(r); err != nil {
		return err
	}
	if len(r.Ratios) > 0 {
		rows := [][]string{{"RATIO OF P50S", "MEDIAN", "OF THE ROUNDS", "BAR", ""}}
		for _, x := range r.Ratios {
			met := "met"
			if !x.Met {
				met = "NOT MET"
			}
			rows = append(rows, []string{x.Name, fmt.Sprintf("%.2f", x.Ratio), fmt.Sprintf("%.2f to %.2f", x.Lowest, x.Highest), fmt.Sprintf("%.1f", x.Bar), met})
		}
		a.say("\n")
		if err := a.printTable(rows); err != nil {
			return err
		}
	}
	if len(r.Throughput) > 0 {
		rows := [][]string{{"THROUGHPUT, 2 REPLICAS", "APPENDERS", "APPENDS/S", "MB/S"}}
		for _, t := range r.Throughput {
			rows = append(rows, []string{t.Durability, fmt.Sprint(t.Appenders), fmt.Sprintf("%.0f", t.Appends), fmt.Sprintf("%.1f", t.MB)})
		}
		a.say("\n")
		if err := a.printTable(rows); err != nil {
			return err
		}
	}
	if err := a.printRecords(r.Records); err != nil {
		return err
	}
	a.printRates(r.Rates)
	if err := a.printPauses(r); err != nil {
		return err
	}
	if len(r.missing) > 0 {
		a.say("\nNot installed, so not measured: %s (package perftest).\n", strings.Join(r.missing, ", "))
	}
	return nil
}

func (a *app) printLatency(r *report) error {
	if len(r.Latency) == 0 {
		return nil
	}
	rows := [][]string{{"ONE OUTSTANDING", "P50", "P99", "P50 OF THE ROUNDS"}}
	for _, l := range r.Latency {
		rows = append(rows, []string{
			l.Name, fmt.Sprintf("%.1f µs", l.P50), fmt.Sprintf("%.1f µs", l.P99), fmt.Sprintf("%.1f to %.1f µs", l.Lowest, l.Highest),
		})
	}
	a.say("\n")
	return a.printTable(rows)
}
