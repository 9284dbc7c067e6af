package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"corfu/layout"
)

// metrics of a layout server.
type metrics struct {
	reg     prometheus.Registerer
	all     []prometheus.Collector
	phases  *prometheus.HistogramVec
	results *prometheus.CounterVec
	copied  prometheus.Counter
	clients prometheus.Counter
	alarms  prometheus.Counter
	up      *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, st *store) (*metrics, error) {
	m := &metrics{reg: reg}
	m.phases = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "corfu_layout_reconfiguration_seconds",
		Help:    "Duration of each phase of a reconfiguration, failed ones included.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"phase"})
	m.results = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_layout_reconfigurations_total",
		Help: "Reconfigurations ended, by result: active or aborted."}, []string{"result"})
	m.copied = prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_layout_entries_copied_total",
		Help: "Entries sent to units that lacked them, in reconciliations."})
	m.clients = prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_layout_client_ids_total",
		Help: "Client ids handed out since the start of the process."})
	m.alarms = prometheus.NewCounter(prometheus.CounterOpts{Name: "corfu_layout_alarms_total",
		Help: "Reconfigurations that found two different entries at one position: a safety rule was broken."})
	m.up = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_member_up",
		Help: "1 if the member answered when it was last asked; at the leader only."}, []string{"member"})
	epoch := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_layout_epoch",
		Help: "Latest active epoch; 0 before the first."}, func() (e float64) {
		st.fsm.view(func(s *layout.State) { e = float64(s.Latest()) })
		return e
	})
	for _, c := range []prometheus.Collector{m.phases, m.results, m.copied, m.clients, m.alarms, m.up, epoch} {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return nil, err
		}
		m.all = append(m.all, c)
	}
	return m, nil
}

func (m *metrics) result(err error) {
	r := "active"
	if err != nil {
		r = "aborted"
	}
	m.results.WithLabelValues(r).Inc()
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
