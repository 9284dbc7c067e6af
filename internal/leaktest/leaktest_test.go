package leaktest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// child in the environment makes the tests named TestChild do something. They run in a process of
// their own, where they may fail.
const child = "CORFU_LEAKTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		os.Exit(run(m, time.Millisecond))
	}
	os.Exit(Run(m))
}

func isChild(t *testing.T) {
	if os.Getenv(child) == "" {
		t.Skip("run by another test")
	}
}

func stay() { select {} }

func TestChildLeaves(t *testing.T) {
	isChild(t)
	go stay()
}

func TestChildFails(t *testing.T) {
	isChild(t)
	go stay()
	t.Fatal("of itself")
}

// TestChildEnds logs from a goroutine that its last cleanup ends, and that nobody waits for.
func TestChildEnds(t *testing.T) {
	isChild(t)
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	go func() {
		<-end
		for range 1000 {
			t.Log("late")
		}
	}()
}

// TestChildSideBySide starts tests that end in any order, one of which leaves a goroutine.
func TestChildSideBySideA(t *testing.T) { isChild(t); t.Parallel(); go stay() }
func TestChildSideBySideB(t *testing.T) { isChild(t); t.Parallel() }

// TestChildBesideA fails and leaves a goroutine beside one that does neither.
func TestChildBesideA(t *testing.T) { isChild(t); t.Parallel(); go stay(); t.Fatal("of itself") }
func TestChildBesideB(t *testing.T) { isChild(t); t.Parallel() }

func FuzzChildLeaves(f *testing.F) {
	if os.Getenv(child) == "" {
		f.Skip("run by another test")
	}
	f.Add(1)
	f.Fuzz(func(*testing.T, int) { go stay() })
}

func TestTheTestThatLeavesAGoroutineFails(t *testing.T) {
	const blame = "leaktest.stay"
	for _, c := range []struct {
		name  string
		fails string // the test that is named; the empty string means none
		shows bool   // the goroutine
	}{
		{"^TestChildLeaves$", "TestChildLeaves", true},
		{"^TestChildFails$", "TestChildFails", false},
		{"^TestChildEnds$", "", false},
		{"^TestChildSideBySide", "TestChildSideBySide", true},
		{"^TestChildBeside", "TestChildBesideA", false},
		{"^FuzzChildLeaves$", "FuzzChildLeaves", true},
		{"^TestChild(Leaves|Ends)$", "TestChildLeaves", true},
	} {
		cmd := exec.Command(os.Args[0], "-test.run", c.name, "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		s := string(out)
		failed := strings.Count(s, "--- FAIL: ")
		if (err != nil) != (c.fails != "") || failed > 1 || !strings.Contains(s, "--- FAIL: "+c.fails) && c.fails != "" || strings.Contains(s, blame) != c.shows {
			t.Errorf("%s: %v, %d failed; want %q to fail alone, and that it shows %s: %v\n%s", c.name, err, failed, c.fails, blame, c.shows, out)
		}
	}
}
