// Package promset holds what the servers' metrics have in common: a set is registered whole or not at all, and a server
// that is stopped takes it away again, so that another one of the same process may have the names.
package promset

import "github.com/prometheus/client_golang/prometheus"

// Set is the metrics of one server, under names that begin alike. Its metrics work from the start; they are shown from
// Register on. The methods but those of the metrics themselves are for one goroutine.
type Set struct {
	prefix string
	all    []prometheus.Collector
	reg    prometheus.Registerer // nil: not registered
}

// New makes an empty set; prefix begins the names of what Counter, Gauge and Histogram make, as "corfu_seq_" does.
func New(prefix string) *Set { return &Set{prefix: prefix} }

// Add takes metrics into the set that were made with their full names.
func (s *Set) Add(c ...prometheus.Collector) { s.all = append(s.all, c...) }

// Counter makes a counter; its name ends in _total, as is the custom.
func (s *Set) Counter(name, help string) prometheus.Counter {
	return add(s, prometheus.NewCounter(prometheus.CounterOpts{Name: s.prefix + name, Help: help}))
}

// Gauge makes a gauge.
func (s *Set) Gauge(name, help string) prometheus.Gauge {
	return add(s, prometheus.NewGauge(prometheus.GaugeOpts{Name: s.prefix + name, Help: help}))
}

// GaugeFunc makes a gauge that value is asked for at each scrape, on any goroutine.
func (s *Set) GaugeFunc(name, help string, value func() float64) {
	add(s, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: s.prefix + name, Help: help}, value))
}

// Histogram makes a histogram with these upper bounds, ascending, in the unit that the name says.
func (s *Set) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	return add(s, prometheus.NewHistogram(prometheus.HistogramOpts{Name: s.prefix + name, Help: help, Buckets: buckets}))
}

func add[C prometheus.Collector](s *Set, c C) C {
	s.all = append(s.all, c)
	return c
}

// Register shows the set. If one of its metrics is refused, as a name that is taken is, none is shown and the error tells why.
func (s *Set) Register(reg prometheus.Registerer) error {
	for i, c := range s.all {
		if err := reg.Register(c); err != nil {
			unregister(reg, s.all[:i])
			return err
		}
	}
	s.reg = reg
	return nil
}

// Unregister takes the set away again. Idempotent; nothing is done if it is not registered.
func (s *Set) Unregister() {
	if s.reg != nil {
		unregister(s.reg, s.all)
		s.reg = nil
	}
}

func unregister(reg prometheus.Registerer, all []prometheus.Collector) {
	for _, c := range all {
		reg.Unregister(c)
	}
}
