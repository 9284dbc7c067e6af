package server

import (
	"corfu/layout"
)

// deficit says loudly what is missing: once when it changes, and all the time by the metric.
func (m *manager) deficit(l *layout.Layout, replicas int) {
	if l == nil {
		return
	}
	open, older := l.Deficit(replicas)
	m.metrics.observeChains(l, replicas)
	m.metrics.deficit.WithLabelValues("open").Set(float64(open))
	m.metrics.deficit.WithLabelValues("older").Set(float64(older))
	var was int
	m.set(func(s *shown) { was, s.deficit = s.deficit, open+older })
	switch now := open + older; {
	case now == was:
	case now == 0:
		m.log.Info("every chain has all its replicas again")
	case open > 0:
		m.log.Error("UNDER-REPLICATED: chains that take new entries lack units, and no spare is there: start the units that are down, or add a spare (corfu unit add)",
			"lacking", open, "lacking_of_older_positions", older)
	default:
		m.log.Warn("older positions lack replicas until they are copied", "lacking", older)
	}
}
