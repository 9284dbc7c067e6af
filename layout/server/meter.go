package server

import "time"

const (
	// sampleEvery is how often members are asked for what they count.
	sampleEvery = time.Second
	// meterSpan is how much of the past a rate is the average of.
	meterSpan = 5 * time.Second
)

// meter makes a rate of what a counter shows now and then.
type meter struct{ samples []sample }

type sample struct {
	at    time.Time
	value uint64
}

// add notes what the counter shows. One that went back was started anew: so is the meter.
func (m *meter) add(at time.Time, value uint64) {
	if n := len(m.samples); n > 0 && value < m.samples[n-1].value {
		m.samples = m.samples[:0]
	}
	m.samples = append(m.samples, sample{at, value})
	old := 0
	for len(m.samples)-old > 2 && at.Sub(m.samples[old].at) > meterSpan {
		old++
	}
	m.samples = append(m.samples[:0], m.samples[old:]...)
}

// rate is how much was counted in a second, on average over about meterSpan; 0 if the counter was not read for so long.
func (m *meter) rate(now time.Time) float64 {
	if m == nil || len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	took := last.at.Sub(first.at)
	if now.Sub(last.at) > meterSpan || took <= 0 {
		return 0
	}
	return float64(last.value-first.value) / took.Seconds()
}

// stale tells whether nothing was added for twice the span: the counter is gone.
func (m *meter) stale(now time.Time) bool {
	return len(m.samples) == 0 || now.Sub(m.samples[len(m.samples)-1].at) > 2*meterSpan
}
