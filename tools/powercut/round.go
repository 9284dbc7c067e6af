package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// poll is how often the host looks for new lines.
const poll = 5 * time.Millisecond

// cutPatience is how much longer than planned a cut waits for the appends that are to be acknowledged before it.
const cutPatience = 30 * time.Second

// result is how a boot went.
type result struct {
	phase    fact          // the last step that was reached
	boot     time.Duration // until the program ran
	recovery time.Duration // from there to the load; 0: not reached
	load     time.Duration // from there to the cut; 0: not reached
	acks     int
	volatile uint64 // bytes in the disk's cache at the cut
	flushes  uint64
	failed   string // why the guest's program gave up
}

func (r result) String() string {
	switch {
	case r.load > 0:
		return fmt.Sprintf("after %.1f s boot, %.1f s recovery, %.1f s load with %d appends", r.boot.Seconds(), r.recovery.Seconds(), r.load.Seconds(), r.acks)
	case r.phase == factEnd:
		return fmt.Sprintf("after %.1f s boot", r.boot.Seconds())
	}
	return fmt.Sprintf("after %.1f s boot, in recovery behind %q", r.boot.Seconds(), r.phase)
}

// round boots once and lets the witness hear everything; unless it is the last, it cuts the power as planned. An error
// says what is wrong with what was found, or why the round could not be run.
func (h *host) round(ctx context.Context, image string, p plan, w *witness) (r result, err error) {
	m, err := h.boot(p.name, image, p.leak, p.command())
	if err != nil {
		return r, err
	}
	defer m.stop()
	began := time.Now()
	var cutAt, loadAt, upAt time.Time
	wasCut := false
	hear := func() error {
		lines, err := m.hear()
		for _, l := range lines {
			w.hear(l)
			switch l.fact {
			case factAck:
				r.acks++
				continue
			case factRead, factLost, factFlash:
				continue
			case factFailed:
				r.failed = l.text
			case factBoot:
				upAt, r.boot = time.Now(), time.Since(began)
				if p.recovering {
					cutAt = upAt.Add(p.after)
				}
			case factLoad:
				loadAt, r.recovery = time.Now(), time.Since(upAt)
				if cutAt.IsZero() {
					cutAt = loadAt.Add(p.after)
				}
			}
			r.phase = l.fact
		}
		return err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-m.done:
			ended = true
		case <-tick.C:
		}
		if err := errors.Join(hear(), w.verdict()); err != nil {
			return r, err
		}
		now := time.Now()
		enough := p.recovering || r.acks >= p.acks || now.After(cutAt.Add(cutPatience))
		if !ended && !p.last && !cutAt.IsZero() && now.After(cutAt) && enough && r.failed == "" {
			if r.volatile, err = m.cut(p.how); err != nil {
				return r, err
			}
			if !loadAt.IsZero() {
				r.load = time.Since(loadAt)
			}
			ended, wasCut = true, true
		}
	}
	r.flushes = m.disk.shared.Flushes.Load()
	// What was outside before the cut counts, also if it is read only now.
	if err := hear(); err != nil {
		return r, err
	}
	if err := w.verdict(); err != nil {
		return r, err
	}
	switch {
	case r.failed != "" && !wasCut: // without its disk it may give up
		return r, fmt.Errorf("the guest gave up: %s; its last words:\n%s", r.failed, m.tail())
	case p.last && r.phase != factEnd || !p.last && !wasCut:
		return r, errors.New("the machine ended by itself; its last words:\n" + m.tail())
	}
	return r, nil
}
