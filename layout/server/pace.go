package server

import (
	"context"
	"time"

	"corfu/internal/sleep"
)

// pacer keeps what is copied to a rate. It is asked before each piece of a quarter of a MiB: megabytes that go at once stand before all
// that clients want of disks and processors meanwhile, however low the rate is on average.
type pacer struct {
	rate float64 // bytes a second
	due  time.Time
}

// paceLag is up to how much time that went by unused is made up for.
const paceLag = 10 * time.Millisecond

// sent says that so many bytes were.
func (p *pacer) sent(bytes int) {
	p.due = p.due.Add(time.Duration(float64(bytes) / p.rate * float64(time.Second)))
}

// wait waits until more may be sent, or ctx ends: then it gives its error.
func (p *pacer) wait(ctx context.Context) error {
	now := time.Now()
	if late := now.Add(-paceLag); p.due.Before(late) {
		p.due = late
	}
	return sleep.For(ctx, p.due.Sub(now))
}
