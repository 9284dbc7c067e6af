//go:build mutants

package sim

import (
	"strings"
	"testing"
	"time"

	"corfu/internal/mutant"
	"corfu/layout"
)

// The checks find every rule that is broken in the programs.
func TestFindsBrokenRules(t *testing.T) {
	for _, m := range []struct {
		name string
		rule *bool
		most int         // seeds
		lead func(*Plan) // to where the rule matters; nil: any run will do
	}{
		{"R1", &mutant.R1, 60, crowded},
		{"R2", &mutant.R2, 100, nil},
		{"R4", &mutant.R4, 60, func(p *Plan) {
			crowded(p)
			p.Clients, p.Workers, p.Ops, p.Weird.Slow, p.Weird.Late = 3, 2, 60, 0.1, 30*time.Millisecond
		}},
		{"R5", &mutant.R5, 30, scribbling},
		{"R6", &mutant.R6, 60, func(p *Plan) {
			p.Shape.Durability, p.Scan, p.Think, p.Ops = layout.Memory, 30*time.Millisecond, 1, 30
			p.Faults, p.Only = 6, []string{"pause"}
		}},
		{"R8", &mutant.R8, 1500, func(p *Plan) {
			p.Keeps, p.Large, p.Faults, p.Only = true, false, 12, []string{"reconfigure", "pause", "cut"}
		}},
		{"R9", &mutant.R9, 300, func(p *Plan) {
			p.Think, p.Ops, p.Faults, p.Gap, p.Only = time.Millisecond, 25, 20, 2*time.Millisecond, []string{"break under a CAS"}
		}},
		{"R10", &mutant.R10, 100, nil},
		{"R11", &mutant.R11, 500, func(p *Plan) {
			p.Shape.Durability, p.Weird.Disk, p.Think, p.Workers = layout.Flash, 5*time.Millisecond, 100*time.Microsecond, 2
			p.Faults, p.Only = 3, []string{"power cut"}
		}},
		{"R15", &mutant.R15, 300, func(p *Plan) {
			p.Shape.Durability, p.Scan, p.Think, p.Ops = layout.Memory, 30*time.Millisecond, 1, 30
			p.Faults, p.Only, p.Clients, p.Workers = 6, []string{"reconfigure"}, 3, 2
			p.Weird.Slow, p.Weird.Late = 0.1, 5*time.Millisecond
		}},
		{"R16", &mutant.R16, 200, func(p *Plan) {
			failing(p)
			p.Shape.Chains, p.Shape.Replicas, p.Shape.Durability = 1, 2, layout.Memory
			p.Faults, p.Gap, p.Only = 12, 50*time.Millisecond, []string{"crash unit", "partition", "pause"}
		}},
		{"R18", &mutant.R18, 500, func(p *Plan) {
			failing(p)
			p.Shape.Layouts, p.Faults, p.Only = 3, 20, []string{"elect", "reconfigure", "crash layout server", "pause"}
		}},
		{"R19", &mutant.R19, 200, func(p *Plan) {
			failing(p)
			p.Shape.Chains, p.Shape.Replicas, p.Shape.Durability = 1, 2, layout.Memory
			p.Faults, p.Gap, p.Only = 12, 50*time.Millisecond, []string{"crash unit", "partition", "pause"}
		}},
		{"R20", &mutant.R20, 60, nil},
		{"R22", &mutant.R22, 1000, forgetting},
	} {
		t.Run(m.name, func(t *testing.T) {
			*m.rule = true
			defer func() { *m.rule = false }()
			n, err := hunt(t, m.most, Sound, m.lead)
			if n == 0 {
				t.Fatalf("not found in %d seeds", m.most)
			}
			t.Logf("found by seed %d of them: %.300v", n, err)
		})
	}
}

// Without rule R12 the reader that is left behind calls unwritten what was acknowledged before it asked.
func TestFindsBrokenR12(t *testing.T) {
	mutant.R12 = true
	defer func() { mutant.R12 = false }()
	h, read := leftBehind(t)
	if err := h.known.Check(); err == nil {
		t.Fatalf("not found; read: %v", read)
	} else {
		t.Log(err)
	}
}

// Without rule R14 a late seal, and what was to follow it, reach a unit that serves a newer epoch already. Rules R22 and R24 stand behind it:
// the unit's note shows an older epoch then, and the late order names another start. They are broken as well, to see R14 alone.
func TestFindsBrokenR14(t *testing.T) {
	for _, m := range []struct {
		name     string
		rule     *bool
		restarts bool
	}{
		{"a promise that a restart forgets", &mutant.R14, true},
		{"sealed at less than was promised", &mutant.R14Lower, false},
	} {
		t.Run(m.name, func(t *testing.T) {
			*m.rule, mutant.R22, mutant.R24 = true, true, true
			defer func() { *m.rule, mutant.R22, mutant.R24 = false, false, false }()
			if err := lateSeal(t, m.restarts).known.Check(); err == nil {
				t.Fatal("not found")
			} else {
				t.Log(err)
			}
		})
	}
}

// Without rule R27 the true store that is found again is wiped.
func TestFindsBrokenR27(t *testing.T) {
	mutant.R27 = true
	defer func() { mutant.R27 = false }()
	n, err := huntFor(t, 20, Sound, givenUp, "wiped without a word")
	if n == 0 {
		t.Fatal("not found")
	}
	t.Logf("found by seed %d of them: %.300v", n, err)
}

// Scripts find what is lost without rules R21, R23 and R25, whatever chance does.
func TestFindsBrokenPastInScripts(t *testing.T) {
	for _, m := range []struct {
		name   string
		rule   *bool
		script func(*testing.T) error
	}{
		{"R21", &mutant.R21, func(t *testing.T) error { return tailGoesBack(t, 1) }},
		{"R23", &mutant.R23, func(t *testing.T) error { return tailGoesBack(t, 2) }},
		{"R25", &mutant.R25, layoutForgets},
	} {
		t.Run(m.name, func(t *testing.T) {
			*m.rule = true
			defer func() { *m.rule = false }()
			err := m.script(t)
			if err == nil || !strings.Contains(err.Error(), "linearizable") {
				t.Fatalf("not found: %v", err)
			}
			t.Log(err)
		})
	}
}

// Without rule R26 the log is founded anew over units that hold it. Rule R25 stands behind it, and is broken as well: the units' notes name
// records that the layout store does not know.
func TestFindsBrokenR26(t *testing.T) {
	mutant.R25, mutant.R26 = true, true
	defer func() { mutant.R25, mutant.R26 = false, false }()
	n, err := huntFor(t, 30, Sound, restored, "linearizable")
	if n == 0 {
		t.Fatal("not found")
	}
	t.Logf("found by seed %d of them: %.300v", n, err)
}

// What rule R1 is for is the NIC: where no CPU gets in between the halves of an atomic, that mutant does no harm.
func TestFindsNoHarmWhereR1IsNotNeeded(t *testing.T) {
	mutant.R1 = true
	defer func() { mutant.R1 = false }()
	n, err := hunt(t, 6, Sound, func(p *Plan) {
		crowded(p)
		p.Weird.Whole = true
	})
	if n != 0 {
		t.Errorf("seed %d: %v", n, err)
	}
}

// Without rule R13 a late verdict makes an epoch ACTIVE that was given up, and what the one after it acknowledged is lost.
func TestFindsBrokenR13(t *testing.T) {
	mutant.R13 = true
	defer func() { mutant.R13 = false }()
	if err := lateVerdict(t); err == nil {
		t.Fatal("not found")
	} else {
		t.Log(err)
	}
}
