package watch

import (
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// mayBeEmpty tells of queries that have nothing to say on a machine without the hardware, or without a limit.
func mayBeEmpty(p Panel, q Query) bool {
	return p.Verbs && *provider != "verbs" || p.NIC || p.NVMe || strings.Contains(q.Expr, "< Inf")
}

// Every panel of every dashboard shows something of a cluster that lives, and was through a failure: the queries run in a real
// Prometheus that scrapes real processes. The pictures in build/watch are drawn from the same answers.
func TestEveryPanelShowsALiveCluster(t *testing.T) {
	if !*live {
		t.Skip("needs -live: make test-watch")
	}
	t.Parallel()
	c := startCluster(t)
	l := startLoad(t, c)
	p := startPrometheus(t, c, l)
	p.ready(2 + len(c.seqs) + len(c.units))
	began := time.Now()
	p.until("appends", `sum(corfu_client_operations_total{operation="append",result="ok"})`, func(v float64) bool { return v > 600 })
	p.until("entries on flash alone", `min(corfu_unit_window_base{unit=~"[1-4]"})`, func(v float64) bool { return v > 20 })
	p.until("nobody is missed", `max(corfu_layout_members_failed) + 1 - max(corfu_layout_spares_ready)`, func(v float64) bool { return v == 0 })
	epoch, _ := p.now(`max(corfu_layout_epoch)`)

	c.units[1].kill()
	p.until("the cluster goes on", `max(corfu_layout_epoch)`, func(v float64) bool { return v > epoch })
	p.until("it is whole again", `sum(corfu_layout_chain_replicas_wanted - corfu_layout_chain_replicas) + max(corfu_layout_rebuild_remaining_pages)`, func(v float64) bool { return v == 0 })
	copied, _ := p.now(`max(corfu_layout_rebuild_copied_bytes_total)`)
	if copied == 0 {
		t.Error("nothing was copied")
	}
	time.Sleep(rateOver() + 2*scrapeEvery()) // what a rate looks over, afterwards
	p.rulesAreSound()
	l.end(t)
	end := time.Now()

	for _, d := range Dashboards() {
		results := map[string][][]series{}
		for _, r := range d.Rows {
			for _, panel := range r.Panels {
				for _, q := range panel.Queries {
					list := p.over(q.Expr, began, end)
					if len(list) == 0 && !mayBeEmpty(panel, q) {
						t.Errorf("%s, %q: nothing for %s", d.Title, panel.Title, substituted(q.Expr))
					}
					results[panel.Title] = append(results[panel.Title], list)
				}
			}
		}
		draw(t, d, results, began, end)
	}
	p.tellsTheStory(began, end)
	c.followsOneOperation()
}

// followsOneOperation looks for the id of the last reconfiguration in the logs of all who took part.
func (c *cluster) followsOneOperation() {
	c.t.Helper()
	read := func(p *process) string {
		b, err := os.ReadFile(p.log)
		if err != nil {
			c.t.Fatal(err)
		}
		return string(b)
	}
	all := regexp.MustCompile(`msg="epoch is active".* op=(\w+) epoch=(\d+)`).FindAllStringSubmatch(read(c.layout), -1)
	if len(all) < 2 {
		c.t.Fatalf("%d reconfigurations in the log of the layout server", len(all))
	}
	op, epoch := all[len(all)-1][1], all[len(all)-1][2]
	for i, p := range append([]*process{c.seqs[0]}, c.units...) {
		calls := []string{"Reconcile", "Activate"} // seals travel over the fabric, in messages that have no room for an id
		switch i {
		case 0: // the sequencer
			calls = []string{"Activate"}
		case 2: // the unit that was killed
			continue
		}
		for _, call := range calls {
			said := regexp.MustCompile(`msg="control call".* method=\S+/` + call + ` .*code=OK op=` + op + `(\s|$)`)
			if !said.MatchString(read(p)) {
				c.t.Errorf("%s: nothing of %s in epoch %s, op %s", p.log, call, epoch, op)
			}
		}
	}
}

// tellsTheStory looks at numbers whose course is known: a unit was killed, and a spare took its place.
func (p *prom) tellsTheStory(from, to time.Time) {
	p.t.Helper()
	extremes := func(expr string) (lowest, highest, last float64) {
		lowest, highest = math.Inf(1), math.Inf(-1)
		for _, s := range p.over(expr, from, to) {
			for _, x := range s.points {
				lowest, highest, last = min(lowest, x.v), max(highest, x.v), x.v
			}
		}
		return lowest, highest, last
	}
	for _, x := range []struct {
		what, expr            string
		lowest, highest, last float64
	}{
		{"unit 2 was up, and is not", `max(corfu_layout_member_up{member="unit 2"})`, 0, 1, 0},
		{"the spare is no spare any more", `max(corfu_layout_spares_ready)`, 0, 1, 0},
		{"the spare serves", `max(corfu_unit_state{unit="5"})`, 0, 2, 2},
		{"one member failed", `max(corfu_layout_members_failed)`, 0, 1, 1},
		{"no safety rule was broken", `sum(corfu_layout_alarms_total) + sum(corfu_unit_tampering_total) + sum(corfu_client_invariant_violations_total)`, 0, 0, 0},
		{"no append failed", `sum(corfu_client_operations_total{operation="append",result=~"error|unknown"})`, 0, 0, 0},
		{"one target is gone", `count(max_over_time(up[$__rate_interval]) == 0) or vector(0)`, 0, 1, 1}, // a scrape that came too late is none
	} {
		lowest, highest, last := extremes(x.expr)
		if lowest != x.lowest || highest != x.highest || last != x.last {
			p.t.Errorf("%s: %s goes from %v to %v and ends at %v, want %v, %v and %v", x.what, x.expr, lowest, highest, last, x.lowest, x.highest, x.last)
		}
	}
	if *provider == "verbs" { // seven processes read the counters of one device
		one := `max(rate(corfu_rdma_port_counter_total{counter="sent_pkts"}[$__rate_interval]))`
		if lowest, most, _ := extremes(counters("sent_pkts")[0].Expr + ` / ignoring(host, counter, device, port) ` + one); lowest < 0.99 || most > 1.01 {
			p.t.Errorf("the panel of packets shows %v to %v times what the device counted", lowest, most)
		}
	}
	if _, most, _ := extremes(`histogram_quantile(0.5, sum by (le) (rate(corfu_client_operation_seconds_bucket{operation="append"}[$__rate_interval])))`); most <= 0 || most > 8 {
		p.t.Errorf("the median append took %v s", most)
	}
	if _, most, _ := extremes(`sum by (unit) (rate(corfu_unit_helm_busy_seconds_total[$__rate_interval]))`); most <= 0 || most > 1.05 {
		p.t.Errorf("a core was busy %v of the time", most)
	}
	if lowest, _, _ := extremes(`sum by (unit) (corfu_unit_flash_written_bytes_total) / (sum by (unit) (corfu_unit_flash_page_bytes_total) > 0)`); lowest < 1 {
		p.t.Errorf("write amplification %v: less was written than was to be", lowest)
	}
}
