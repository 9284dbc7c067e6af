package sim

import "testing"

// hunt runs seeds until one finds something wrong, and gives how many it took; 0: none of them did.
func hunt(t *testing.T, most int, b Mutant, lead func(*Plan)) (int, error) {
	for i := range most {
		p := NewPlan(*seedFlag + uint64(i))
		p.Weird.Broken = b
		if lead != nil {
			lead(&p)
		}
		if res := execute(t, p); res.Err != nil {
			if *traceFlag {
				t.Log(res)
			}
			return i + 1, res.Err
		}
	}
	return 0, nil
}

// The checks find every rule that is broken below the programs.
func TestFindsWhatIsBroken(t *testing.T) {
	for _, m := range []struct {
		mutant Mutant
		most   int         // seeds
		lead   func(*Plan) // to where the rule matters; nil: any run will do
	}{
		{EpochNotCompared, 60, func(p *Plan) {
			p.Faults, p.Only = 16, []string{"break under a CAS", "reconfigure"}
		}},
		{CASBeforePayload, 10, nil},
		{VolatileFlash, 30, nil},
		{NothingCopied, 60, nil},
		{MembersWiped, 20, nil},
	} {
		t.Run(string(m.mutant), func(t *testing.T) {
			n, err := hunt(t, m.most, m.mutant, m.lead)
			if n == 0 {
				t.Fatalf("not found in %d seeds", m.most)
			}
			t.Logf("found by seed %d of them: %.300v", n, err)
		})
	}
}

// Operations that land after their connection was closed are harmless: keys and compared values stand behind it.
func TestLateArrivalsAloneDoNoHarm(t *testing.T) {
	if n, err := hunt(t, 30, LateArrivals, func(p *Plan) {
		p.Faults, p.Only = 16, []string{"break under a CAS", "reconfigure"}
	}); n != 0 {
		t.Errorf("seed %d: %v", *seedFlag+uint64(n)-1, err)
	}
}
