package server

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/promset"
	"corfu/internal/wire"
	"corfu/rdma"
	"corfu/unit"
)

// metrics of a unit. What the core counts is carried over by observe.
type metrics struct {
	*promset.Set

	batchPages, flushSeconds, sealSeconds, coldSeconds                           prometheus.Histogram
	flushErrors, acks, progress, seals, activations, coldReads, opened, rejected prometheus.Counter
	doorbells, ignored, pages, junk, corrupt, tampered, steps, trims             prometheus.Counter
	flashUsed, flashCapacity, flashFull, recoverySeconds, recoveryBytes          prometheus.Gauge
	base, watermark, end, occupied, waiting, slots, epoch, state, memoryBytes    prometheus.Gauge

	ends *prometheus.CounterVec

	repairMetrics
	useMetrics
}

func newMetrics(s *Server) (*metrics, error) {
	m := &metrics{Set: promset.New("corfu_unit_")}
	m.histograms()
	m.counters()
	m.gauges()
	m.repairs(s)
	m.use(s)
	m.ends = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "corfu_unit_sessions_ended_total",
		Help: "Sessions that ended, by why: the unit's own decision, the peer, or what it did wrong."}, []string{"why"})
	m.Add(m.ends)
	m.GaugeFunc("sessions", "Sessions open, or waiting for their connections.", func() float64 { return float64(s.sessionCount()) })
	m.Add(s.calls.Collector())
	return m, m.Register(s.cfg.Registerer)
}

func (m *metrics) histograms() {
	h := m.Histogram
	fine := prometheus.ExponentialBuckets(1e-6, 2, 24) // 1 µs to 8 s
	m.batchPages = h("flush_batch_pages", "Pages in one flush.", prometheus.ExponentialBuckets(1, 2, 11))
	m.flushSeconds = h("flush_seconds", "Time until flash had a batch.", fine)
	m.sealSeconds = h("seal_seconds", "Time of a seal, from the order to the answer.", prometheus.ExponentialBuckets(1e-3, 2, 15))
	m.coldSeconds = h("cold_read_seconds", "Time of a cold read, until the client had the page.", fine)
}

func (m *metrics) counters() {
	c := func(name, help string) prometheus.Counter { return m.Counter(name+"_total", help) }
	m.pages = c("ingest_pages", "Pages copied from staging that verified.")
	m.junk = c("ingest_junk", "Holes filled.")
	m.corrupt = c("corrupt", "Addresses whose published page did not verify, or that were damaged on flash at a start.")
	m.tampered = c("tampering", "Words changed by clients in a way that no correct client does.")
	m.doorbells = c("doorbells", "Doorbells received.")
	m.ignored = c("doorbells_ignored", "Doorbells for addresses where nothing was published.")
	m.steps = c("window_steps", "Addresses by which the window moved.")
	m.trims = c("trims", "Addresses trimmed one by one.")
	m.acks = c("acks", "Acknowledgements that pages are durable.")
	m.progress = c("progress_messages", "Messages to clients that follow the log of how far the unit is.")
	m.flushErrors = c("flush_errors", "Flushes that failed and are tried again.")
	m.seals = c("seals", "Epochs sealed.")
	m.activations = c("activations", "Epochs opened.")
	m.coldReads = c("cold_reads", "Pages read from flash for clients.")
	m.opened = c("sessions_opened", "Sessions opened.")
	m.rejected = c("connections_rejected", "Connections refused: token unknown, used or too old.")
}

func (m *metrics) gauges() {
	g := m.Gauge
	m.base = g("window_base", "First address of the window.")
	m.watermark = g("watermark", "All addresses below are durable, junk or trimmed.")
	m.end = g("end", "First address above all entries.")
	m.occupied = g("window_occupancy_ratio", "Part of the window that holds entries.")
	m.waiting = g("flush_waiting_pages", "Pages ingested and not on flash yet.")
	m.slots = g("staging_slots_in_use", "Staging slots owned by sessions, or not flushed since their session ended.")
	m.epoch = g("epoch", "The promise: the epoch served or sealed for.")
	m.state = g("state", "0 closed, 1 sealed, 2 open.")
	m.flashUsed = g("flash_used_bytes", "Space that the segments take, as the file system counts it.")
	m.flashCapacity = g("flash_capacity_bytes", "Space that they may take; 0: what the disk gives.")
	m.flashFull = g("flash_full", "1 while there is no room for another segment.")
	m.recoverySeconds = g("recovery_seconds", "Time that the last start took until the unit knew what is on flash.")
	m.recoveryBytes = g("recovery_read_bytes", "What the last start read from flash.")
	m.memoryBytes = g("registered_memory_bytes", "Memory of index, ring, staging and messages.")
}

// observe carries over what the core counted. The loop calls it at each tick.
func (s *Server) observe(v unit.View) {
	m, now, was := s.m, s.core.Stats(), s.loopState.published
	add := func(c prometheus.Counter, now, was uint64) {
		if now > was {
			c.Add(float64(now - was))
		}
	}
	add(m.pages, now.Pages, was.Pages)
	add(m.junk, now.Junk, was.Junk)
	add(m.corrupt, now.Corrupt, was.Corrupt)
	add(m.tampered, now.Tampered, was.Tampered)
	add(m.doorbells, now.Doorbells, was.Doorbells)
	add(m.ignored, now.DoorbellsIgnored, was.DoorbellsIgnored)
	add(m.steps, now.Steps, was.Steps)
	add(m.trims, now.Trimmed, was.Trimmed)
	add(m.damaged, now.Damaged, was.Damaged)
	add(m.repaired, now.Repaired, was.Repaired)
	m.corruptNow.Set(float64(v.Corrupt))
	s.loopState.published = now

	m.base.Set(float64(v.Base))
	m.watermark.Set(float64(v.Watermark))
	m.end.Set(float64(v.End))
	if w := v.Geometry.Window; w > 0 {
		m.occupied.Set(float64(v.End-v.Base) / float64(w))
	}
	m.waiting.Set(float64(v.Waiting))
	m.epoch.Set(float64(v.Promise))
	m.state.Set(float64(v.Phase))
	s.mu.Lock()
	taken := 0
	if s.slots != nil {
		taken = len(s.slots.used) - s.slots.free
	}
	s.mu.Unlock()
	m.slots.Set(float64(taken))
	m.memoryBytes.Set(float64(s.bytes.Load()))
	f := s.store.Stats()
	m.flashUsed.Set(float64(f.Used))
	m.flashCapacity.Set(float64(f.Capacity))
	full := 0.0
	if f.Full {
		full = 1
	}
	m.flashFull.Set(full)
	s.observeUse(v, f)
}

// ended counts the end of a session by its reason.
func (m *metrics) ended(err error) {
	why := "other"
	switch {
	case errors.Is(err, errEnd):
		why = "sealed"
	case errors.Is(err, errRevoked):
		why = "revoked"
	case errors.Is(err, errSlow):
		why = "slow"
	case errors.Is(err, errTokenLife), errors.Is(err, errReplaced):
		why = "not_connected"
	case errors.Is(err, wire.ErrBadMessage):
		why = "bad_message"
	case errors.Is(err, rdma.ErrRemoteAccess):
		why = "refused_by_peer"
	case errors.Is(err, rdma.ErrBroken), errors.Is(err, rdma.ErrClosed):
		why = "connection"
	}
	m.ends.WithLabelValues(why).Inc()
}

func (s *Server) sessionCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

var _ unit.Memory = (*memory)(nil)
