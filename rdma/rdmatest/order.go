package rdmatest

import (
	"errors"
	"sync"
	"time"

	"corfu/rdma"
	"corfu/rdma/selftest"
)

// orderTrials is how many there are even where all other tests of races try a tenth as often.
const orderTrials = 100_000 / slowdown

// testPayloadBeforeCompareSwap proves rule R6's ground: whoever sees the effect of a CAS sees
// the whole of the WRITE before it on the connection. The CPU of the target and a reader on a connection of
// its own look on; so does the writer at each completion.
func testPayloadBeforeCompareSwap(e *env) {
	l := e.listen()
	n := min(trials(1_000_000, 2000), orderTrials)
	target := e.alloc(selftest.OrderTarget)
	region := e.register(target, 0, target.Len(), all)
	source, sink := e.alloc(selftest.OrderSource), e.alloc(selftest.OrderSink)
	writer, _ := e.connect(l, rdma.ConnOptions{})
	reader, _ := e.connect(l, rdma.ConnOptions{})
	o := &selftest.Order{Target: region.Remote(0), Memory: target}

	var wg sync.WaitGroup
	var errs [2]error
	var fresh [2]int
	wg.Add(2)
	go func() { defer wg.Done(); fresh[0], errs[0] = o.WatchByCPU() }()
	go func() { defer wg.Done(); fresh[1], errs[1] = o.WatchByRead(e.ctx, reader, sink) }()
	start := time.Now()
	err := o.Write(e.ctx, writer, source, n)
	took := time.Since(start)
	o.Stop()
	wg.Wait()
	e.check(errors.Join(err, errs[0], errs[1]))
	e.Logf("%d trials in %v, seen fresh by the CPU %d times, by READ %d times", n, took.Round(time.Millisecond), fresh[0], fresh[1])
	if fresh[0] == 0 || fresh[1] == 0 {
		e.Error("an observer saw nothing")
	}
}
