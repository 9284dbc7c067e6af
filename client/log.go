package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grpcend "corfu/internal/control"
	"corfu/internal/messages"
	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// Log is a log that was opened. Its methods may be called by any number of goroutines.
type Log struct {
	o       Options
	log     *slog.Logger
	m       *metrics
	dev     rdma.Device
	ownsDev bool
	control control
	layouts *grpcend.Layouts
	news    news
	view    atomic.Pointer[view]
	speak   atomic.Pointer[string] // what the cluster speaks over the fabric, when the layout service was asked last; nil or "": not known
	trouble atomic.Pointer[string] // what the layout service cannot mend, when it was asked last; nil or "": nothing

	ids atomic.Pointer[ids]

	patience    patience                  // with holes
	leftUnknown leftUnknown               // appends that Close cut off
	appending   atomic.Int64              // appends in flight
	fullUntil   atomic.Pointer[time.Time] // no tokens are taken before: a unit was full a moment ago

	attempts attempts
	pipeline pipeline
	large    large
	frames   frames
	runs     runs

	ctx    context.Context // ends with the Log
	cancel context.CancelFunc
	closed atomic.Bool
	ops    sync.RWMutex // held for reading by each operation, for writing by Close
	bg     sync.WaitGroup

	mu         sync.Mutex
	sessions   map[*session]*view
	ended      bool // no session is adopted any more
	refreshing *refreshing
	renew      chan struct{} // has room for one: the append that asks for a client id
}

// openTimeout bounds Open where its context does not.
const openTimeout = 10 * time.Second

// Open opens the log that the layout servers serve, waiting until there is an ACTIVE layout. It fails with
// ErrUnavailable if none comes before ctx ends (or within 10 s, if ctx has no deadline), and with
// rdma.ErrUnavailable if the provider asked for does not work here.
func Open(ctx context.Context, o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("client: options: %w", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		bounded, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		ctx = bounded
	}
	l := &Log{o: o, log: o.Logger, m: newMetrics(o.Registerer), dev: o.Device, sessions: map[*session]*view{}}
	l.control = control{o: &l.o}
	l.control.init()
	l.layouts = grpcend.NewLayouts(o.LayoutServers, l.control.dial)
	l.renew = make(chan struct{}, 1)
	l.ids.Store(drawnID())
	l.news = news{l: l, conns: map[layout.UnitID]*messages.Conn{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.start(ctx); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) start(ctx context.Context) error {
	if err := l.firstContact(ctx); err != nil {
		return err
	}
	if l.dev == nil {
		dev, err := openDevice(l.o, l.speaks())
		if err != nil {
			return err
		}
		l.dev, l.ownsDev = dev, true
	}
	l.frames.dev, l.frames.pageSize = l.dev, l.current().layout.Geometry.PageSize
	l.runs.dev, l.runs.pageSize = l.dev, l.frames.pageSize
	l.attempts.setup(l, l.o.MaxOutstanding)
	l.pipeline.setup(l)
	l.large.setup(l)
	l.background(l.follow)
	l.background(l.news.keep)
	l.background(l.watchdog)
	l.background((&reporter{l: l}).run)
	l.background(l.watchDevice)
	return nil
}

// firstContact gets a layout: the leader's, or, where no layout server leads, the newest that one of them knows.
func (l *Log) firstContact(ctx context.Context) error {
	var b backoff
	var before error // of the attempt before
	for {
		err := l.getLayout(ctx)
		if err == nil || (status.Code(err) == codes.Unavailable && l.askKnown(ctx) == nil) {
			return nil
		}
		if ctx.Err() != nil && before != nil {
			// The time ended while this one was on its way: that is no reason. The one before had it.
			return fmt.Errorf("client: %w: %w: %w", ErrUnavailable, ctx.Err(), before)
		}
		before = err
		if c := status.Code(err); c == codes.PermissionDenied || c == codes.Unauthenticated {
			return fmt.Errorf("client: %w: %s", ErrDenied, status.Convert(err).Message())
		}
		if sleep.For(ctx, b.step()) != nil {
			return fmt.Errorf("client: %w: %w", ErrUnavailable, err)
		}
	}
}

// speaks returns what the cluster speaks over the fabric; "": it is not known.
func (l *Log) speaks() string {
	if p := l.speak.Load(); p != nil {
		return *p
	}
	return ""
}

// ids makes attempt ids: a client id that nobody else ever gets, and a counter. The first append asks for the client id; a client that
// only reads never does, and shows units one that it drew.
type ids struct {
	client layout.ClientID
	n      atomic.Uint64
}

// drawnID returns ids with a client id above those that are handed out, and without a single attempt.
func drawnID() *ids {
	var x [4]byte
	_, _ = rand.Read(x[:]) // never fails
	i := &ids{client: layout.MaxClient + 1 + layout.ClientID(binary.LittleEndian.Uint32(x[:])%uint32(layout.MaxClient))}
	i.n.Store(maxCounter)
	return i
}

func (l *Log) client() layout.ClientID { return l.ids.Load().client }

// attemptID gives an id that no attempt ever had. Once the counter is used up, a new client id is asked for.
func (l *Log) attemptID(ctx context.Context) (layout.Attempt, error) {
	for {
		i := l.ids.Load()
		if n := i.n.Add(1); n <= maxCounter {
			return makeAttempt(i.client, n), nil
		}
		if err := l.renewID(ctx, i); err != nil {
			return 0, err
		}
	}
}

// ownID sees to it, before a position is taken, that this client has an id of its own: a position whose append waits for an id would be filled
// by readers.
func (l *Log) ownID(ctx context.Context) error {
	if i := l.ids.Load(); i.client > layout.MaxClient {
		return l.renewID(ctx, i)
	}
	return nil
}

// renewID asks for a client id in place of i, until ctx ends: the layout servers may be electing a leader.
func (l *Log) renewID(ctx context.Context, i *ids) error {
	select {
	case l.renew <- struct{}{}:
		defer func() { <-l.renew }()
	case <-ctx.Done():
		return fmt.Errorf("client: %w: %w: another append asks for a client id", ErrUnavailable, ctx.Err())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	var b backoff
	for l.ids.Load() == i {
		err := l.newClientID(ctx)
		if err == nil {
			break
		}
		if c := status.Code(err); c == codes.PermissionDenied || c == codes.Unauthenticated {
			return fmt.Errorf("client: %w: %s", ErrDenied, status.Convert(err).Message())
		}
		if sleep.For(ctx, b.step()) != nil {
			if l.closed.Load() {
				return ErrClosed
			}
			return fmt.Errorf("client: %w: %w: no client id: %w", ErrUnavailable, ctx.Err(), err)
		}
	}
	return nil
}

// enter begins an operation, unless the log is closed; exit ends it. It does not wait: only Close ever locks ops for writing, and it waits for all that
// are inside, among them those on whose behalf the caller enters once more (ahead.go).
func (l *Log) enter() error {
	if !l.ops.TryRLock() {
		return ErrClosed
	}
	if l.closed.Load() {
		l.ops.RUnlock()
		return ErrClosed
	}
	return nil
}

func (l *Log) exit() { l.ops.RUnlock() }

// background runs fn until the Log ends. It is called by operations and by what it runs, so
// that Close, which waits for both, cannot miss it.
func (l *Log) background(fn func(context.Context)) {
	l.bg.Add(1)
	go func() {
		defer l.bg.Done()
		fn(l.ctx)
	}()
}

// starter gives a function that runs fn as background does, each time that it is called, and allocates nothing then.
func (l *Log) starter(fn func(context.Context)) func() {
	run := func() {
		defer l.bg.Done()
		fn(l.ctx)
	}
	return func() {
		l.bg.Add(1)
		go run()
	}
}

// watchdog breaks connections on which nothing moves, and keeps the gauges.
func (l *Log) watchdog(ctx context.Context) {
	t := time.NewTicker(l.o.OpTimeout / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			l.inspectSessions(now)
		}
	}
}

func (l *Log) inspectSessions(now time.Time) {
	l.mu.Lock()
	all := make([]*session, 0, len(l.sessions))
	for s := range l.sessions {
		select {
		case <-s.closed:
			delete(l.sessions, s)
			l.m.connErrors.Inc()
		default:
			all = append(all, s)
		}
	}
	l.mu.Unlock()
	free := 0
	for _, s := range all {
		s.watch(now, l.o.OpTimeout)
	}
	for _, k := range l.current().units {
		if s := k.cur.Load(); s != nil && s.alive() {
			free += len(s.slots.free)
		}
	}
	l.m.credits.Set(float64(free))
	l.m.sessions.Set(float64(len(all)))
	inFlight, pages := l.attempts.use()
	_, fragments := l.large.fragments.use()
	l.m.inFlight.Set(float64(inFlight))
	l.m.memory.Set(float64(pages + fragments + l.frames.bytes() + l.runs.bytes()))
}

// Layout is the layout in use. It must not be changed.
func (l *Log) Layout() *layout.Layout { return l.current().layout }

// MaxPayload is the longest payload of an entry, in bytes: 1 MiB.
func (l *Log) MaxPayload() int { return wire.MaxEntry }

// PagePayload is the longest payload that fits into one page, in bytes. A longer one takes several positions.
func (l *Log) PagePayload() int { return l.current().layout.Geometry.MaxPayload() }

// Provider tells what carries the operations: "verbs" or "tcp", and the device's name.
func (l *Log) Provider() (name, device string) {
	i := l.dev.Info()
	return i.Provider, i.Name
}

// Close ends the log. Operations in flight end: appends that may have happened with ErrUnknown, everything
// else with ErrClosed. It returns once all of them did. Idempotent.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.cancel()
	l.mu.Lock()
	l.ended = true
	var all []*session
	for s := range l.sessions {
		all = append(all, s)
	}
	l.mu.Unlock()
	for _, s := range all {
		s.fail(ErrClosed)
	}
	err := l.control.close()
	l.ops.Lock() // all operations ended
	defer l.ops.Unlock()
	l.leftUnknown.report(l.log)
	l.bg.Wait()
	l.news.close()
	for s := range l.sessions { // no operation and no background task is left that could open another
		<-s.closed
	}
	l.frames.close()
	l.runs.close()
	l.attempts.close()
	l.large.fragments.close()
	if l.ownsDev {
		err = errors.Join(err, l.dev.Close())
	}
	return err
}
