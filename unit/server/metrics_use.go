package server

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"corfu/internal/nvme"
	"corfu/internal/sleep"
	"corfu/unit"
	"corfu/unit/flash"
)

// useMetrics say how much of each resource is in use, how much there is, and what it refused.
type useMetrics struct {
	sessionsMax, slotsMax, windowPages, flashFree, flashSegments prometheus.Gauge
	flashPages, flashWritten, readErrors, writeErrors            prometheus.Counter
	coldErrors                                                   prometheus.Counter
	wear                                                         flash.Wear // as the counters have it
	smart                                                        atomic.Pointer[nvme.Smart]
	helm                                                         atomic.Int64 // nanoseconds
}

func (m *metrics) use(s *Server) {
	g := m.Gauge
	m.sessionsMax = g("sessions_max", "Sessions that there is room for; 0 until a layout is known.")
	m.slotsMax = g("staging_slots", "Staging slots that there are.")
	m.windowPages = g("window_pages", "Addresses of the window.")
	m.flashFree = g("flash_free_bytes", "Space that the store may still take: what its capacity leaves, and what the file system or the device has.")
	m.flashSegments = g("flash_segments", "Segments on flash.")
	m.flashPages = m.Counter("flash_page_bytes_total", "Bytes of pages that were brought to flash.")
	m.flashWritten = m.Counter("flash_written_bytes_total", "Bytes written to the disk in all, marks and metas included: divided by corfu_unit_flash_page_bytes_total, the write amplification.")
	m.readErrors = m.Counter("flash_read_errors_total", "Reads that the disk refused.")
	m.writeErrors = m.Counter("flash_write_errors_total", "Writes that the disk refused.")
	m.coldErrors = m.Counter("cold_read_errors_total", "Cold reads that failed: the disk refused, or the client did not take the page.")
	m.Add(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_unit_helm_busy_seconds_total",
		Help: "Time in which the goroutine that owns the unit's core was at work: its rate is that goroutine's utilisation, 1 at most."},
		func() float64 { return time.Duration(m.helm.Load()).Seconds() }))
	queue := func(name string, length func() int, capacity int) {
		at := prometheus.Labels{"queue": name}
		m.Add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_unit_queue_length", ConstLabels: at,
			Help: "What waits: events for the core, cold reads for a reader, batches for a flusher."}, func() float64 { return float64(length()) }))
		m.Add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_unit_queue_capacity", ConstLabels: at,
			Help: "How much may wait; beyond that who sends waits."}, func() float64 { return float64(capacity) }))
	}
	queue("events", func() int { return len(s.events) }, queueDepth)
	queue("cold_reads", func() int { return len(s.coldJobs) }, coldDepth)
	queue("batches", func() int { return len(s.batches) }, unit.MaxInFlight)
	m.GaugeFunc("flushes_in_flight", "Batches that are being written to flash.", func() float64 { return float64(s.writing.Load()) })
	m.GaugeFunc("registered_memory_limit_bytes", "RLIMIT_MEMLOCK of the process, which bounds what it may register over verbs; +Inf: none.", func() float64 { return memlock(s.cfg.Device.Info().Provider) })
	m.Add(smartCollector{&m.smart})
}

// memlock is the soft limit, which is the one that counts. Only memory of verbs is locked: tcp knows no limit.
func memlock(provider string) float64 {
	var r unix.Rlimit
	if provider != "verbs" || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r) != nil || r.Cur == math.MaxUint64 {
		return math.Inf(1)
	}
	return float64(r.Cur)
}

// observeUse carries over what is known at a tick. The loop calls it.
func (s *Server) observeUse(v unit.View, f flash.Stats) {
	m := s.m
	m.sessionsMax.Set(float64(s.capacity.Load()))
	m.slotsMax.Set(float64(v.Geometry.MaxSessions * v.Geometry.SessionSlots))
	m.windowPages.Set(float64(v.Geometry.Window))
	m.flashSegments.Set(float64(f.Segments))
	now, was := s.store.Wear(), m.useMetrics.wear
	m.flashPages.Add(float64(now.Pages - was.Pages))
	m.flashWritten.Add(float64(now.Written - was.Written))
	m.readErrors.Add(float64(now.ReadErrors - was.ReadErrors))
	m.writeErrors.Add(float64(now.WriteErrors - was.WriteErrors))
	m.useMetrics.wear = now
}

const (
	spaceEvery = 5 * time.Second // that the file system is asked for its free space
	smartEvery = time.Minute     // that the disk is asked for its health
)

// watchDisk asks what may take its time until the server ends. Nobody waits for it: a disk that hangs must not hold up the end.
func (s *Server) watchDisk() {
	disk := s.store.Disk()
	var asked time.Time
	unknown := false // the log says so
	for {
		if free, err := s.store.Free(); err == nil {
			s.m.flashFree.Set(float64(free))
		}
		if disk != "" && time.Since(asked) >= smartEvery {
			asked = time.Now()
			x, err := nvme.Health(nvme.HealthDir, disk, asked)
			if err == nil {
				s.m.smart.Store(&x)
			} else {
				s.m.smart.Store(nil)
			}
			if strings.HasPrefix(disk, "nvme") && (err != nil) != unknown {
				unknown = err != nil
				s.sayHealth(disk, err)
			}
		}
		if sleep.For(s.ctx, spaceEvery) != nil {
			return
		}
	}
}

// sayHealth tells the log that the disk's wear is not known, and so is not watched, or that it is known again.
func (s *Server) sayHealth(disk string, err error) {
	if err != nil {
		s.cfg.Logger.Warn("the health of the disk is not known, so nobody is warned of its wear (is corfu-disk-health.timer enabled?)", "disk", disk, "err", err)
		return
	}
	s.cfg.Logger.Info("the health of the disk is known again", "disk", disk)
}

// smartCollector shows the disk's health, or nothing if it does not tell: a zero would look like a new disk.
type smartCollector struct{ last *atomic.Pointer[nvme.Smart] }

var smartDescs = [...]struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*nvme.Smart) float64
}{
	{smartDesc("used_ratio", "Part of the disk's endurance that is used up, as its maker reckons; may go beyond 1. Only of NVMe disks that tell."), prometheus.GaugeValue,
		func(x *nvme.Smart) float64 { return float64(x.PercentUsed) / 100 }},
	{smartDesc("spare_ratio", "Part of the disk's spare blocks that is left. Only of NVMe disks that tell."), prometheus.GaugeValue,
		func(x *nvme.Smart) float64 { return float64(x.SparePercent) / 100 }},
	{smartDesc("critical_warning", "Bits of the disk's critical warnings; 0: none. Only of NVMe disks that tell."), prometheus.GaugeValue,
		func(x *nvme.Smart) float64 { return float64(x.CriticalWarning) }},
	{smartDesc("temperature_celsius", "Composite temperature of the disk. Only of NVMe disks that tell."), prometheus.GaugeValue,
		func(x *nvme.Smart) float64 { return float64(x.Kelvin) - 273.15 }},
	{smartDesc("media_errors_total", "Errors that the disk could not correct, in its life. Only of NVMe disks that tell."), prometheus.CounterValue,
		func(x *nvme.Smart) float64 { return x.MediaErrors }},
	{smartDesc("written_bytes_total", "Bytes that hosts wrote to the disk in its life, whoever they were. Only of NVMe disks that tell."), prometheus.CounterValue,
		func(x *nvme.Smart) float64 { return x.WrittenBytes }},
}

func smartDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("corfu_unit_disk_"+name, help, nil, nil)
}

// Describe implements prometheus.Collector.
func (c smartCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range smartDescs {
		ch <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (c smartCollector) Collect(ch chan<- prometheus.Metric) {
	x := c.last.Load()
	if x == nil {
		return
	}
	for _, d := range smartDescs {
		ch <- prometheus.MustNewConstMetric(d.desc, d.kind, d.value(x))
	}
}
