package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/promset"
	"corfu/seq"
)

// metrics of a sequencer. The tokens are read off the word at each scrape: nothing is counted when they are taken.
type metrics struct {
	*promset.Set
	seals       prometheus.Counter
	activations prometheus.Counter
	connections prometheus.Counter
	rejected    prometheus.Counter
	alarms      prometheus.Counter
	sealSeconds prometheus.Histogram
}

func newMetrics(s *Server) (*metrics, error) {
	m := &metrics{Set: promset.New("corfu_seq_")}
	m.seals = m.Counter("seals_total", "Epochs sealed.")
	m.activations = m.Counter("activations_total", "Epochs opened.")
	m.connections = m.Counter("connections_total", "Client connections accepted.")
	m.rejected = m.Counter("connections_rejected_total", "Client connections refused: token unknown, used or too old.")
	m.alarms = m.Counter("alarms_total", "Times the word was revoked because it was tampered with or out of positions.")
	m.sealSeconds = m.Histogram("seal_seconds", "Time of a seal, from the order to the answer.", prometheus.ExponentialBuckets(16e-6, 4, 11))
	m.GaugeFunc("sessions_max", "Client connections and unused tokens that there is room for.", func() float64 { return float64(s.cfg.MaxSessions) })
	m.Add(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_seq_tokens_total",
		Help: "Positions handed out since the start of the process."}, s.tokens))
	m.GaugeFunc("next_position", "Next position to be handed out; 0 while closed or sealed.", s.next)
	m.GaugeFunc("epoch", "The promise: the epoch served or sealed for.", s.epoch)
	m.GaugeFunc("open", "1 while tokens can be taken.", s.isOpen)
	m.GaugeFunc("sessions", "Client connections open.", func() float64 { return float64(s.sessions.count()) })
	m.Add(s.calls.Collector())
	return m, m.Register(s.cfg.Registerer)
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
