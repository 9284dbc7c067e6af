package pausebench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"corfu/client"
)

// load is appenders with one append outstanding each.
type load struct {
	log     *client.Log
	payload []byte
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	worst time.Duration // of the appends that ended since mark
	ended int           // since mark
	err   error         // the first
	moved chan struct{} // closed, and made anew, with each append that ends
}

func startLoad(ctx context.Context, log *client.Log, appenders, bytes int) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{log: log, payload: make([]byte, bytes), stop: stop, moved: make(chan struct{})}
	for range appenders {
		l.running.Go(func() { l.run(ctx) })
	}
	return l
}

func (l *load) run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		_, err := l.log.Append(ctx, l.payload)
		took := time.Since(began)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		if err != nil && l.err == nil {
			l.err = err
		}
		l.worst = max(l.worst, took)
		l.ended++
		close(l.moved)
		l.moved = make(chan struct{})
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// mark begins to look at the appends that end from now on.
func (l *load) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.worst, l.ended = 0, 0
}

// await waits until ok, which is asked after each append that ended, and gives the longest append since mark.
func (l *load) await(ctx context.Context, what string, ok func(ended int) bool) (time.Duration, error) {
	for {
		l.mu.Lock()
		worst, ended, err, moved := l.worst, l.ended, l.err, l.moved
		l.mu.Unlock()
		switch {
		case err != nil:
			return worst, fmt.Errorf("append: %w", err)
		case ok(ended):
			return worst, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return worst, fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}
