package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/promset"
	"corfu/layout"
)

// metrics of a layout server.
type metrics struct {
	*promset.Set
	phases  *prometheus.HistogramVec
	results *prometheus.CounterVec
	sealed  *prometheus.CounterVec
	copied  prometheus.Counter
	clients prometheus.Counter
	alarms  prometheus.Counter

	repaired, repairErrors prometheus.Counter
	lost                   prometheus.Gauge
	up                     *prometheus.GaugeVec
	deficit                *prometheus.GaugeVec
	rebuilt                prometheus.Counter
	rebuildLeft            prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, st *store) (*metrics, error) {
	m := &metrics{Set: promset.New("corfu_layout_")}
	m.phases = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "corfu_layout_reconfiguration_seconds",
		Help:    "Duration of each phase of a reconfiguration, failed ones included.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"phase"})
	m.results = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_layout_reconfigurations_total",
		Help: "Reconfigurations ended, by result: active or aborted."}, []string{"result"})
	m.sealed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_layout_seals_total",
		Help: "Seals that members answered, by the way on which the first answer came: fabric or control."}, []string{"way"})
	m.up = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_member_up",
		Help: "1 if the member answered when it was last asked; at the leader only."}, []string{"member"})
	m.deficit = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_replication_deficit",
		Help: "Replicas that chains lack, of the positions that take new entries (open) and of older ones (older); at the leader only."}, []string{"positions"})
	m.Add(m.phases, m.results, m.sealed, m.up, m.deficit)
	m.copied = m.Counter("entries_copied_total", "Entries sent to units that lacked them, in reconciliations.")
	m.rebuilt = m.Counter("rebuild_copied_bytes_total", "Bytes of older pages sent to units that joined a chain.")
	m.rebuildLeft = prometheus.NewGauge(prometheus.GaugeOpts{Name: "corfu_layout_rebuild_remaining_pages",
		Help: "Addresses of older positions that units which joined a chain still lack; at the leader only."})
	m.Add(m.rebuildLeft)
	m.clients = m.Counter("client_ids_total", "Client ids handed out since the start of the process.")
	m.alarms = m.Counter("alarms_total", "Reconfigurations that found two different entries at one position: a safety rule was broken.")
	m.repaired = m.Counter("repairs_total", "Corrupt copies that units were sent anew.")
	m.repairErrors = m.Counter("repair_errors_total", "Repairs that failed and are tried again.")
	m.lost = m.Gauge("lost_copies", "Corrupt copies that no member of their chain can restore; at the leader only.")
	m.GaugeFunc("epoch", "Latest active epoch; 0 before the first.", func() (e float64) {
		st.fsm.view(func(s *layout.State) { e = float64(s.Latest()) })
		return e
	})
	m.addRaft(st)
	return m, m.Register(reg)
}

// addRaft adds what an operator wants to know of this layout server among the others.
func (m *metrics) addRaft(st *store) {
	m.GaugeFunc("raft_leader", "1 if this layout server leads, else 0.", func() float64 {
		if st.elected() {
			return 1
		}
		return 0
	})
	m.GaugeFunc("raft_term", "Raft's current term: it rises with every election.", func() float64 { return float64(st.raft.Standing().Term) })
	m.GaugeFunc("raft_commit_index", "Index of the last entry of Raft's log that this server knows to be committed.",
		func() float64 { return float64(st.raft.Standing().Commit) })
	m.GaugeFunc("raft_last_contact_seconds", "Time since the leader was last heard, or since the start; 0 at the leader.",
		func() float64 { return st.contact().Seconds() })
}

func (m *metrics) result(err error) {
	r := "active"
	if err != nil {
		r = "aborted"
	}
	m.results.WithLabelValues(r).Inc()
}
