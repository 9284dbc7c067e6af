package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// produced is what became of the records of a Producer.
type produced struct {
	mu    sync.Mutex
	ids   map[int]client.RecordID
	errs  map[int]error
	order []int // in which they were completed
}

func newProduced() *produced {
	return &produced{ids: map[int]client.RecordID{}, errs: map[int]error{}}
}

func (x *produced) done(n int) func(client.RecordID, error) {
	return func(id client.RecordID, err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.order = append(x.order, n)
		x.ids[n], x.errs[n] = id, err
	}
}

func (x *produced) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.order)
}

func producer(t *testing.T, l *client.Log, o client.ProducerOptions) *client.Producer {
	t.Helper()
	p, err := client.NewProducer(l, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// readRecords reads what the log holds, record by record, up to the tail.
func readRecords(t *testing.T, l *client.Log) (records []client.Record) {
	t.Helper()
	tail, err := l.Tail(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range client.Records(l.ReadRange(within(t), 0, tail)) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// Records stand in the log in the order of the calls, under the names that done was told, and done is called in
// that order; what waits goes together.
func TestProducerPacksAndKeepsTheOrder(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d, Chains: 2})
		l, ctx := c.open(client.Options{}), within(t)
		for _, inFlight := range []int{1, 4} {
			before := len(readRecords(t, l))
			p := producer(t, l, client.ProducerOptions{InFlight: inFlight, MaxBatch: 20_000})
			const n = 2000
			x := newProduced()
			buf := make([]byte, 0, 64)
			for i := range n {
				buf = fmt.Appendf(buf[:0], "record %d of %d", i, inFlight)
				if err := p.Produce(ctx, buf, x.done(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			got := readRecords(t, c.open(client.Options{}))[before:]
			if len(got) != n || x.count() != n {
				t.Fatalf("%d records in the log, %d completed, want %d", len(got), x.count(), n)
			}
			entries := map[layout.Position]bool{}
			named := map[client.RecordID]string{}
			for i, r := range got {
				entries[r.Position], named[r.RecordID] = true, string(r.Data)
				if inFlight == 1 && (string(r.Data) != fmt.Sprintf("record %d of 1", i) || x.order[i] != i) {
					t.Fatalf("record %d of the log is %q, and record %d was completed as number %d", i, r.Data, x.order[i], i)
				}
			}
			for i := range n {
				if want := fmt.Sprintf("record %d of %d", i, inFlight); x.errs[i] != nil || named[x.ids[i]] != want {
					t.Fatalf("record %d: at %v stands %q, %v", i, x.ids[i], named[x.ids[i]], x.errs[i])
				}
			}
			if len(entries) > n/4 {
				t.Errorf("%d records in %d entries: they are not packed", n, len(entries))
			}
			if err := p.Close(ctx); err != nil {
				t.Error(err)
			}
			if err := p.Produce(ctx, nil, nil); !errors.Is(err, client.ErrClosed) {
				t.Errorf("Produce after Close: %v, want ErrClosed", err)
			}
		}
	})
}

// A lone record is appended at once and a lingering one with those that come meanwhile, or at Flush.
func TestProducerLingersOnlyWhenTold(t *testing.T) {
	c := start(t, devcluster.Options{Durability: layout.Memory})
	l, ctx := c.open(client.Options{}), within(t)
	p := producer(t, l, client.ProducerOptions{})
	id, err := p.ProduceSync(ctx, []byte("alone"))
	if err != nil || id != (client.RecordID{}) {
		t.Fatalf("%v, %v", id, err)
	}
	p = producer(t, l, client.ProducerOptions{Linger: time.Hour, MaxBatch: 1000})
	x := newProduced()
	for i := range 3 {
		if err := p.Produce(ctx, []byte("lingers"), x.done(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := x.count(); n != 0 {
		t.Errorf("%d records did not linger", n)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if want := (client.RecordID{Position: 1, Index: 2}); x.count() != 3 || x.ids[2] != want {
		t.Errorf("after Flush: %d records, the last one %v; want 3, %v", x.count(), x.ids[2], want)
	}
	for i := range 3 { // what is full does not linger
		if err := p.Produce(ctx, make([]byte, 500), x.done(3+i)); err != nil {
			t.Fatal(err)
		}
	}
	client.Until(t, "full batches to go", func() bool { return x.count() == 5 })
	p = producer(t, l, client.ProducerOptions{Linger: time.Millisecond})
	if _, err := p.ProduceSync(ctx, []byte("for a millisecond")); err != nil {
		t.Error(err)
	}
}

func TestProducerRefuses(t *testing.T) {
	c := start(t, devcluster.Options{})
	l, ctx := c.open(client.Options{}), within(t)
	for _, o := range []client.ProducerOptions{{InFlight: -1}, {InFlight: 257}, {MaxBatch: -1}, {MaxBatch: 1<<20 + 1}, {MaxBuffered: 1}, {Linger: -1}, {Timeout: -1}} {
		if _, err := client.NewProducer(l, o); err == nil || !strings.Contains(err.Error(), "options of a producer") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	p := producer(t, l, client.ProducerOptions{})
	if err := p.Produce(ctx, make([]byte, largestRecord+1), nil); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("a record too long: %v", err)
	}
	if _, err := p.ProduceSync(ctx, make([]byte, largestRecord)); err != nil { // longer than MaxBatch
		t.Errorf("the longest record: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	q := producer(t, l, client.ProducerOptions{Linger: time.Hour, MaxBatch: 1 << 20, MaxBuffered: 2 << 20})
	n := 0
	for ; n < 100; n++ { // until there is no room
		if err := q.Produce(ended, make([]byte, 300_000), nil); err != nil {
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "waiting for records of 2097152 bytes") {
				t.Error(err)
			}
			break
		}
	}
	if n > 6 {
		t.Errorf("%d records of 300000 bytes were taken", n)
	}
	if err := q.Close(ctx); err != nil {
		t.Error(err)
	}
}

// Close of the log with records in flight: each is completed, and those that failed are told apart: not in the log, or
// not known. What was acknowledged is there, in order and without a gap.
func TestLogClosesWithRecordsInFlight(t *testing.T) {
	for _, inFlight := range []int{1, 3} {
		c := start(t, devcluster.Options{})
		l, ctx := c.open(client.Options{}), within(t)
		p := producer(t, l, client.ProducerOptions{InFlight: inFlight, MaxBatch: 5000})
		x := newProduced()
		sent, closing := 0, false
		closed := make(chan error, 1)
		for ; ; sent++ {
			if !closing && x.count() > 500 {
				closing = true
				go func() { closed <- l.Close() }()
			}
			if err := p.Produce(ctx, fmt.Appendf(nil, "%06d", sent), x.done(sent)); err != nil {
				if !errors.Is(err, client.ErrClosed) && !errors.Is(err, client.ErrStopped) {
					t.Errorf("Produce: %v", err)
				}
				break
			}
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := p.Flush(ctx); err == nil {
			t.Error("Flush knows of no error")
		}
		if x.count() != sent {
			t.Fatalf("%d of %d records are completed", x.count(), sent)
		}
		in := map[string]client.RecordID{}
		for _, r := range readRecords(t, c.open(client.Options{})) {
			in[string(r.Data)] = r.RecordID
		}
		failed, acknowledged := false, 0
		for i := range sent {
			at, there := in[fmt.Sprintf("%06d", i)]
			switch err := x.errs[i]; {
			case err == nil:
				if !there || at != x.ids[i] || (failed && inFlight == 1) {
					t.Fatalf("record %d was acknowledged at %v: in the log %v at %v, after one that failed %v", i, x.ids[i], there, at, failed)
				}
				acknowledged++
			case errors.Is(err, client.ErrUnknown):
				if there && at != x.ids[i] {
					t.Errorf("record %d, which may be at %v, is at %v", i, x.ids[i], at)
				}
				failed = true
			case there:
				t.Errorf("record %d is in the log at %v, and failed with %v", i, at, err)
			default:
				failed = true
			}
		}
		if acknowledged < 500 || acknowledged == sent {
			t.Errorf("%d in flight: %d of %d records were acknowledged", inFlight, acknowledged, sent)
		}
	}
}

// Close of a Producer that cannot append: what waits is given up once its context ends, and each record is completed.
func TestProducerCloseGivesUp(t *testing.T) {
	c := start(t, devcluster.Options{})
	l, ctx := c.open(client.Options{}), within(t)
	if _, err := l.Append(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.KillSequencer(1); err != nil {
		t.Fatal(err)
	}
	p := producer(t, l, client.ProducerOptions{MaxBatch: 10})
	x := newProduced()
	for i := range 10 {
		if err := p.Produce(ctx, []byte("0123456"), x.done(i)); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := p.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v, want that its time is over", err)
	}
	for i := range 10 {
		if err := x.errs[i]; !errors.Is(err, client.ErrClosed) && !errors.Is(err, client.ErrUnknown) {
			t.Errorf("record %d: %v, want ErrClosed or ErrUnknown", i, err)
		}
	}
	if err := p.Close(ctx); !errors.Is(err, client.ErrClosed) && !errors.Is(err, client.ErrUnknown) {
		t.Errorf("Close again: %v", err)
	}
}

// Positions are lost to somebody who fills them as soon as they are handed out: the order of the records stays that of the calls.
func TestProducerKeepsTheOrderAcrossLostPositions(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		reg := prometheus.NewRegistry()
		l, filler, ctx := c.open(client.Options{Registerer: reg}), c.open(client.Options{}), within(t)
		over, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for p := layout.Position(0); over.Err() == nil; {
				if err := filler.Fill(over, p); err == nil {
					p += 3 // the appends get some
				} else if !errors.Is(err, client.ErrUnwritten) && over.Err() == nil {
					t.Errorf("fill %d: %v", p, err)
					return
				}
			}
		})
		p := producer(t, l, client.ProducerOptions{MaxBatch: 9000}) // up to three pages
		x := newProduced()
		n := 0
		for lost := 0.0; lost < 20 && !t.Failed(); lost = counterOf(t, reg, "corfu_client_cas_losses_total") {
			for range 50 {
				if err := p.Produce(ctx, fmt.Appendf(nil, "%050d", n), x.done(n)); err != nil {
					t.Fatal(err)
				}
				n++
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		wg.Wait()
		got := readRecords(t, c.open(client.Options{}))
		if len(got) != n {
			t.Fatalf("%d records in the log, want %d", len(got), n)
		}
		for i, r := range got {
			if string(r.Data) != fmt.Sprintf("%050d", i) || x.ids[i] != r.RecordID {
				t.Fatalf("record %d is at %v; at %v stands %q", i, x.ids[i], r.RecordID, r.Data)
			}
		}
	})
}
