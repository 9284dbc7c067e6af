package client

import (
	"hash/fnv"
	"os"
	"testing"
	"time"

	"corfu/layout"
	"corfu/rdma"
)

// Break cuts off all of l's connections to units, in mid-flight.
func Break(l *Log) {
	for _, k := range l.current().units {
		if s := k.cur.Load(); s != nil {
			s.fail(rdma.ErrBroken)
		}
	}
}

// Until polls until ok, for as long as a busy machine may need.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// InLab reports whether the test runs in the lab.
func InLab() bool { return inLab() }

// ForgetReadRun makes l's sessions those of units that know no ReadRun.
func ForgetReadRun(l *Log) {
	for _, k := range l.current().units {
		if s := k.cur.Load(); s != nil {
			s.readRun = 0
		}
	}
}

// ForgetProgress makes l's sessions those of units that do not say how far they are.
func ForgetProgress(l *Log) {
	for _, k := range l.current().units {
		if s := k.cur.Load(); s != nil {
			s.progress.offered = false
		}
	}
}

func inLab() bool { return os.Getenv("CORFU_LAB") == "1" }

// Durabilities runs the test with both. In the lab, where a cluster takes seconds, it runs it with one, which one its name
// decides: what tells flash from memory is shown over tcp, and over verbs half of the tests post what each of them posts.
func Durabilities(t *testing.T, test func(*testing.T, layout.Durability)) {
	all := []layout.Durability{layout.Flash, layout.Memory}
	if inLab() {
		h := fnv.New32a()
		h.Write([]byte(t.Name()))
		i := h.Sum32() % 2
		all = all[i : i+1]
	}
	AllDurabilities(t, all, test)
}

// AllDurabilities runs the test with each of these.
func AllDurabilities(t *testing.T, all []layout.Durability, test func(*testing.T, layout.Durability)) {
	for _, d := range all {
		t.Run(d.String(), func(t *testing.T) { test(t, d) })
	}
}

// NotInLab skips, over verbs, a test whose matter is not the fabric: a cluster takes seconds there.
func NotInLab(t *testing.T, matter string) {
	t.Helper()
	if inLab() {
		t.Skip("the same over verbs as over tcp: " + matter)
	}
}
