package server

import (
	"testing"
	"time"

	"corfu/layout"
)

const (
	testBeat = 100 * time.Millisecond
	testFail = 500 * time.Millisecond
)

func (p *pulse) times(n int, answered bool, took time.Duration) {
	for range n {
		p.beat(answered, false, took, testFail/2+testBeat, p.patience(false, testBeat, testFail))
	}
}

func TestMemberFailsAfterSilence(t *testing.T) {
	p := &pulse{}
	p.times(49, false, testBeat)
	if p.failed || !p.doubtful() {
		t.Errorf("never heard, after 4.9 s: %+v", p)
	}
	if p.times(1, false, testBeat); !p.failed {
		t.Errorf("never heard, after 5 s: %+v", p)
	}
	p.times(1, true, testBeat)
	if p.failed || p.doubtful() {
		t.Errorf("it is back: %+v", p)
	}
	if p.times(4, false, testBeat); p.failed || !p.doubtful() {
		t.Errorf("after 400 ms: %+v", p)
	}
	if p.times(1, false, testBeat); !p.failed || p.doubtful() {
		t.Errorf("after 500 ms: %+v", p)
	}
}

// TestNewLeaderHasNoMorePatience where the log runs: one heartbeat, in which it is dialled.
func TestNewLeaderHasNoMorePatience(t *testing.T) {
	p := &pulse{}
	for range 5 {
		p.beat(false, false, testBeat, testFail, p.patience(true, testBeat, testFail))
	}
	if left, silent := p.left(p.patience(true, testBeat, testFail)); p.failed || !silent || left != testBeat {
		t.Errorf("after 500 ms: %+v, %v left", p, left)
	}
	if p.beat(false, false, testBeat, testFail, p.patience(true, testBeat, testFail)); !p.failed {
		t.Errorf("after 600 ms: %+v", p)
	}
}

// TestOnlyWhoDidNotStartSaysThatTheLogRuns: a spare knows nothing, and who is closed has started; before the first epoch nobody runs.
func TestOnlyWhoDidNotStartSaysThatTheLogRuns(t *testing.T) {
	for _, x := range []struct {
		unit                 layout.UnitID
		state                string
		standby, active, yes bool
	}{
		{1, stateOpen, false, true, true}, {1, stateSealed, false, true, true}, {1, stateClosed, false, true, false},
		{1, stateUnreachable, false, true, false}, {1, stateOpen, true, true, false}, {1, stateSealed, false, false, false}, {0, stateOpen, false, true, false},
	} {
		ms := &members{}
		ms.hear(&member{unit: x.unit, standby: x.standby}, report{state: x.state}, x.active, time.Unix(1, 0))
		if !ms.runs.IsZero() != x.yes {
			t.Errorf("%+v: %v", x, ms.runs)
		}
	}
}

// TestLeaderThatSleptBlamesNobody: an hour without heartbeats is no silence of the members.
func TestLeaderThatSleptBlamesNobody(t *testing.T) {
	p := &pulse{}
	p.times(1, true, testBeat)
	if p.times(1, false, time.Hour); p.failed {
		t.Errorf("%+v", p)
	}
}

// TestMemberThatFallsAgainAndAgainHasToProveItself counts how long it has to answer after each fall.
func TestMemberThatFallsAgainAndAgainHasToProveItself(t *testing.T) {
	p := &pulse{}
	p.times(1, true, testBeat)
	for fall, want := range []int{0, 0, 5, 10, 20, 40, 80, 160, 320, 600} { // heartbeats; after 600 it is forgiven
		p.times(5, false, testBeat)
		n := 0
		for p.times(1, true, testBeat); p.proving(testFail); n++ {
			p.times(1, true, testBeat)
		}
		if want--; n != max(0, want) {
			t.Errorf("fall %d: %d heartbeats more, want %d", fall+1, n, max(0, want))
		}
	}
	if p.falls != 0 {
		t.Errorf("a minute does not make it forgotten: %+v", p)
	}
	p.beat(true, true, testBeat, testFail, testFail)
	if p.falls != 1 {
		t.Errorf("a restart is no fall: %+v", p)
	}
}
