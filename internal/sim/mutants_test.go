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
		most   int // seeds
	}{
		{CASBeforePayload, 10},
		{VolatileFlash, 30},
		{NothingCopied, 60},
		{MembersWiped, 20},
	} {
		t.Run(string(m.mutant), func(t *testing.T) {
			n, err := hunt(t, m.most, m.mutant, nil)
			if n == 0 {
				t.Fatalf("not found in %d seeds", m.most)
			}
			t.Logf("found by seed %d of them: %.300v", n, err)
		})
	}
}
