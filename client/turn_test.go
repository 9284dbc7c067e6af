package client_test

import (
	"sync"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// Entries of AppendAsync from one goroutine stand in the log in the order of the calls, whatever
// their sizes.
func TestAsyncAppendsKeepTheirOrder(t *testing.T) {
	c := start(t, devcluster.Options{Chains: 2})
	l := c.open(client.Options{})
	fillLog(t, l, 1) // sessions stand
	const n = 3000
	at := make([]layout.Position, n)
	var wg sync.WaitGroup
	for i := range n {
		size := 10
		if i%500 == 17 {
			size = 20_000
		}
		wg.Add(1)
		if err := l.AppendAsync(within(t), make([]byte, size), func(p layout.Position, err error) {
			if err != nil {
				t.Error(err)
			}
			at[i] = p
			wg.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	lost := 0 // a busy machine may take longer than the hole time-out between a token and its entry
	for i := 1; i < n; i++ {
		if at[i] < at[i-1] {
			lost++
		}
	}
	if lost > n/100 {
		t.Errorf("%d of %d entries do not stand behind the one that was appended before", lost, n)
	}
}
