package server

import (
	"strconv"
	"time"

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
	waiting                prometheus.Gauge
	rebuilt                prometheus.Counter
	rebuildLeft            prometheus.Gauge

	whole, repairSeconds                     prometheus.Histogram
	wanted, present                          *prometheus.GaugeVec
	rebuildTotal, lastEnded, inProgress      prometheus.Gauge
	spares, standbys, suspects, rebuildRatio prometheus.Gauge
	refusing                                 prometheus.Gauge
	unreached                                *prometheus.GaugeVec
	fabricDown                               prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, st *store, more ...prometheus.Collector) (*metrics, error) {
	m := &metrics{Set: promset.New("corfu_layout_")}
	m.phases = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "corfu_layout_reconfiguration_seconds",
		Help:    "Duration of each phase of a reconfiguration, failed ones included.",
		Buckets: prometheus.ExponentialBuckets(16e-6, 2, 22)}, []string{"phase"})
	m.results = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_layout_reconfigurations_total",
		Help: "Reconfigurations ended, by result: active or aborted."}, []string{"result"})
	m.sealed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_layout_seals_total",
		Help: "Seals that members answered, by the way on which the first answer came: fabric or control."}, []string{"way"})
	m.up = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_member_up",
		Help: "1 if the member answered when it was last asked; at the leader only."}, []string{"member"})
	m.deficit = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_replication_deficit",
		Help: "Replicas that chains lack, of the positions that take new entries (open) and of older ones (older); at the leader only."}, []string{"positions"})
	m.Add(m.phases, m.results, m.sealed, m.up, m.deficit)
	m.waiting = m.Gauge("waiting", "1 while something failed that cannot be mended, such as chains that would fall below min_replicas: appends fail; at the leader only.")
	m.copied = m.Counter("entries_copied_total", "Entries sent to units that lacked them, in reconciliations.")
	m.rebuilt = m.Counter("rebuild_copied_bytes_total", "Bytes of older pages sent to units that joined a chain.")
	m.rebuildLeft = prometheus.NewGauge(prometheus.GaugeOpts{Name: "corfu_layout_rebuild_remaining_pages",
		Help: "Addresses of older positions that units which joined a chain still lack; at the leader only."})
	m.Add(m.rebuildLeft)
	m.chains()
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
	m.Add(more...)
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

// How a reconfiguration ends.
const (
	resultActive  = "active"
	resultAborted = "aborted"
)

func (m *metrics) result(err error) {
	r := resultActive
	if err != nil {
		r = resultAborted
	}
	m.results.WithLabelValues(r).Inc()
	m.lastEnded.SetToCurrentTime()
}

// chains adds what chains want and have, and how far a change is.
func (m *metrics) chains() {
	of := []string{"segment", "chain"}
	m.wanted = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_chain_replicas_wanted",
		Help: "Replicas that a chain shall have, by the first position of its segment and its place there; at the leader only."}, of)
	m.present = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_chain_replicas",
		Help: "Replicas that a chain has; at the leader only."}, of)
	m.Add(m.wanted, m.present)
	m.whole = m.Histogram("epoch_change_seconds", "Time of a whole reconfiguration that ended ACTIVE, from its beginning until it was open everywhere.",
		prometheus.ExponentialBuckets(1e-3, 2, 16))
	m.repairSeconds = m.Histogram("repair_seconds", "Time of a repair of one copy that succeeded.", prometheus.ExponentialBuckets(64e-6, 4, 10))
	m.inProgress = m.Gauge("reconfiguration_in_progress", "1 while a reconfiguration is under way; at the leader only.")
	m.lastEnded = m.Gauge("last_reconfiguration_timestamp_seconds", "When this server ended its last reconfiguration, as Unix time; 0: none since its start.")
	m.rebuildTotal = m.Gauge("rebuild_pages", "Addresses of older positions that units which joined a chain are to get in this epoch; at the leader only.")
	m.rebuildRatio = m.Gauge("rebuild_progress_ratio", "How much of them they have; 1: nothing is lacking; at the leader only.")
	m.rebuildRatio.Set(1)
	m.spares = m.Gauge("spares_ready", "Spare units that answer; at the leader only.")
	m.standbys = m.Gauge("standbys_ready", "Standby sequencers that answer; at the leader only.")
	m.refusing = m.Gauge("members_refusing", "Members that answer, and cannot be sealed, reconciled or activated, or whose flash takes nothing: the log goes on without them, or waits; at the leader only.")
	m.unreached = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "corfu_layout_fabric_unreachable",
		Help: "1 if the fabric does not reach the member, as the leader's own link or clients say; at the leader only."}, []string{"member"})
	m.Add(m.unreached)
	m.fabricDown = m.Gauge("fabric_down", "1 while the leader reaches no member over the fabric, so that its own link must be broken; at the leader only.")
	m.suspects = m.Gauge("members_failed", "Members without which the log goes on, or waits; at the leader only.")
}

// observeChains shows what the chains of l have, of replicas each.
func (m *metrics) observeChains(l *layout.Layout, replicas int) {
	m.wanted.Reset()
	m.present.Reset()
	for _, s := range l.Segments {
		for j, c := range s.Chains {
			segment, chain := strconv.FormatUint(uint64(s.Start), 10), strconv.Itoa(j)
			m.wanted.WithLabelValues(segment, chain).Set(float64(replicas))
			m.present.WithLabelValues(segment, chain).Set(float64(len(c.Units)))
		}
	}
}

// observeMembers shows who stands ready, and who does not answer.
func (m *metrics) observeMembers(list []*member, failAfter time.Duration) {
	var spares, standbys, failed, refusing float64
	for _, x := range list {
		if !x.pulse.failed && x.refuses(time.Now(), failAfter) {
			refusing++
		}
		switch {
		case x.pulse.failed:
			failed++
		case !x.standby || !x.fit(failAfter):
		case x.unit != 0:
			spares++
		default:
			standbys++
		}
	}
	m.spares.Set(spares)
	m.standbys.Set(standbys)
	m.suspects.Set(failed)
	m.refusing.Set(refusing)
}

// observeRebuild shows how much is left of a rebuild of so many addresses.
func (m *metrics) observeRebuild(total, left uint64) {
	m.rebuildTotal.Set(float64(total))
	m.rebuildLeft.Set(float64(left))
	ratio := 1.0
	if total > 0 {
		ratio = float64(total-left) / float64(total)
	}
	m.rebuildRatio.Set(ratio)
}

// notLeading ends what only the leader knows.
func (m *metrics) notLeading() {
	m.up.Reset()
	m.deficit.Reset()
	m.waiting.Set(0)
	m.wanted.Reset()
	m.present.Reset()
	m.observeMembers(nil, 0)
	m.observeReach(nil, false)
	m.observeRebuild(0, 0)
}

// observeReach shows whom the fabric does not reach.
func (m *metrics) observeReach(list []*member, down bool) {
	m.unreached.Reset()
	for _, x := range list {
		m.unreached.WithLabelValues(x.name).Set(asNumber(x.unreached != ""))
	}
	m.fabricDown.Set(asNumber(down))
}

func asNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
