package server

import "github.com/prometheus/client_golang/prometheus"

// repairMetrics are those of copies that do not verify, and of the search for them.
type repairMetrics struct {
	damaged, repaired, repairErrors                   prometheus.Counter
	scrubPages, scrubBytes, scrubCorrupt, scrubPasses prometheus.Counter
	corruptNow                                        prometheus.Gauge
}

func (m *metrics) repairs(s *Server) {
	c := func(name, help string) prometheus.Counter { return m.Counter(name+"_total", help) }
	m.damaged = c("damaged", "Durable pages that were found not to verify, gone, or unreadable.")
	m.repaired = c("repairs", "CORRUPT copies written anew from another replica.")
	m.repairErrors = c("repair_errors", "Repairs that flash did not take; they are tried again.")
	m.scrubPages = c("scrub_pages", "Pages verified by scrubs.")
	m.scrubBytes = c("scrub_read_bytes", "Bytes read by scrubs.")
	m.scrubCorrupt = c("scrub_corrupt_pages", "Pages that scrubs found CORRUPT.")
	m.scrubPasses = c("scrub_passes", "Scrubs that came to their end.")
	m.corruptNow = m.Gauge("corrupt_pages", "Addresses whose copy here is known to be CORRUPT and not repaired.")
	g := func(name, help string, fn func(p pass) float64) {
		m.GaugeFunc("scrub_"+name, help, func() float64 { return fn(s.passed()) })
	}
	g("running", "1 while a scrub is in progress.", func(p pass) float64 {
		if p.running {
			return 1
		}
		return 0
	})
	g("progress_ratio", "How far the scrub in progress is, or the last one came; 0 before the first.", func(p pass) float64 {
		switch {
		case p.number == 0 || p.asked:
			return 0
		case p.end <= p.first:
			return 1
		}
		return float64(min(p.next, p.end)-p.first) / float64(p.end-p.first)
	})
	g("ended_timestamp_seconds", "When the last whole scrub ended, as Unix time; 0: there was none.", func(pass) float64 {
		return float64(s.store.Meta().Scrub.Ended)
	})
}
