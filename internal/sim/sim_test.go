package sim

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 1, "first seed")
	runsFlag  = flag.Int("sim.runs", 20, "how many seeds")
	traceFlag = flag.Bool("sim.trace", false, "print the history of every run")
	logFlag   = flag.Bool("sim.log", false, "print what the programs log")
)

// scratch is a directory in memory, if the machine has one: nothing here is about the disk.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "corfu-sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	link := filepath.Join(t.TempDir(), "shm") // a store takes what begins with /dev for a device
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// execute does one run in a bubble, with every source of chance fixed that can be.
func execute(t *testing.T, p Plan) (res Result) {
	dir := scratch(t)
	var log *slog.Logger
	if *logFlag {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	cryptotest.SetGlobalRandom(t, p.Seed)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	// A lock held while the simulated clock should go on would stop the run for ever.
	dead := time.AfterFunc(2*time.Minute, func() {
		debug.SetTraceback("all")
		panic("seed " + strconv.FormatUint(p.Seed, 10) + " does not end")
	})
	defer dead.Stop()
	synctest.Test(t, func(t *testing.T) { res = Execute(p, dir, log) })
	return res
}

func TestOneChainWithoutFaults(t *testing.T) {
	p := Plan{Seed: *seedFlag, Clients: 1, Workers: 1, Ops: 20, Think: time.Millisecond, Scan: 2 * time.Millisecond, Shape: Shape{Chains: 1, Replicas: 2, Layouts: 1, Durability: 1}, Weird: Weird{Late: time.Microsecond}}
	began := time.Now()
	res := execute(t, p)
	if res.Err != nil || *traceFlag {
		t.Log(res)
	}
	if res.Err != nil {
		t.Error(res.Err)
	}
	t.Log(time.Since(began), res.Took)
}
