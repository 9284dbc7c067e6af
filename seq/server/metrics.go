package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"corfu/seq"
)

// metrics of a sequencer. The tokens are read off the word at each scrape: nothing is counted when they are taken.
type metrics struct {
	reg         prometheus.Registerer
	all         []prometheus.Collector
	seals       prometheus.Counter
	activations prometheus.Counter
	connections prometheus.Counter
	rejected    prometheus.Counter
	alarms      prometheus.Counter
}

func newMetrics(s *Server) (*metrics, error) {
	m := &metrics{reg: s.cfg.Registerer}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_seq_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	m.seals = counter("seals_total", "Epochs sealed.")
	m.activations = counter("activations_total", "Epochs opened.")
	m.connections = counter("connections_total", "Client connections accepted.")
	m.rejected = counter("connections_rejected_total", "Client connections refused: token unknown, used or too old.")
	m.alarms = counter("alarms_total", "Times the word was revoked because it was tampered with or out of positions.")
	m.all = append(m.all,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_seq_tokens_total",
			Help: "Positions handed out since the start of the process."}, s.tokens),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_seq_next_position",
			Help: "Next position to be handed out; 0 while closed or sealed."}, s.next),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_seq_epoch",
			Help: "The promise: the epoch served or sealed for."}, s.epoch),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_seq_open",
			Help: "1 while tokens can be taken."}, s.isOpen),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_seq_sessions",
			Help: "Client connections open."}, func() float64 { return float64(s.sessions.count()) }))
	for i, c := range m.all {
		if err := m.reg.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (s *Server) tokens() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.handed
	if s.core.Phase() == seq.Open {
		k, _ := s.core.Inspect(s.word())
		n += k
	}
	return float64(n)
}

func (s *Server) next() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.Phase() != seq.Open {
		return 0
	}
	return float64(s.word().Next())
}

func (s *Server) epoch() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.core.Promise())
}

func (s *Server) isOpen() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.Phase() != seq.Open {
		return 0
	}
	return 1
}
