package server

import (
	"maps"
	"sync"
	"time"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// vitalClients is how many clients a unit may tell of in one heartbeat.
const vitalClients = 32

// counter is what is counted.
type counter string

const (
	counterPages  counter = "pages"  // taken in
	counterCold   counter = "cold"   // reads
	counterTokens counter = "tokens" // handed out
	counterCopied counter = "copied" // older addresses
)

// counterID names a counter: of a unit, of one of its clients, of the sequencer (all zero), or of a copy.
type counterID struct {
	what   counter
	unit   layout.UnitID
	client layout.ClientID
	from   layout.Address // of a copy
}

// vitals keeps what members count, as their heartbeats brought it. The manager feeds it; Cluster reads it.
type vitals struct {
	mu     sync.Mutex
	last   time.Time // when samples were taken
	meters map[counterID]*meter
	units  map[layout.UnitID]*pb.UnitVitals // the latest of each
}

func newVitals() *vitals {
	return &vitals{meters: map[counterID]*meter{}, units: map[layout.UnitID]*pb.UnitVitals{}}
}

// due tells whether members are to be asked for their counters now.
func (v *vitals) due(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.last) < sampleEvery {
		return false
	}
	v.last = now
	return true
}

// take notes what one heartbeat brought.
func (v *vitals) take(now time.Time, m *member, r report) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if m.unit == 0 {
		if !m.standby && r.state == stateOpen {
			v.count(now, counterID{what: counterTokens}, uint64(r.next))
		}
		return
	}
	x := r.vitals
	if x == nil {
		return
	}
	v.units[m.unit] = x
	v.count(now, counterID{what: counterPages, unit: m.unit}, x.Pages)
	v.count(now, counterID{what: counterCold, unit: m.unit}, x.ColdReads)
	for _, c := range x.Clients {
		v.count(now, counterID{what: counterPages, unit: m.unit, client: layout.ClientID(c.Client)}, c.Pages)
		v.count(now, counterID{what: counterCold, unit: m.unit, client: layout.ClientID(c.Client)}, c.ColdReads)
	}
}

// copies notes how far older positions are copied, and forgets what is counted no more.
func (v *vitals) copies(now time.Time, work []rebuilding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, x := range work {
		v.count(now, copyCounter(x), uint64(x.below-x.From))
	}
	maps.DeleteFunc(v.meters, func(_ counterID, m *meter) bool { return m.stale(now) })
}

func copyCounter(x rebuilding) counterID {
	return counterID{what: counterCopied, unit: x.Unit, from: x.From}
}

func (v *vitals) count(now time.Time, c counterID, value uint64) {
	m := v.meters[c]
	if m == nil {
		m = &meter{}
		v.meters[c] = m
	}
	m.add(now, value)
}

// rate is that of one counter; 0 if it is not known.
func (v *vitals) rate(now time.Time, c counterID) float64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.meters[c].rate(now)
}

// unit is what a unit said last, or an empty one.
func (v *vitals) unit(u layout.UnitID) *pb.UnitVitals {
	v.mu.Lock()
	defer v.mu.Unlock()
	if x := v.units[u]; x != nil {
		return x
	}
	return &pb.UnitVitals{}
}

// clients are the clients that units told of lately, with the rates of all their sessions together.
func (v *vitals) clients(now time.Time, pageSize int) map[layout.ClientID]*pb.ClientStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := map[layout.ClientID]*pb.ClientStatus{}
	for c, m := range v.meters {
		if c.client == 0 || now.Sub(m.samples[len(m.samples)-1].at) > 2*sampleEvery {
			continue
		}
		x := all[c.client]
		if x == nil {
			x = &pb.ClientStatus{Id: uint32(c.client)}
			all[c.client] = x
		}
		if r := m.rate(now); c.what == counterPages {
			x.Sessions++
			x.PagesPerSecond += r
			x.BytesPerSecond += r * float64(pageSize)
		} else {
			x.ColdReadsPerSecond += r
			x.BytesPerSecond += r * float64(pageSize)
		}
	}
	return all
}

// forget drops everything: another server leads.
func (v *vitals) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.meters)
	clear(v.units)
	v.last = time.Time{}
}
