package server

import (
	"time"
)

const (
	// graceFactor is by how much longer a member may be silent that this leader never heard, while no unit is open or sealed: a whole cluster
	// that starts must not drop those that come up last, and machines come up seconds apart.
	//
	// Where a unit of the active layout is open or sealed it did not start anew: units come up closed, and one is sealed
	// and opened only once all members were heard or had their time. (A sequencer says nothing of the units: its machine may have kept its power.) So the cluster does not start, only this leader is new, and one that it never
	// heard most likely died with the leader before. It has fail_after as any other, and one heartbeat more in which to be
	// dialled. That counts from when this leader heard one that runs: before, its own network may have been what was missing.
	graceFactor = 10
	// trustedFalls is how often a member may fall before it has to prove itself.
	trustedFalls = 2
	// forgiven is after how long without a fall a member is trusted as on its first day. No member has to prove itself for longer.
	forgiven = time.Minute
)

// pulse is what the heartbeats of one member say. A member that falls again and again is not used again before it has answered for a
// while, twice as long each time: or every fall would cost the log an epoch, or two. The manager owns it.
type pulse struct {
	heard  bool          // since this server leads
	silent time.Duration // without an answer, as far as somebody was there to ask
	missed int           // heartbeats, one after the other
	steady time.Duration // that it answered since the last fall
	falls  int           // times that it failed or restarted, not forgiven yet
	failed bool
}

// patience is how long the member may be silent. running: a unit of the active layout does not start.
func (p *pulse) patience(running bool, poll, failAfter time.Duration) time.Duration {
	switch {
	case p.heard:
		return failAfter
	case running:
		return failAfter + poll
	}
	return graceFactor * failAfter
}

// left is how long the member may be silent still before it has failed; not silent: it answered when it was last asked, or was not asked
// yet, or it has failed.
func (p *pulse) left(patience time.Duration) (left time.Duration, silent bool) {
	if p.failed || p.missed == 0 {
		return 0, false
	}
	return max(patience-p.silent, 0), true
}

// beat notes one heartbeat. took is the time since the end of the one before; it counts up to limit only, since the leader itself may have
// slept. A member has failed after patience.
func (p *pulse) beat(answered, restarted bool, took, limit, patience time.Duration) {
	took = min(took, limit)
	if answered {
		p.heard, p.silent, p.missed, p.failed = true, 0, 0, false
		p.steady += took
		if restarted {
			p.fall()
		}
		if p.steady >= forgiven {
			p.falls = 0
		}
		return
	}
	p.missed++
	p.silent += took
	if !p.failed && p.missed >= 2 && p.silent >= patience {
		p.failed = true
		p.fall()
	}
}

func (p *pulse) fall() { p.falls, p.steady = p.falls+1, 0 }

// doubtful: it is silent, and nobody knows yet for how long.
func (p *pulse) doubtful() bool { return !p.failed && (p.missed > 0 || !p.heard) }

// proving: it fell too often to be used again already.
func (p *pulse) proving(failAfter time.Duration) bool {
	if p.falls <= trustedFalls {
		return false
	}
	wait := failAfter
	for n := trustedFalls + 1; n < p.falls && wait < forgiven; n++ {
		wait *= 2
	}
	return p.steady < min(wait, forgiven)
}
