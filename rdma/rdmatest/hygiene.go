package rdmatest

import (
	"errors"
	"net"
	"os"
	"runtime"
	"time"

	"corfu/rdma"
)

// testHygiene opens and closes everything, many times and in all the ways a connection ends:
// neither goroutines nor file descriptors stay behind.
func testHygiene(e *env) {
	round := func() {
		l, err := e.dev.Listen(net.JoinHostPort(e.dev.Info().Addr, "0"))
		e.check(err)
		for way := range 4 {
			m, err := e.dev.Alloc(8192)
			e.check(err)
			r, err := e.dev.Register(m, 0, 4096, all)
			e.check(err)
			near, far, err := e.tryConnect(l, rdma.ConnOptions{})
			e.check(err)
			e.works("connection", near, m.Slice(4096, 8), r.Remote(0))
			if way == 3 { // refused
				at := r.Remote(0)
				e.check(r.Close())
				b := rdma.NewBatch(1)
				b.FetchAdd(at, 1)
				if err := near.Do(e.ctx, b); !errors.Is(err, rdma.ErrRemoteAccess) {
					e.Error(err)
				}
			}
			ends := []rdma.Conn{near, far}
			if way == 1 {
				ends = []rdma.Conn{far, near}
			}
			for _, c := range ends {
				e.check(c.Close())
			}
			e.check(r.Close())
			e.check(m.Close())
		}
		e.check(l.Close())
	}
	round() // what a provider keeps for good it has now
	goroutines, fds := runtime.NumGoroutine(), openFiles(e)
	rounds := trials(20, 5)
	for range rounds {
		round()
	}
	// Less than one for each round is no leak: a timer's goroutine, a poller's descriptor.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		g, f := runtime.NumGoroutine()-goroutines, openFiles(e)-fds
		if g < rounds && f < rounds {
			return
		}
		if time.Now().After(end) {
			stacks := make([]byte, 64<<10)
			e.Fatalf("%d goroutines and %d descriptors more after %d rounds\n%s", g, f, rounds, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func openFiles(e *env) int {
	e.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	e.check(err)
	return len(list)
}
