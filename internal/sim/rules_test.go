//go:build mutants

package sim

import (
	"testing"

	"corfu/internal/mutant"
)

// The checks find every rule that is broken in the programs.
func TestFindsBrokenRules(t *testing.T) {
	for _, m := range []struct {
		name string
		rule *bool
		most int // seeds
	}{
		{"R2", &mutant.R2, 300}, {"R3", &mutant.R3, 300}, {"R6", &mutant.R6, 300}, {"R9", &mutant.R9, 300}, {"R10", &mutant.R10, 300},
		{"R11", &mutant.R11, 300}, {"R15", &mutant.R15, 300},
	} {
		t.Run(m.name, func(t *testing.T) {
			*m.rule = true
			defer func() { *m.rule = false }()
			n, err := hunt(t, m.most, Sound)
			if n == 0 {
				t.Fatalf("not found in %d seeds", m.most)
			}
			t.Logf("found by seed %d of them: %.300v", n, err)
		})
	}
}
