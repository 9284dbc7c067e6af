package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"corfu/client"
	"corfu/internal/wire"
	"corfu/layout"
)

const (
	appenders = 6 // of each client
	readers   = 2

	// One append in largeShare is of 2 to largest positions: few, since the emulated CPU copies each page.
	largeShare = 8
	largest    = 6

	// readTimeout bounds one read; a reader that got no answer has nothing to tell.
	readTimeout = 10 * time.Second

	// readPause leaves the machine's one CPU to the appenders while there is nothing to read.
	readPause = 2 * time.Millisecond
)

// load is appenders and readers on a log, until ctx ends.
type load struct {
	r    *recorder
	boot int
	end  atomic.Uint64 // above the highest acknowledged position
}

// run returns when ctx ended, or when nothing can be told outside any more.
func (l *load) run(ctx context.Context, logs []*client.Log) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	start := func(name string, seed int, step func(context.Context, *client.Log, string, *rand.Rand) error, log *client.Log) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(l.boot), uint64(seed)))
			for n := 0; ctx.Err() == nil; n++ {
				if err := step(ctx, log, fmt.Sprintf("boot %d %s entry %d ", l.boot, name, n), random); err != nil {
					cancel(err)
				}
			}
		})
	}
	for c, log := range logs {
		for i := range appenders {
			start(fmt.Sprintf("client %d appender %d", c, i), 100*c+i, l.append, log)
		}
		for i := range readers {
			start(fmt.Sprintf("client %d reader %d", c, i), 100*c+50+i, l.read, log)
		}
	}
	all.Wait()
	return context.Cause(ctx)
}

// append writes one entry that no other equals: most short, since the emulated CPU is slow, some as long as a page takes,
// some larger than a page.
func (l *load) append(ctx context.Context, log *client.Log, name string, random *rand.Rand) error {
	payload := []byte(name)
	size := log.PagePayload()
	switch n := random.IntN(4 * largeShare); {
	case n < 4:
		size += 1 + random.IntN((largest-1)*(size-wire.FragmentSize)-wire.FragmentSize)
	case n%4 > 0:
		size = len(payload) + random.IntN(1000)
	}
	for len(payload) < size {
		payload = binary.LittleEndian.AppendUint64(payload, random.Uint64())
	}
	payload = payload[:size]
	x := value(payload)
	p, err := log.Append(ctx, payload)
	switch {
	case err == nil:
		for {
			end, above := l.end.Load(), uint64(p+x.pages())
			if above <= end || l.end.CompareAndSwap(end, above) {
				break
			}
		}
		return l.r.tell(line{fact: factAck, position: p, what: x})
	case errors.Is(err, client.ErrUnknown) || ctx.Err() != nil:
		return nil
	}
	return l.r.tell(line{fact: factLost, what: x})
}

// read looks where something may just have come into being, and sometimes anywhere.
func (l *load) read(ctx context.Context, log *client.Log, _ string, random *rand.Rand) error {
	end := l.end.Load()
	p := random.Uint64N(end + 1)
	if random.IntN(4) > 0 {
		p = max(end, 24) - 24 + random.Uint64N(28)
	}
	x, err := readOne(ctx, log, layout.Position(p))
	if err != nil || x == nothing {
		time.Sleep(readPause)
		return nil
	}
	return l.r.tell(line{fact: factRead, position: layout.Position(p), what: x})
}

// readOne says what stands at p; an error says that there was no answer.
func readOne(ctx context.Context, log *client.Log, p layout.Position) (what, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	payload, err := log.Read(ctx, p)
	var within *client.FragmentError
	switch {
	case errors.As(err, &within):
		return inside(within.First), nil
	case err == nil:
		return value(payload), nil
	case errors.Is(err, client.ErrJunk):
		return junk, nil
	case errors.Is(err, client.ErrTrimmed):
		return trimmed, nil
	case errors.Is(err, client.ErrCorrupt):
		return corrupt, nil
	case errors.Is(err, client.ErrUnwritten):
		return nothing, nil
	}
	return "", err
}
