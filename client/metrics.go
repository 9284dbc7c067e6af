package client

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a Log. Logs that share a registerer share the counters; the gauges show the last one's.
type metrics struct {
	appended, failed, unknown prometheus.Counter // corfu_client_appends_total by result
	appendSeconds             prometheus.Histogram
	tokens                    prometheus.Counter
	casLost                   prometheus.Counter
	fragments                 prometheus.Counter
	torn                      prometheus.Counter
	retries                   prometheus.Counter
	fills                     prometheus.Counter
	helped                    prometheus.Counter
	reads                     prometheus.Counter
	coldReads                 prometheus.Counter
	holes                     prometheus.Counter
	resolvedMine              prometheus.Counter
	resolvedLost              prometheus.Counter
	windowWaits               prometheus.Counter
	ackMissed                 prometheus.Counter
	connErrors                prometheus.Counter
	invariant                 prometheus.Counter
	corrupt                   prometheus.Counter
	news                      prometheus.Counter
	credits                   prometheus.Gauge
	epoch                     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return register(r, prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_client_" + name, Help: help}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return register(r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "corfu_client_" + name, Help: help}))
	}
	appends := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "corfu_client_appends_total", Help: "Appends ended, by result: ok, error, unknown."}, []string{"result"}))
	resolved := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "corfu_client_resolved_total", Help: "Appends of unknown outcome that were looked up (rule R9), by answer: mine, lost."}, []string{"answer"}))
	return &metrics{
		appended: appends.WithLabelValues("ok"), failed: appends.WithLabelValues("error"), unknown: appends.WithLabelValues("unknown"),
		appendSeconds: register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "corfu_client_append_seconds", Help: "Time of appends that succeeded.",
			Buckets: prometheus.ExponentialBuckets(4e-6, 2, 22)})),
		tokens:       counter("tokens_total", "Positions taken from the sequencer."),
		casLost:      counter("cas_losses_total", "Positions lost to somebody else's entry or junk."),
		fragments:    counter("fragments_total", "Pages of entries larger than a page that this client published."),
		torn:         counter("torn_total", "Attempts to append more than a page that lost one of their positions and were junk as a whole."),
		retries:      counter("retries_total", "Operations started again after a refusal, an error or a time-out."),
		fills:        counter("fills_total", "Holes filled with junk."),
		helped:       counter("helped_total", "Entries that somebody else published at the head and this client placed further down the chain."),
		reads:        counter("reads_total", "Pages looked at."),
		coldReads:    counter("cold_reads_total", "Pages asked for by message because the window had passed them."),
		holes:        counter("holes_total", "Holes waited for by readers."),
		resolvedMine: resolved.WithLabelValues("mine"), resolvedLost: resolved.WithLabelValues("lost"),
		windowWaits: counter("window_waits_total", "Times an entry had to wait for a unit's window."),
		ackMissed:   counter("ack_timeouts_total", "Appends whose acknowledgement did not come in time and that looked at the words instead."),
		connErrors:  counter("connection_errors_total", "Sessions with units and sequencers that broke or could not be opened."),
		invariant:   counter("invariant_violations_total", "Entries found where the protocol makes them impossible. Anything but 0 is an alarm."),
		corrupt:     counter("corrupt_total", "Corrupt copies met."),
		news:        counter("layouts_from_units_total", "Newer layouts learned from a unit, over the fabric, because the layout servers were out of reach."),
		credits:     gauge("staging_slots_free", "Free staging slots over all sessions."),
		epoch:       gauge("epoch", "Epoch of the layout in use."),
	}
}

// register registers c, or gives what is registered under its name already.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	var dup prometheus.AlreadyRegisteredError
	if errors.As(err, &dup) {
		if old, ok := dup.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}
