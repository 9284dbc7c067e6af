package client

import (
	"context"
	"sync"
)

// stage is a step that many operations take together. What is added is given to work in the order in which it came, all that is ready
// at a time: what comes while work runs is the next call's. The goroutine that calls work exists while there is something to do.
type stage[T any] struct {
	start func() // begins run on a goroutine
	work  func(ctx context.Context, ready []T)

	mu      sync.Mutex
	ready   []T
	taken   []T // the last call's, to be used again
	running bool
}

// setup makes the stage one of work. starter gives what starts a function, over and over: that is made once, as starts are on the fast path.
func (s *stage[T]) setup(starter func(func(context.Context)) func(), work func(context.Context, []T)) {
	s.start, s.work = starter(s.run), work
}

// add hands x over. It never waits.
func (s *stage[T]) add(x ...T) {
	if len(x) == 0 {
		return
	}
	s.mu.Lock()
	s.ready = append(s.ready, x...)
	start := !s.running
	s.running = true
	s.mu.Unlock()
	if start {
		s.start()
	}
}

func (s *stage[T]) run(ctx context.Context) {
	for {
		s.mu.Lock()
		if len(s.ready) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		now := s.ready
		s.ready, s.taken = s.taken[:0], now
		s.mu.Unlock()
		s.work(ctx, now)
		clear(now)
	}
}
