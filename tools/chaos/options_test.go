package main

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-seed", "7", "-seconds", "20", "-faults", "kill,cut"})
	if err != nil || o.seed != 7 || o.faulty != 20*time.Second || !reflect.DeepEqual(o.faults, []string{"kill", "cut"}) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, c := range []struct{ args, want string }{
		{"-faults kill,sabotage", `no fault is named "sabotage"`}, {"-minutes 0", "above zero"}, {"-minutes 1000", "two hours at most"}, {"more", "no arguments"},
		{"-past never", "it is off, within or beyond"}, {"-faults chain-empty", "needs -past beyond"}, {"-faults store-old -past off", "needs -past within"},
	} {
		if _, err := parseOptions(strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestSeedDrawsShapesAndFaults: the same seed draws the same, both shapes and all kinds of faults come about.
func TestSeedDrawsShapesAndFaults(t *testing.T) {
	shapes, kinds := map[shape]bool{}, map[string]bool{}
	for seed := range uint64(1000) {
		pick := func() (shape, string) {
			return options{}.draw(rand.New(rand.NewPCG(seed, 0))), draw(rand.New(rand.NewPCG(seed, 1)), faults).name
		}
		s, f := pick()
		if s2, f2 := pick(); s2 != s || f2 != f {
			t.Errorf("seed %d draws %v and %v, %s and %s", seed, s, s2, f, f2)
		}
		shapes[s], kinds[f] = true, true
	}
	if len(shapes) != 6 || len(kinds) != len(faults) {
		t.Errorf("%d shapes, %d kinds of faults of %d", len(shapes), len(kinds), len(faults))
	}
}
