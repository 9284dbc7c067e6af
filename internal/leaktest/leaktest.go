// Package leaktest fails each test that leaves a goroutine behind.
//
// A goroutine that outlives its test takes the processor from the next ones, fails with what was
// closed or removed under it, and panics if it says so to a test that has ended. Whether it does
// any of that depends on how fast the machine is.
//
// A package of tests calls [Run] in its TestMain; each of its top-level tests and fuzz targets is
// then checked after the last of its cleanups. The test ends only when its goroutines have ended,
// so those may use its testing.T until then. Goroutines that ran before the test are not its own. A
// test that has failed is not checked, and neither are those beside it: what it left undone has a
// reason already.
package leaktest

import (
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
)

// patience is how long after a test its goroutines may take to end. What was told to end needs a
// processor for it, and a loaded machine has none to spare for seconds.
const patience = 30 * time.Second

// Run runs the tests of m, checks each for goroutines that it leaves behind, and returns the code
// to exit with.
func Run(m *testing.M) int { return run(m, patience) }

func run(m *testing.M, patience time.Duration) int {
	c := checker{patience: patience}
	for i, tests := 0, list[testing.InternalTest](m, "tests"); i < len(tests); i++ {
		f := tests[i].F
		tests[i].F = func(t *testing.T) { c.begin(t); f(t) }
	}
	for i, targets := 0, list[testing.InternalFuzzTarget](m, "fuzzTargets"); i < len(targets); i++ {
		f := targets[i].Fn
		targets[i].Fn = func(fz *testing.F) { c.begin(fz); f(fz) }
	}
	return m.Run()
}

// list returns a list of tests that m will run. It has no exported name: the alternative is a call
// in each test, which the next test forgets.
func list[T any](m *testing.M, field string) []T {
	v := reflect.ValueOf(m).Elem().FieldByName(field)
	if !v.IsValid() || v.Type() != reflect.TypeFor[[]T]() {
		panic(fmt.Sprintf("leaktest: testing.M of this Go has no field %s of type %v", field, reflect.TypeFor[[]T]()))
	}
	return *(*[]T)(unsafe.Pointer(v.UnsafeAddr()))
}

// checker checks when no test runs: of tests that run side by side, the last one answers for all.
type checker struct {
	patience time.Duration

	mu     sync.Mutex
	run    int           // tests that run now
	failed bool          // one of those that ran since then
	before goleak.Option // ignores what ran before the first of them
}

func (c *checker) begin(t testing.TB) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run++; c.run == 1 {
		c.before, c.failed = goleak.IgnoreCurrent(), false
	}
	t.Cleanup(func() { c.end(t) }) // the first to be registered, so the last to run
}

func (c *checker) end(t testing.TB) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = c.failed || t.Failed()
	if c.run--; c.run > 0 || c.failed {
		return
	}
	http.DefaultClient.CloseIdleConnections() // each has two goroutines, for the next request of anyone
	if err := wait(c.patience, c.before); err != nil {
		t.Errorf("goroutines that the test started are running %v after it: end them, and wait for that, before it returns\n%v", c.patience, err)
	}
}

// wait waits until no goroutine runs but those that before ignores, and returns an error that shows
// them if some still do after patience.
func wait(patience time.Duration, before goleak.Option) error {
	for end := time.Now().Add(patience); ; {
		err := goleak.Find(before) // tries for half a second
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
