package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"corfu/internal/wire"
)

// ProducerOptions of a Producer. The zero value is good.
type ProducerOptions struct {
	// InFlight is how many batches are appended at once. Zero means 1: the records stand in the log in the order of the calls,
	// whatever happens. With more, up to 256, a batch that loses its position (to a hole filler, or because an epoch ends) takes a later one,
	// and stands behind batches that came after it.
	InFlight int

	// MaxBatch bounds a batch, in bytes of records and of their lengths. Zero means 128 KiB; at most 1 MiB. A record
	// that is longer goes alone.
	MaxBatch int

	// MaxBuffered bounds the memory of records that are not completed, in bytes; each counts 64 bytes more than it
	// has. Zero means 16 MiB; at least 2 MiB. Produce waits while there is no room.
	MaxBuffered int64

	// Linger is how long the first record of a batch waits for others where nothing else keeps it waiting. Zero means not
	// at all: what comes while InFlight batches are appended goes together.
	Linger time.Duration

	// Timeout bounds the append of one batch. Zero means that it takes as long as the cluster needs, for ever if that is dead.
	Timeout time.Duration
}

func (o ProducerOptions) withDefaults() (ProducerOptions, error) {
	setDefault(&o.InFlight, 1)
	setDefault(&o.MaxBatch, 128<<10)
	setDefault(&o.MaxBuffered, 16<<20)
	var errs []error
	if o.InFlight < 1 || o.InFlight > 256 {
		errs = append(errs, fmt.Errorf("%d batches in flight: must be 1 to 256", o.InFlight))
	}
	if o.MaxBatch < 1 || o.MaxBatch > wire.MaxEntry {
		errs = append(errs, fmt.Errorf("batches of up to %d bytes: must be 1 to %d", o.MaxBatch, wire.MaxEntry))
	}
	if o.MaxBuffered < 2<<20 {
		errs = append(errs, fmt.Errorf("up to %d bytes of records: must be at least %d", o.MaxBuffered, 2<<20))
	}
	if o.Linger < 0 || o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("linger %v and time-out %v: must not be negative", o.Linger, o.Timeout))
	}
	return o, errors.Join(errs...)
}

// Producer appends records, one at a time, and packs those that wait into batches. Its methods may be called by any number of goroutines;
// the order of the calls is that of one goroutine, or of several that take turns.
//
// A Producer stops at the first record that fails: those behind it fail with ErrStopped, and are not in the log, so that
// the log never has a record without all that were produced before it, save one whose outcome is unknown. To go on, make another Producer.
type Producer struct {
	l      *Log
	o      ProducerOptions
	room   *semaphore.Weighted // bytes of records, as MaxBuffered counts them
	ctx    context.Context     // of the appends
	cancel context.CancelFunc

	mu       sync.Mutex
	queue    []*packing // not begun, in order; records are added to the last
	begun    []*packing // in flight, in order
	spare    []packing  // empty, with room: of batches that are over
	running  bool       // a goroutine begins what is ready
	flushing int        // calls of Flush and Close that wait: nothing lingers
	ended    error      // why no record is taken any more
	failed   error      // of the first record that failed
}

// NewProducer makes a Producer for l. It fails if an option is out of its range. A Producer that is not used any more needs no Close.
func NewProducer(l *Log, o ProducerOptions) (*Producer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("client: options of a producer: %w", err)
	}
	p := &Producer{l: l, o: o, room: semaphore.NewWeighted(o.MaxBuffered)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// recordCost is what a record counts of MaxBuffered besides its bytes.
const recordCost = 64

// packing is a batch while it is made and appended.
type packing struct {
	lengths []int
	dones   []func(RecordID, error)
	data    []byte // the records, one after the other
	head    int    // bytes that the lengths take
	due     bool   // it lingers no longer
	linger  *time.Timer
	over    chan struct{} // closed once all of its records are completed
}

// fits tells whether a record of n bytes has room in a batch of at most most bytes.
func (b *packing) fits(n, most int) bool {
	count := len(b.lengths) + 1
	return count <= wire.MaxRecords && wire.SizeOfLength(count)+b.head+wire.SizeOfLength(n)+len(b.data)+n <= most
}

func (b *packing) add(record []byte, done func(RecordID, error)) {
	b.lengths, b.dones = append(b.lengths, len(record)), append(b.dones, done)
	b.data = append(b.data, record...)
	b.head += wire.SizeOfLength(len(record))
}

// Produce takes a copy of record (0 to MaxRecord bytes), and returns. Once it is durable, or has failed, done is called from another goroutine
// with its name and nil, or with the error: ErrUnknown, and the name that the record has if it is in the log; or any other, and the record is not in the log
// and never will be (ErrStopped among them). Calls of done come in the order of the records, one at a time, if InFlight is 1; with more, those of one batch do. done
// may be nil: then Flush tells of errors. done should return soon, and must not wait for the Producer: neither Flush, nor Close, nor a Produce that waits for room.
//
// Produce waits while there is no room for the record (MaxBuffered), until ctx ends. It fails with ErrTooLarge, ErrStopped, ErrClosed or
// ctx's error; then the record was not taken, and done is not called.
func (p *Producer) Produce(ctx context.Context, record []byte, done func(RecordID, error)) error {
	if len(record) > maxRecord {
		return tooLong("the record", len(record))
	}
	cost := int64(len(record) + recordCost)
	if err := p.room.Acquire(ctx, cost); err != nil {
		return waiting(err, "records of %d bytes in all to be appended", p.o.MaxBuffered)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended != nil {
		p.room.Release(cost)
		return p.ended
	}
	var b *packing
	if n := len(p.queue); n > 0 && p.queue[n-1].fits(len(record), p.o.MaxBatch) {
		b = p.queue[n-1]
	} else {
		b = p.packing()
		p.queue = append(p.queue, b)
		p.wait(b)
	}
	b.add(record, done)
	p.begin()
	return nil
}

// packing makes an empty batch. p.mu is held.
func (p *Producer) packing() *packing {
	b := &packing{}
	if n := len(p.spare); n > 0 {
		*b, p.spare = p.spare[n-1], p.spare[:n-1]
	}
	b.over = make(chan struct{})
	return b
}

// wait sets the timer of a batch that lingers.
func (p *Producer) wait(b *packing) {
	if p.o.Linger == 0 {
		return
	}
	b.linger = time.AfterFunc(p.o.Linger, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		b.due = true
		p.begin()
	})
}

// ProduceSync is Produce that waits until the record is durable, or has failed. If ctx ends before that the record is still appended: its
// outcome is unknown to the caller.
func (p *Producer) ProduceSync(ctx context.Context, record []byte) (RecordID, error) {
	type answer struct {
		id  RecordID
		err error
	}
	answers := make(chan answer, 1)
	if err := p.Produce(ctx, record, func(id RecordID, err error) { answers <- answer{id, err} }); err != nil {
		return RecordID{}, err
	}
	select {
	case a := <-answers:
		return a.id, a.err
	case <-ctx.Done():
		return RecordID{}, fmt.Errorf("client: %w: %w", ErrUnknown, ctx.Err())
	}
}

// ready tells whether the next batch may be appended now. p.mu is held.
func (p *Producer) ready() bool {
	if len(p.queue) == 0 || len(p.begun) >= p.o.InFlight {
		return false
	}
	return p.o.Linger == 0 || len(p.queue) > 1 || p.queue[0].due || p.flushing > 0
}

// begin sees to it that what is ready is appended. p.mu is held.
func (p *Producer) begin() {
	if !p.running && p.ready() {
		p.running = true
		go p.run()
	}
}

// run appends batches for as long as some are ready. With one in flight at a time it appends them itself.
func (p *Producer) run() {
	var buf []byte
	for {
		p.mu.Lock()
		if !p.ready() {
			p.running = false
			p.mu.Unlock()
			return
		}
		b := p.queue[0]
		p.queue = p.queue[1:]
		p.begun = append(p.begun, b)
		p.mu.Unlock()
		if b.linger != nil {
			b.linger.Stop()
		}
		buf = append(wire.AppendBatchHead(buf[:0], b.lengths), b.data...)
		ctx, cancel := p.ctx, func() {}
		if p.o.Timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, p.o.Timeout)
		}
		if p.o.InFlight == 1 {
			at, err := p.l.appendAs(ctx, wire.FlagBatch, buf)
			cancel()
			p.completed(b, at, err)
			continue
		}
		done := func(at Position, err error) {
			cancel()
			p.completed(b, at, err)
		}
		if err := p.l.appendAsyncAs(ctx, wire.FlagBatch, buf, done); err != nil {
			done(0, err)
		}
	}
}

// completed tells of the records of b. If they failed, all that was not begun fails with them.
func (p *Producer) completed(b *packing, at Position, err error) {
	var behind []*packing
	var why error
	if err != nil {
		var unknown *UnknownError
		if errors.As(err, &unknown) {
			at = unknown.Position
		} else if p.ctx.Err() != nil {
			err = errProducerClosed // Close gave up waiting
		}
		behind, why = p.stop(err)
	}
	p.tell(b, at, err)
	for _, x := range behind {
		p.tell(x, 0, why)
	}
	p.mu.Lock() // b is in flight, as Flush sees it, until all of that is told
	if i := slices.Index(p.begun, b); i >= 0 {
		p.begun = slices.Delete(p.begun, i, i+1)
	}
	if len(p.spare) < 2 {
		clear(b.dones)
		p.spare = append(p.spare, packing{lengths: b.lengths[:0], dones: b.dones[:0], data: b.data[:0]})
	}
	p.begin()
	p.mu.Unlock()
	close(b.over)
	for _, x := range behind {
		close(x.over)
	}
}

// errProducerClosed is the error of a record that comes, or is given up, after Close.
var errProducerClosed = fmt.Errorf("client: producer: %w", ErrClosed)

// stop ends the Producer, as a record failed with err, and returns what is not appended for that reason, and the error of that.
func (p *Producer) stop(err error) (behind []*packing, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
		// Not wrapped: the outcome of the record that failed may be unknown, and that of those behind it is not.
		p.ended = fmt.Errorf("client: %w: an earlier record failed: %v", ErrStopped, err)
		if p.l.closed.Load() || p.ctx.Err() != nil {
			p.ended = errProducerClosed
		}
	}
	behind, p.queue = p.queue, nil
	return behind, p.ended
}

// tell completes the records of a batch.
func (p *Producer) tell(b *packing, at Position, err error) {
	if b.linger != nil {
		b.linger.Stop()
	}
	p.room.Release(int64(len(b.data) + recordCost*len(b.lengths)))
	for i, done := range b.dones {
		if done != nil {
			done(RecordID{at, i}, err)
		}
	}
}

// Flush waits until every record that was produced before the call is completed, and its done has returned. Nothing lingers meanwhile. It returns the error of
// the first record that failed, ever, or ctx's. It must not be called from done.
func (p *Producer) Flush(ctx context.Context) error {
	p.mu.Lock()
	p.flushing++
	before := append(append([]*packing(nil), p.begun...), p.queue...)
	p.begin()
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.flushing--
		p.mu.Unlock()
	}()
	for _, b := range before {
		select {
		case <-b.over:
		case <-ctx.Done():
			return waiting(ctx.Err(), "records to be appended")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Close ends the Producer: it takes no more records, and Close waits as Flush does. If ctx ends first, it gives up what is not appended yet:
// records fail with ErrClosed, or ErrUnknown where they may be in the log. Every done has returned when Close returns. Idempotent. It must not
// be called from done.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.ended == nil {
		p.ended = errProducerClosed
	}
	p.mu.Unlock()
	err := p.Flush(ctx)
	p.cancel()
	if ctx.Err() != nil {
		_ = p.Flush(context.Background()) // soon: the appends have ended
	}
	return err
}
