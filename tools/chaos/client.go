package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"corfu/client"
	"corfu/internal/history"
	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
)

const (
	appenders = 3 // of each client process
	readers   = 1
	trimmers  = 1

	// trimPace is how much rarer trims are than other operations.
	trimPace = 100

	// One append in largeShare is of 2 to largest positions.
	largeShare = 16
	largest    = 4

	// opTimeout bounds one operation. Some faults last longer: then appends of unknown outcome come about.
	opTimeout = 8 * time.Second

	// lastOps is how long the operations that are under way get when the client is to end.
	lastOps = 2 * time.Second

	fragmentBytes = 4096 - wire.HeaderSize - wire.FragmentSize
	pageBytes     = 4096 - wire.HeaderSize
)

// worker is what the appenders, readers and trimmers of a client process share.
type worker struct {
	log    *client.Log
	r      *recorder
	id     int
	pace   time.Duration
	retain uint64
	n      atomic.Int64
	end    atomic.Uint64 // above the highest acknowledged position
}

func clientMain(ctx context.Context, args []string) (err error) {
	w := &worker{}
	var servers, out, provider string
	var seed uint64
	f := flag.NewFlagSet("chaos client", flag.ContinueOnError)
	f.IntVar(&w.id, "id", 0, "`number` of the client, no other one's")
	f.StringVar(&servers, "servers", "", "layout servers, host:port, comma-separated")
	f.StringVar(&out, "out", "", "`file` to write the history to")
	f.StringVar(&provider, "provider", "tcp", "fabric `provider`")
	f.Uint64Var(&seed, "seed", 0, "of sizes, positions and pauses")
	f.DurationVar(&w.pace, "pace", 10*time.Millisecond, "the pause between operations, on average")
	f.Uint64Var(&w.retain, "retain", 60000, "how many positions are left when older ones are trimmed")
	if err := f.Parse(args); err != nil {
		return err
	}
	if w.r, err = newRecorder(out); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.r.close()) }()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	for w.log == nil { // the cluster may be in the middle of a fault
		w.log, err = openLog(ctx, servers, provider, log)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			log.Warn("no cluster yet", "error", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	if err := w.run(ctx, seed); err != nil {
		return err
	}
	return w.log.Close()
}

func openLog(ctx context.Context, servers, provider string, log *slog.Logger) (*client.Log, error) {
	return client.Open(ctx, client.Options{LayoutServers: strings.Split(servers, ","), Provider: provider, Insecure: true, Logger: log})
}

// run works until ctx ends; what is under way then gets a little longer.
func (w *worker) run(ctx context.Context, seed uint64) error {
	ops, cancel := context.WithCancel(context.Background())
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(lastOps, cancel) })
	var all sync.WaitGroup
	errs := make([]error, appenders+readers+trimmers)
	for i := range errs {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		step, pace := w.append, w.pace
		switch {
		case i >= appenders+readers:
			step, pace = w.trim, trimPace*w.pace
		case i >= appenders:
			step = w.read
		}
		all.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = step(ops, random)
				_ = sleep.For(ctx, time.Duration(random.Int64N(2*int64(pace))))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// payload makes the bytes that stand for a tag. A tag says how long they are.
func payload(tag string) []byte {
	_, number, _ := strings.Cut(tag, "/")
	var size int
	if _, err := fmt.Sscan(number, &size); err != nil || size < len(tag) {
		size = len(tag)
	}
	return append([]byte(tag), strings.Repeat("+", size-len(tag))...)
}

// tagOf is the tag of what was read; what is not the payload of any tag is given as it is, so that nothing equals it.
func tagOf(b []byte) string {
	tag := strings.TrimRight(string(b), "+")
	if string(payload(tag)) != string(b) {
		return fmt.Sprintf("%d bytes: %.80q", len(b), b)
	}
	return tag
}

// append writes one entry that no other equals.
func (w *worker) append(ctx context.Context, random *rand.Rand) error {
	n := int(w.n.Add(1))
	size, pages := 20+random.IntN(1000), 1
	if random.IntN(largeShare) == 0 {
		pages = 2 + random.IntN(largest-1)
		size = max(pageBytes+1, (pages-1)*fragmentBytes+1+random.IntN(fragmentBytes))
		pages = (size + fragmentBytes - 1) / fragmentBytes
	}
	tag := fmt.Sprintf("%d.%d/%d", w.id, n, size)
	if err := w.r.tell(fact{Kind: factInvoke, N: n, At: now(), Payload: tag, Pages: pages}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	p, err := w.log.Append(ctx, payload(tag))
	x := fact{N: n, At: now(), Position: p}
	var unknown *client.UnknownError
	switch {
	case err == nil:
		x.Kind = factAck
		w.above(p + layout.Position(pages))
	case errors.As(err, &unknown):
		x.Kind, x.Position, x.Known, x.Error = factUnknown, unknown.Position, true, err.Error()
	case errors.Is(err, client.ErrUnknown):
		x.Kind, x.Error = factUnknown, err.Error()
	default:
		x.Kind, x.Error = factFailed, err.Error()
	}
	return w.r.tell(x)
}

// above notes that there is something below p.
func (w *worker) above(p layout.Position) {
	for end := w.end.Load(); end < uint64(p) && !w.end.CompareAndSwap(end, uint64(p)); end = w.end.Load() {
	}
}

// read looks where something may just have come into being, sometimes anywhere, and sometimes asks for the tail.
func (w *worker) read(ctx context.Context, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	end := w.end.Load()
	p := layout.Position(random.Uint64N(end + 1))
	switch n := random.IntN(8); {
	case n == 0:
		return w.tail(ctx)
	case n < 6:
		p = layout.Position(max(end, 24) - 24 + random.Uint64N(32))
	}
	x, answered := readOne(ctx, w.log, p)
	if !answered {
		return nil
	}
	return w.r.tell(x)
}

// readOne is what a read of p is told; answered: anything at all.
func readOne(ctx context.Context, log *client.Log, p layout.Position) (x fact, answered bool) {
	x = fact{Kind: factRead, Since: now(), Position: p}
	b, err := log.Read(ctx, p)
	x.At = now()
	var part *client.FragmentError
	switch {
	case err == nil:
		x.Payload = tagOf(b)
	case errors.As(err, &part):
		x.Payload = history.Inside(part.First)
	case errors.Is(err, client.ErrJunk):
		x.Payload = history.Junk
	case errors.Is(err, client.ErrUnwritten):
		x.Payload = history.Unwritten
	case errors.Is(err, client.ErrTrimmed):
		x.Payload = history.Trimmed
	case errors.Is(err, client.ErrInvariant):
		x.Payload = "alarm: " + err.Error()
	default:
		x.Error = err.Error()
		return x, false
	}
	return x, true
}

func (w *worker) tail(ctx context.Context) error {
	x := fact{Kind: factTail, Since: now()}
	p, err := w.log.Tail(ctx)
	if err != nil {
		return nil
	}
	x.At, x.Position = now(), p
	w.above(p)
	return w.r.tell(x)
}

// trim gives up the oldest positions, so that no disk fills up however long this goes on.
func (w *worker) trim(ctx context.Context, _ *rand.Rand) error {
	end := w.end.Load()
	if end <= w.retain {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return trimBelow(ctx, w.log, w.r.tell, int(w.n.Add(1)), layout.Position(end-w.retain))
}

// trimBelow trims all positions below p, and tells what became of it.
func trimBelow(ctx context.Context, log *client.Log, tell func(fact) error, n int, p layout.Position) error {
	if err := tell(fact{Kind: factTrim, N: n, At: now(), Position: p}); err != nil {
		return err
	}
	x := fact{Kind: factTrimmed, N: n, Position: p}
	if err := log.TrimPrefix(ctx, p); err != nil {
		x.Kind, x.Error = factHalf, err.Error()
	}
	x.At = now()
	return tell(x)
}
