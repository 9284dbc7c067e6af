package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"corfu/client"
	"corfu/layout"
)

// answer is what became of one append.
type answer struct {
	at  name
	err error
}

// inFlight bounds the entries under way and the answers that wait for an earlier one.
const inFlight = 4096

// errInterrupted: a signal came, and nothing more was appended.
var errInterrupted = errors.New("interrupted")

// pipeline appends the entries of src with many outstanding and hands their
// names to done in the order of the entries. It stops at the first error of
// anyone; every entry before that one was acknowledged and handed to done.
// When ctx ends it takes no more of src, waits for the appends in flight, and fails with errInterrupted, though src may still wait for its next entry.
// stall bounds how long it waits for one answer.
func pipeline(ctx context.Context, l *client.Log, stall time.Duration, src source, how appendFlags, done func(entry int, at name) error) error {
	appends, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	to, err := newAppender(l, how)
	if err != nil {
		return err
	}
	defer to.close()
	f := feeder{queue: make(chan chan answer, inFlight)}
	go func() {
		defer close(f.queue)
		f.err = f.run(ctx, appends, to, src)
	}()
	timer := time.NewTimer(stall)
	defer timer.Stop()
	for entry := 0; ; entry++ {
		slot, more := f.next(ctx)
		switch {
		case slot == nil && more:
			return errInterrupted
		case slot == nil:
			return f.err
		}
		timer.Reset(stall)
		var a answer
		select {
		case a = <-slot:
		case <-timer.C:
			return fmt.Errorf("append: no answer for %v (--timeout), the outcome of this entry and of those behind it is unknown", stall)
		}
		if a.err != nil {
			return appendFailed(a.err)
		}
		if err := done(entry, a.at); err != nil {
			return err
		}
	}
}

// feeder starts the appends.
type feeder struct {
	queue chan chan answer
	busy  atomic.Bool // an entry is being started: its answer is in the queue, or about to be
	err   error       // of the source; read after queue is closed
}

// run appends what src gives until that ends, or ctx does. The appends themselves end with the other context.
func (f *feeder) run(ctx, appends context.Context, to *appender, src source) error {
	for {
		payload, err := src.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.busy.Store(true)
		if ctx.Err() != nil {
			f.busy.Store(false)
			return errInterrupted
		}
		slot := make(chan answer, 1)
		select {
		case f.queue <- slot:
		case <-appends.Done():
			return errInterrupted
		}
		to.append(appends, payload, slot)
		f.busy.Store(false)
	}
}

// appender appends entries in the way that the flags say.
type appender struct {
	l       *client.Log
	how     appendFlags
	batches *client.Producer // nil: each entry for itself
}

// batchesAtOnce is how many batches are under way where the order may suffer.
const batchesAtOnce = 8

func newAppender(l *client.Log, how appendFlags) (*appender, error) {
	a := &appender{l: l, how: how}
	if !how.batch {
		return a, nil
	}
	o := client.ProducerOptions{}
	if !how.ordered {
		o.InFlight = batchesAtOnce
	}
	var err error
	a.batches, err = client.NewProducer(l, o)
	return a, err
}

// close gives up what is under way still.
func (a *appender) close() {
	if a.batches != nil {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = a.batches.Close(now)
	}
}

// append begins to append payload, a copy of which it takes. What became of it goes to slot.
func (a *appender) append(ctx context.Context, payload []byte, slot chan<- answer) {
	if err := a.begin(ctx, payload, slot); err != nil {
		slot <- answer{err: err}
	}
}

// begin is append but for an error before anything was begun.
func (a *appender) begin(ctx context.Context, payload []byte, slot chan<- answer) error {
	if a.batches != nil {
		if len(payload) <= a.l.PagePayload() {
			return a.batches.Produce(ctx, payload, func(id client.RecordID, err error) { slot <- answer{name{id.Position, id.Index}, err} })
		}
		if err := a.batches.Flush(ctx); err != nil { // what came before stands before
			return err
		}
	}
	if !a.how.ordered {
		return a.l.AppendAsync(ctx, payload, func(p layout.Position, err error) { slot <- answer{name{p, -1}, err} })
	}
	p, err := a.l.Append(ctx, payload)
	if err == nil {
		slot <- answer{at: name{p, -1}}
	}
	return err
}

// next returns where the next answer will come in; nil and false at the end of the source, nil and true if ctx ended and nothing is in flight any more.
func (f *feeder) next(ctx context.Context) (slot chan answer, more bool) {
	select {
	case slot, more = <-f.queue:
		return slot, more
	case <-ctx.Done():
	}
	for {
		idle := !f.busy.Load() // asked first: what it begins from now on it takes back
		select {
		case slot, more = <-f.queue:
			return slot, more
		case <-time.After(time.Millisecond):
		}
		if idle {
			return nil, true
		}
	}
}
