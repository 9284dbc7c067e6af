package client

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a Log. Logs that share a registerer share the counters; the gauges show the last one's.
type metrics struct {
	all []prometheus.Collector // what Collector shows

	calls operations

	tokens                     prometheus.Counter
	casLost, aside             prometheus.Counter
	fragments                  prometheus.Counter
	torn                       prometheus.Counter
	retries                    prometheus.Counter
	fills                      prometheus.Counter
	helped                     prometheus.Counter
	reads                      prometheus.Counter
	runs, coldReads            prometheus.Counter
	holes                      prometheus.Counter
	resolvedMine               prometheus.Counter
	resolvedLost               prometheus.Counter
	windowWaits                prometheus.Counter
	ackMissed                  prometheus.Counter
	connErrors                 prometheus.Counter
	invariant                  prometheus.Counter
	corrupt                    prometheus.Counter
	news                       prometheus.Counter
	progress                   prometheus.Counter
	credits                    prometheus.Gauge
	epoch                      prometheus.Gauge
	inFlight, sessions, memory prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{}
	counter := func(name, help string) prometheus.Counter {
		return register(m, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_client_" + name, Help: help}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return register(m, r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "corfu_client_" + name, Help: help}))
	}
	calls := newOperations(
		register(m, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_client_operations_total",
			Help: "Calls ended, by operation and result: ok, empty (no value begins at the position), unknown (an append that may have happened), error."},
			[]string{"operation", "result"})),
		register(m, r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "corfu_client_operation_seconds",
			Help: "Time of calls that were answered, results ok and empty.", Buckets: operationBuckets}, []string{"operation"})))
	resolved := register(m, r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "corfu_client_resolved_total", Help: "Appends of unknown outcome that were looked up (rule R9), by answer: mine, lost."}, []string{"answer"}))
	made := metrics{
		calls:        calls,
		tokens:       counter("tokens_total", "Positions taken from the sequencer."),
		aside:        counter("aside_reads_total", "Reads served by another replica than the tail, since the fabric does not carry to the tail."),
		casLost:      counter("cas_losses_total", "Positions lost to somebody else's entry or junk."),
		fragments:    counter("fragments_total", "Pages of entries larger than a page that this client published."),
		torn:         counter("torn_total", "Attempts to append more than a page that lost one of their positions and were junk as a whole."),
		retries:      counter("retries_total", "Operations started again after a refusal, an error or a time-out."),
		fills:        counter("fills_total", "Holes filled with junk."),
		helped:       counter("helped_total", "Entries that somebody else published at the head and this client placed further down the chain."),
		reads:        counter("reads_total", "Pages looked at."),
		runs:         counter("read_runs_total", "Lists that read several positions of a range at once, of the window or by message."),
		coldReads:    counter("cold_reads_total", "Pages that units brought from flash, because the window had passed them."),
		holes:        counter("holes_total", "Holes waited for by readers."),
		resolvedMine: resolved.WithLabelValues("mine"), resolvedLost: resolved.WithLabelValues("lost"),
		windowWaits: counter("window_waits_total", "Times an entry had to wait for a unit's window."),
		ackMissed:   counter("ack_timeouts_total", "Appends whose acknowledgement did not come in time and that looked at the words instead."),
		connErrors:  counter("connection_errors_total", "Sessions with units and sequencers that broke or could not be opened."),
		invariant:   counter("invariant_violations_total", "Entries found where the protocol makes them impossible. Anything but 0 is an alarm."),
		corrupt:     counter("corrupt_total", "Corrupt copies met."),
		news:        counter("layouts_from_units_total", "Newer layouts learned from a unit, over the fabric, because the layout servers were out of reach."),
		progress:    counter("progress_messages_total", "Messages of units that say how far they are, to those that follow the log."),
		credits:     gauge("staging_slots_free", "Free staging slots over all sessions."),
		epoch:       gauge("epoch", "Epoch of the layout in use."),
		inFlight:    gauge("appends_in_flight", "Appends of up to a page that are under way, of Options.MaxOutstanding."),
		sessions:    gauge("sessions", "Sessions that stand, with units and the sequencer."),
		memory:      gauge("registered_memory_bytes", "Memory that the fabric reads and writes, as last looked at."),
	}
	made.all = m.all
	return &made
}

// register registers c with r, or gives what is registered under its name already. m shows it from then on.
func register[C prometheus.Collector](m *metrics, r prometheus.Registerer, c C) C {
	if r != nil {
		var dup prometheus.AlreadyRegisteredError
		if err := r.Register(c); errors.As(err, &dup) {
			if old, ok := dup.ExistingCollector.(C); ok {
				c = old
			}
		}
	}
	m.all = append(m.all, c)
	return c
}

// Collector shows the log's metrics (docs/metrics.md lists them) to a registry of the caller's, in place of Options.Registerer:
//
//	registry.MustRegister(log.Collector())
//
// Logs that share Options.Registerer share their counters; without it each has its own, and one of them fits into a registry, or
// several with labels of their own (prometheus.WrapRegistererWith).
func (l *Log) Collector() prometheus.Collector { return l.m }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}
