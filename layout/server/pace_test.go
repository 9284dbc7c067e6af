package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// In any stretch of time no more is sent than the rate allows, one piece, and what paceLag makes up for.
func TestPaceIsEven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, piece = 64 << 20, 256 << 10
		p := &pacer{rate: rate, due: time.Now()}
		began := time.Now()
		var at []time.Duration
		for i := range 400 {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			at = append(at, time.Since(began))
			p.sent(piece)
			switch {
			case i == 200:
				time.Sleep(time.Second) // a disk that hangs
			case i%3 == 0:
				time.Sleep(2 * time.Millisecond) // what a piece takes
			}
		}
		for i := range at {
			for j := i; j < len(at); j++ {
				most := (at[j]-at[i]+paceLag).Seconds()*rate + 2*piece
				if sent := (j - i + 1) * piece; float64(sent) > most {
					t.Fatalf("%d bytes between %v and %v, at most %.0f are due", sent, at[i], at[j], most)
				}
			}
		}
		// But for the second in which nothing went, and what cannot be made up for of it, the rate is reached.
		took := at[len(at)-1] - time.Second
		if ideal := time.Duration(float64(len(at)*piece) / rate * float64(time.Second)); took > ideal+paceLag {
			t.Errorf("took %v, at the rate it is %v", took, ideal)
		}
	})
}

func TestPaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := &pacer{rate: 1, due: time.Now()}
		p.sent(1000)
		if err := p.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}
