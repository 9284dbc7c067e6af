package server

import (
	"testing"
	"time"
)

const (
	testBeat = 100 * time.Millisecond
	testFail = 500 * time.Millisecond
)

func (p *pulse) times(n int, answered bool, took time.Duration) {
	for range n {
		p.beat(answered, false, took, testFail/2+testBeat, testFail)
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
