package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"corfu/client"
	"corfu/layout"
	"corfu/tools/corfu/internal/bench"
	"corfu/tools/corfu/internal/corpus"
)

// demoOutstanding is how many appends the demo keeps in flight.
const demoOutstanding = 64

// loadAndRead is the demo itself: everything in, everything out.
func (a *app) loadAndRead(ctx context.Context, l *client.Log, c corpus.Corpus) (*demoResult, error) {
	r := &demoResult{Source: c.Name, Appends: bench.NewLatencies()}
	where, err := a.load(ctx, l, c, r)
	if err != nil {
		return nil, err
	}
	return r, a.readBack(ctx, l, where, r)
}

// load appends the corpus in pages and returns the position of each.
func (a *app) load(ctx context.Context, l *client.Log, c corpus.Corpus, r *demoResult) ([]layout.Position, error) {
	file := c.NewReader()
	defer file.Close()
	bar := a.newBytesBar(c.Size, "loading")
	src := chunkSource{r: file, buf: make([]byte, l.PagePayload())}
	sum := sha256.New()
	ld := &loader{latencies: r.Appends, bar: bar, free: make(chan struct{}, demoOutstanding)}
	start := time.Now()
	for {
		payload, err := src.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		sum.Write(payload)
		r.Entries++
		r.Bytes += int64(len(payload))
		if err := ld.append(ctx, l, payload); err != nil {
			return nil, err
		}
	}
	where, err := ld.finish(ctx)
	r.loading, r.Written = time.Since(start), hex.EncodeToString(sum.Sum(nil))
	_ = bar.Finish()
	return where, err
}

// loader keeps appends in flight and gathers what became of them.
type loader struct {
	bar  *progressbar.ProgressBar
	free chan struct{} // a token for each append in flight

	mu        sync.Mutex
	latencies bench.Latencies
	where     []layout.Position // of the n-th entry
	failed    error             // the first failure
}

// append starts one, once there is room. Latency counts from here: the time it waits for room is not the log's.
func (d *loader) append(ctx context.Context, l *client.Log, payload []byte) error {
	select {
	case d.free <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mu.Lock()
	n, failed := len(d.where), d.failed
	d.where = append(d.where, 0)
	d.mu.Unlock()
	if failed != nil {
		return failed
	}
	size, begun := len(payload), time.Now()
	err := l.AppendAsync(ctx, payload, func(p layout.Position, err error) {
		d.mu.Lock()
		d.latencies.Record(time.Since(begun))
		d.where[n] = p
		if err != nil && d.failed == nil {
			d.failed = appendFailed(err)
		}
		d.mu.Unlock()
		_ = d.bar.Add(size)
		<-d.free
	})
	if err != nil {
		<-d.free
		return appendFailed(err)
	}
	return nil
}

// finish waits for all that are in flight.
func (d *loader) finish(ctx context.Context) ([]layout.Position, error) {
	for range cap(d.free) {
		select {
		case d.free <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.where, d.failed
}

// readBack reads the whole range that the entries lie in and sums them up in the order in which they were written:
// appends in flight together may take their positions in any order.
func (a *app) readBack(ctx context.Context, l *client.Log, where []layout.Position, r *demoResult) error {
	entry := make(map[layout.Position]int, len(where))
	var first, end layout.Position
	for i, p := range where {
		entry[p] = i
		if i == 0 || p < first {
			first = p
		}
		end = max(end, p+1)
	}
	bar := a.newBytesBar(r.Bytes, "reading")
	sum, next := sha256.New(), 0
	early := map[int][]byte{} // entries that come before one that was written earlier: at most about demoOutstanding
	start := time.Now()
	for e, err := range l.ReadRange(ctx, first, end) {
		if err != nil {
			return explain(e.Position, err)
		}
		i, ok := entry[e.Position]
		if !ok {
			return fmt.Errorf("position %d holds an entry that was not written here", e.Position)
		}
		early[i] = append([]byte(nil), e.Payload...)
		for b, ok := early[next]; ok; b, ok = early[next] {
			sum.Write(b)
			delete(early, next)
			next++
			_ = bar.Add(len(b))
		}
	}
	r.reading, r.Read = time.Since(start), hex.EncodeToString(sum.Sum(nil))
	if next != len(where) {
		return fmt.Errorf("entry %d of %d was not read back from position %d", next, len(where), where[next])
	}
	_ = bar.Finish()
	return nil
}
