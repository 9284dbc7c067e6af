package bench

import (
	"context"
	"sync"
	"time"

	"corfu/internal/sleep"
)

// AtRate begins perSecond operations a second for d, and returns how long each took from the moment at which it was to begin: one that
// begins late, because those before it hold everything up, has waited like all others. Latencies that are taken
// from the real begin leave that out (coordinated omission), and look best when a server stands still.
//
// begin begins an operation and may block; done is called once for each that it began without error, from any goroutine. tick is
// told how many were begun, now and then. After an error nothing more is begun; it waits for all that was.
func AtRate(ctx context.Context, perSecond int, d time.Duration, begin func(ctx context.Context, done func(error)) error, tick func(begun int)) (Latencies, error) {
	l := NewLatencies()
	var mu sync.Mutex
	var failed error
	var running sync.WaitGroup
	start := time.Now()
	total := int(d.Seconds() * float64(perSecond))
	for i := 0; i < total; i++ {
		due := start.Add(time.Duration(float64(i) / float64(perSecond) * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			tick(i)
			if err := sleep.For(ctx, wait); err != nil {
				fail(&mu, &failed, err)
				break
			}
		}
		mu.Lock()
		over := failed != nil
		mu.Unlock()
		if over {
			break
		}
		running.Add(1)
		err := begin(ctx, func(err error) {
			took := time.Since(due)
			mu.Lock()
			if err == nil {
				l.Record(took)
			} else if failed == nil {
				failed = err
			}
			mu.Unlock()
			running.Done()
		})
		if err != nil {
			running.Done()
			fail(&mu, &failed, err)
			break
		}
	}
	running.Wait()
	tick(total)
	return l, failed
}

// fail keeps the first error.
func fail(mu *sync.Mutex, to *error, err error) {
	mu.Lock()
	defer mu.Unlock()
	if *to == nil {
		*to = err
	}
}
