package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// server does one operation after the other, 100 µs each, and stands still once.
type server struct {
	free  time.Time
	stall func(n int) time.Duration // before operation n
	n     int
}

// begin is asynchronous: the operation ends when the server is through with it.
func (s *server) begin(_ context.Context, done func(error)) error {
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(100*us + s.stall(s.n))
	s.n++
	time.AfterFunc(s.free.Sub(now), func() { done(nil) })
	return nil
}

// blocking has room for one: whoever begins waits, as a client does whose slots are all in use. This is where coordinated omission
// would hide the stall.
func (s *server) blocking(ctx context.Context, done func(error)) error {
	over := make(chan error, 1)
	if err := s.begin(ctx, func(err error) { over <- err }); err != nil {
		return err
	}
	done(<-over)
	return nil
}

// TestStallShowsInFull: at 1000 operations a second for 2 s the server stands still for 400 ms: 400 operations should have begun
// meanwhile. They waited from 400 ms down to nothing, so a fifth of all did, whether the generator was held up as well or not.
func TestStallShowsInFull(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{stall: func(n int) time.Duration {
				if n == 1000 {
					return 400 * time.Millisecond
				}
				return 0
			}}
			begin := s.begin
			if blocking {
				begin = s.blocking
			}
			l, err := AtRate(t.Context(), 1000, 2*time.Second, begin, func(int) {})
			if err != nil || l.Count() != 2000 {
				t.Fatalf("%d operations, %v", l.Count(), err)
			}
			near := func(q float64, want time.Duration) {
				if got := l.At(q); got < want*9/10 || got > want*11/10 {
					t.Errorf("blocking %v: p%g is %v, want about %v", blocking, q, got, want)
				}
			}
			// Behind the stall a backlog of 400 is worked off at 10,000 a second while 1000 a second come in: in 44 ms, by some 444 operations.
			near(50, 100*us)
			near(77, 100*us)
			near(90, 220*time.Millisecond)
			near(99, 382*time.Millisecond)
			near(100, 400*time.Millisecond)
		})
	}
}

// TestClosedLoopHidesTheStall is why AtRate is: the same server, asked by one that waits for each answer, shows one slow operation.
func TestClosedLoopHidesTheStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{stall: func(n int) time.Duration {
			if n == 1000 {
				return 400 * time.Millisecond
			}
			return 0
		}}
		x, err := Time(t.Context(), 2000, func(ctx context.Context) error { return s.blocking(ctx, func(error) {}) })
		if err != nil || x.P99 > time.Millisecond {
			t.Errorf("p99 %v, %v", x.P99, err)
		}
	})
}

func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := &server{stall: func(int) time.Duration { return 0 }}
		ticks := 0
		l, err := AtRate(t.Context(), 250, 4*time.Second, s.begin, func(int) { ticks++ })
		if took := time.Since(began); err != nil || l.Count() != 1000 || took < 3990*time.Millisecond || took > 4010*time.Millisecond || ticks < 100 {
			t.Errorf("%d operations in %v, %d ticks, %v", l.Count(), took, ticks, err)
		}
	})
}

func TestRateEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		n := 0
		_, err := AtRate(t.Context(), 1000, time.Hour, func(_ context.Context, done func(error)) error {
			if n++; n == 5 {
				time.AfterFunc(time.Millisecond, func() { done(broken) })
				return nil
			}
			time.AfterFunc(time.Second, func() { done(nil) })
			return nil
		}, func(int) {})
		if !errors.Is(err, broken) || n > 8 {
			t.Errorf("%v after %d", err, n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err = AtRate(ctx, 10, time.Hour, func(_ context.Context, done func(error)) error { done(nil); return nil }, func(int) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the end of the context: %v", err)
		}
	})
}

func TestPlot(t *testing.T) {
	l := NewLatencies()
	for range 9000 {
		l.Record(90 * us)
	}
	for range 900 {
		l.Record(150 * us)
	}
	for range 99 {
		l.Record(1500 * us)
	}
	l.Record(7 * time.Millisecond)
	want := `up to   102 µs  9000  #####################  p50 90 µs, p90 90 µs
up to   205 µs   900  ##                     p99 150 µs
up to   410 µs     0
up to   819 µs     0
up to  1.64 ms    99  .                      p99.9 1.5 ms, p99.99 1.5 ms
up to  3.28 ms     0
up to  6.55 ms     0
up to  13.1 ms     1  .                      max 7 ms
`
	if got := l.Plot(72); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, width := range []int{0, 40, 80, 200} {
		for _, line := range strings.Split(l.Plot(width), "\n") {
			if n := len([]rune(line)); width >= 60 && n > width {
				t.Errorf("%d columns in %d: %s", n, width, line)
			}
		}
	}
	if got := NewLatencies().Plot(80); got != "nothing was measured\n" {
		t.Error(got)
	}
}
