package sim

import (
	"strings"
	"testing"
	"time"

	"corfu/layout"
)

// hunt runs seeds until one finds something wrong, and gives how many it took; 0: none of them did.
func hunt(t *testing.T, most int, b Mutant, lead func(*Plan)) (int, error) {
	return huntFor(t, most, b, lead, "")
}

// huntFor hunts for something wrong that is called so.
func huntFor(t *testing.T, most int, b Mutant, lead func(*Plan), what string) (int, error) {
	for i := range most {
		p := NewPlan(*seedFlag + uint64(i))
		p.Weird.Broken, p.Past, p.Follows = b, PastNone, false
		if lead != nil {
			lead(&p)
		}
		if res := execute(t, p); res.Err != nil && strings.Contains(res.Err.Error(), what) {
			if *traceFlag {
				t.Log(res)
			}
			return i + 1, res.Err
		}
	}
	return 0, nil
}

// failing leads to units that are left out and come back.
func failing(p *Plan) {
	p.Shape.Heals, p.Loses, p.Large, p.Clients, p.Ops, p.Think = true, false, false, 3, 40, 5*time.Millisecond
	p.Faults, p.Gap, p.Only = 12, 12*time.Millisecond, []string{"crash unit", "cut", "pause"}
}

// forgetting leads to a unit whose store goes back while the other one of its chain is away.
func forgetting(p *Plan) {
	failing(p)
	p.OnlyOf, p.Keeps = 2, true
	p.Past, p.Shape.Chains, p.Shape.Replicas, p.Shape.Spares, p.Shape.Durability = PastUnits, 1, 2, 0, layout.Flash
	p.Faults, p.Gap, p.Only = 30, 50*time.Millisecond, []string{"crash unit", "cut", "pause", "reconfigure"}
}

// lingering leads to a unit whose store goes back within an epoch, long after the layout store has
// noted what it had (rule R23).
func lingering(p *Plan) {
	forgetting(p)
	p.Faults, p.Gap, p.Think, p.Ops, p.Weird.Slow = 30, 2*time.Second, 300*time.Millisecond, 120, 0
	p.Only = []string{"break", "crash unit"} // few epochs
}

// restored leads to a single layout server whose directory goes back while units come and go (rule
// R25).
func restored(p *Plan) {
	failing(p)
	p.Past, p.Shape.Chains, p.Shape.Replicas, p.Shape.Layouts, p.Shape.Durability = PastLayout, 1, 2, 1, layout.Flash
	p.Faults, p.Gap, p.Only = 20, 50*time.Millisecond, []string{"crash unit", "cut", "pause"}
}

// givenUp leads to a unit that is given up with --accept-loss, and whose chain wants a unit (rule
// R27).
func givenUp(p *Plan) {
	failing(p)
	p.Past, p.Shape.Spares, p.Shape.Chains, p.Shape.Replicas, p.Shape.Durability, p.Faults = PastLoss, 0, 1, 2, layout.Flash, 0
}

// crowded leads to many appends at once at one chain, and no faults.
func crowded(p *Plan) {
	p.Shape.Chains, p.Large, p.Keeps, p.Weird.Slow = 1, false, true, 0
	p.Clients, p.Workers, p.Ops, p.Think, p.Faults = 5, 4, 40, 1, 0
}

// scribbling leads to a busy disk, so that pages wait while their clients write to their slots again.
func scribbling(p *Plan) {
	crowded(p)
	p.Shape.Durability, p.Weird.Disk, p.Weird.Scribble = layout.Flash, 20*time.Millisecond, true
	p.Clients, p.Workers, p.Ops = 3, 2, 20
}

// The checks find every rule that is broken below the programs.
func TestFindsWhatIsBroken(t *testing.T) {
	for _, m := range []struct {
		mutant Mutant
		most   int // seeds
		lead   func(*Plan)
	}{
		{CASBeforePayload, 10, nil},
		{VolatileFlash, 30, nil},
		{NothingCopied, 60, nil},
		{MembersWiped, 20, nil},
		{NobodyWiped, 1500, failing}, // one in 150 finds it
		{RelaxedOrdering, 10, nil},
		{TwoNICs, 150, crowded},
	} {
		t.Run(string(m.mutant), func(t *testing.T) {
			if raceDetector && m.most > 1000 {
				t.Skip("many seeds: found without the race detector (make test-sim)")
			}
			n, err := hunt(t, m.most, m.mutant, m.lead)
			if n == 0 {
				t.Fatalf("not found in %d seeds", m.most)
			}
			t.Logf("found by seed %d of them: %.300v", n, err)
		})
	}
}

// Clients that write to their slots after publishing them harm nobody else (rule R5).
func TestScribblersDoNoHarm(t *testing.T) {
	if n, err := hunt(t, 10, Sound, scribbling); n != 0 {
		t.Errorf("seed %d: %v", n, err)
	}
}

// Stores that go back while units come and go lose nothing (rules R21 to R25).
func TestStoresThatGoBackAreBorne(t *testing.T) {
	seeds := 15
	if raceDetector { // ten times as slow; make test-sim runs all of them
		seeds = 2
	}
	for name, lead := range map[string]func(*Plan){"forgetting": forgetting, "lingering": lingering, "restored": restored, "givenUp": givenUp} {
		if n, err := hunt(t, seeds, Sound, lead); n != 0 {
			t.Errorf("%s: seed %d: %v", name, n, err)
		}
	}
}
