package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
)

// demoResult is what the demo found.
type demoResult struct {
	Source           string
	Provider, Device string
	Reason           string
	Entries          int
	Bytes            int64
	Written, Read    string // SHA-256, hexadecimal
	Appends          bench.Latencies
	Units            []demoUnit
	PeakRSS          int64 // bytes

	loading, reading time.Duration
}

type demoUnit struct {
	Unit  layout.UnitID `json:"unit"`
	Chain int           `json:"chain"`
	Role  string        `json:"role"` // "head" or "tail"; "middle" in longer chains
	Dir   string        `json:"dir"`
}

// describe adds what the cluster knows.
func (r *demoResult) describe(c *devcluster.Cluster, reason string) {
	dev, _ := c.Device()
	r.Provider, r.Device, r.Reason = dev.Info().Provider, dev.Info().Name, reason
	for i, chain := range c.Chains() {
		for k, id := range chain.Units {
			role := "middle"
			switch k {
			case 0:
				role = "head"
			case len(chain.Units) - 1:
				role = "tail"
			}
			r.Units = append(r.Units, demoUnit{id, i, role, c.UnitDir(id)})
		}
	}
	r.PeakRSS = peakRSS()
}

// peakRSS is the most memory that this process ever held, in bytes; 0 if the kernel does not say (proc(5), VmHWM).
func peakRSS() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}

func perSecond(n float64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return n / d.Seconds()
}

// demoJSON is the result as scripts read it.
type demoJSON struct {
	Source        string     `json:"source"`
	Provider      string     `json:"provider"`
	Device        string     `json:"device"`
	Reason        string     `json:"reason"`
	Entries       int        `json:"entries"`
	Bytes         int64      `json:"bytes"`
	SHA256Written string     `json:"sha256_written"`
	SHA256Read    string     `json:"sha256_read"`
	Same          bool       `json:"same"`
	AppendsPerSec float64    `json:"appends_per_s"`
	ReadsPerSec   float64    `json:"reads_per_s"`
	AppendP50     float64    `json:"append_p50_us"`
	AppendP99     float64    `json:"append_p99_us"`
	AppendP999    float64    `json:"append_p999_us"`
	Units         []demoUnit `json:"units"`
	PeakRSS       int64      `json:"peak_rss_bytes"`
}

func (a *app) printDemo(r *demoResult) error {
	s := r.Appends.Sample()
	appends, reads := perSecond(float64(r.Entries), r.loading), perSecond(float64(r.Entries), r.reading)
	if a.json() {
		return a.printJSON(demoJSON{
			r.Source, r.Provider, r.Device, r.Reason, r.Entries, r.Bytes, r.Written, r.Read, r.Written == r.Read,
			appends, reads, micros(s.P50), micros(s.P99), micros(s.P999), r.Units, r.PeakRSS,
		})
	}
	verdict := "the same"
	if r.Written != r.Read {
		verdict = "DIFFERENT"
	}
	rows := [][]string{
		{"entries", fmt.Sprint(r.Entries)},
		{"bytes", fmt.Sprintf("%d (%.1f MiB)", r.Bytes, float64(r.Bytes)/(1<<20))},
		{"appends/s", fmt.Sprintf("%.0f (%.1f MiB/s), %d in flight", appends, perSecond(float64(r.Bytes)/(1<<20), r.loading), demoOutstanding)},
		{"reads/s", fmt.Sprintf("%.0f (%.1f MiB/s)", reads, perSecond(float64(r.Bytes)/(1<<20), r.reading))},
		{"append latency", fmt.Sprintf("p50 %s, p99 %s, p99.9 %s", short(s.P50), short(s.P99), short(s.P999))},
		{"carried by", fmt.Sprintf("%s, device %s", r.Provider, r.Device)},
		{"SHA-256 written", r.Written},
		{"SHA-256 read", r.Read + ", " + verdict},
		{"peak memory", fmt.Sprintf("%d MiB", r.PeakRSS>>20)},
	}
	for _, u := range r.Units {
		rows = append(rows, []string{fmt.Sprintf("chain %d %s", u.Chain, u.Role), fmt.Sprintf("unit %d, %s", u.Unit, u.Dir)})
	}
	a.say("\n")
	return a.printTable(rows)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// short prints a latency with three digits.
func short(d time.Duration) string {
	us := micros(d)
	switch {
	case us < 100:
		return fmt.Sprintf("%.1f µs", us)
	case us < 10_000:
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}
