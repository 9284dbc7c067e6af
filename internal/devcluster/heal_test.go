package devcluster_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit/flash"
)

// failAfter is the detection time of these tests: long enough that a busy machine fails nobody, and the lab's emulator no more
// than that. A unit that is left out by mistake would leave the next one that is killed the only one of its chain.
var failAfter = map[bool]time.Duration{false: 2 * time.Second, true: 5 * time.Second}[os.Getenv("CORFU_LAB") != ""]

// load appends and reads, and holds everything that it was told against what it is told later.
type load struct {
	t    *testing.T
	log  *client.Log
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	known   map[layout.Position]string // acknowledged or read; junk is "junk"
	trimmed map[layout.Position]bool
	acked   int
	end     layout.Position
	last    time.Time // of an acknowledgement
	stopped time.Time
	pause   time.Duration // the longest between two
}

func startLoad(t *testing.T, ctx context.Context, log *client.Log) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{t: t, log: log, stop: cancel, known: map[layout.Position]string{}, trimmed: map[layout.Position]bool{}, last: time.Now()}
	for i := range 4 {
		l.wg.Go(func() { l.append(ctx, i) })
	}
	for range 2 {
		l.wg.Go(func() { l.read(ctx) })
	}
	return l
}

func (l *load) append(ctx context.Context, who int) {
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("appender %d entry %d", who, n)
		p, err := l.log.Append(ctx, []byte(text))
		if err != nil {
			if ctx.Err() == nil {
				l.t.Errorf("append: %v", err)
			}
			return
		}
		l.mu.Lock()
		l.acked++
		l.end = max(l.end, p+1)
		l.pause = max(l.pause, time.Since(l.last))
		l.last = time.Now()
		l.mu.Unlock()
		l.saw(p, text)
	}
}

func (l *load) read(ctx context.Context) {
	for ctx.Err() == nil {
		l.mu.Lock()
		end := l.end
		l.mu.Unlock()
		if end == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		l.readAt(ctx, layout.Position(rand.Uint64N(uint64(end))))
	}
}

func (l *load) readAt(ctx context.Context, p layout.Position) {
	b, err := l.log.Read(ctx, p)
	switch {
	case err == nil:
		l.saw(p, string(b))
	case errors.Is(err, client.ErrJunk):
		l.saw(p, "junk")
	case errors.Is(err, client.ErrTrimmed):
		l.saw(p, "trimmed")
	case ctx.Err() == nil:
		l.t.Errorf("read %d: %v", p, err)
	}
}

// saw fails the test if p was another before.
func (l *load) saw(p layout.Position, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trimmed[p] {
		if !l.stopped.IsZero() && text != "trimmed" {
			l.t.Errorf("position %d was trimmed, is %q", p, text)
		}
		return
	}
	if was, ok := l.known[p]; ok && was != text {
		l.t.Errorf("position %d was %q, is %q", p, was, text)
	}
	l.known[p] = text
}

// more waits until n more appends are acknowledged.
func (l *load) more(n int) {
	l.t.Helper()
	l.mu.Lock()
	goal := l.acked + n
	l.mu.Unlock()
	eventually(l.t, fmt.Sprintf("%d more appends", n), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.acked < goal {
			return fmt.Errorf("%d of %d", l.acked, goal)
		}
		return nil
	})
}

// finish stops the load and reads everything that is known once more.
func (l *load) finish(ctx context.Context) {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	l.stopped = time.Now()
	l.mu.Unlock()
	for p := range l.end {
		l.readAt(ctx, p)
	}
	l.t.Logf("%d appends, longest pause %v", l.acked, l.pause)
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// small makes windows pass during a test.
var small = layout.Geometry{PageSize: 4096, Window: 256, SessionSlots: 16, MaxSessions: 16}

func startHealing(t *testing.T, ctx context.Context, dev rdma.Device, o devcluster.Options) (*devcluster.Cluster, *client.Log) {
	t.Helper()
	o.Device, o.Dir, o.Geometry, o.FailAfter = dev, t.TempDir(), small, cmp.Or(o.FailAfter, failAfter)
	if os.Getenv("CORFU_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c, err := devcluster.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	log := openLog(t, ctx, c, dev)
	t.Cleanup(func() { _ = log.Close() })
	return c, log
}

// awaitLayout waits until the client has a layout that ok accepts.
func awaitLayout(t *testing.T, log *client.Log, what string, ok func(*layout.Layout) bool) *layout.Layout {
	t.Helper()
	eventually(t, what, func() error {
		if l := log.Layout(); !ok(l) {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	return log.Layout()
}

// rebuilt: all chains are whole again, from position 0 on.
func rebuilt(l *layout.Layout) bool {
	open, older := l.Deficit(2)
	return open+older == 0 && len(l.Segments) == 1
}

// TestR17KilledUnitIsReplaced kills the head, then the tail of a chain under load: appends go on with a spare in its place, which gets
// the older positions behind that, what was trimmed meanwhile included. Then the other unit of the chain is killed, so that the spare
// alone has to know everything.
func TestR17KilledUnitIsReplaced(t *testing.T) {
	for _, dead := range []layout.UnitID{1, 2} {
		t.Run(fmt.Sprint("unit ", dead), func(t *testing.T) {
			if inLab && dead == 1 {
				t.Skip("the tail's death says as much of verbs")
			}
			ctx, dev := testContext(t), openDevice(t)
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 2, Spares: 1, RebuildRate: 10_000})
			l := startLoad(t, ctx, log)
			l.more(900) // more than a window
			if err := c.KillUnit(dead); err != nil {
				t.Fatal(err)
			}
			joined := awaitLayout(t, log, "the spare joins", func(l *layout.Layout) bool { return l.IsMember(5) })
			if len(joined.Segments) != 2 || joined.Segments[1].Start != joined.Start {
				t.Errorf("the spare joins in %+v", joined)
			}
			l.more(50) // by now the one chunk is copied, and waits for its rate: the next seal has to tell of the trims
			for p := layout.Position(100); p < 120; p++ {
				l.trim(ctx, p)
			}
			awaitLayout(t, log, "the older positions are copied", rebuilt)
			l.more(300)
			for p := range joined.Start { // a hole that was left there is filled while both have it
				l.readAt(ctx, p)
			}
			awaitLayout(t, log, "both have everything", func(l *layout.Layout) bool { return rebuilt(l) && l.IsMember(5) && l.IsMember(3-dead) })
			if err := c.KillUnit(3 - dead); err != nil {
				t.Fatal(err)
			}
			awaitLayout(t, log, "the spare alone", func(l *layout.Layout) bool { return !l.IsMember(3 - dead) })
			l.more(300)
			l.finish(ctx)
			if err := errors.Join(log.Close(), c.Close()); err != nil {
				t.Error(err)
			}
			compareFlash(t, c.UnitDir(3-dead), c.UnitDir(5), layout.Address(joined.Start/2))
			c.Units, c.Seqs, c.Layouts = nil, nil, nil
		})
	}
}

// trim gives up p, which was read or acknowledged.
func (l *load) trim(ctx context.Context, p layout.Position) {
	l.mu.Lock()
	l.trimmed[p] = true // from now on readers may find it
	l.mu.Unlock()
	if err := l.log.Trim(ctx, p); err != nil {
		l.t.Errorf("trim %d: %v", p, err)
	}
}

// compareFlash wants the same pages at two units, up to an address.
func compareFlash(t *testing.T, a, b string, to layout.Address) {
	t.Helper()
	read := func(dir string) map[layout.Address]string {
		in, err := flash.OpenInspector(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		pages := map[layout.Address]string{}
		err = in.Scan(0, to, func(f flash.Found) error {
			switch {
			case f.Problem != "":
				t.Errorf("%s: address %d: %s", dir, f.Address, f.Problem)
			case f.State == wire.Durable:
				pages[f.Address] = string(f.Page)
			case f.State != wire.Empty:
				pages[f.Address] = f.State.String()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return pages
	}
	one, two := read(a), read(b)
	if len(one) < int(to)/2 || !maps.Equal(one, two) {
		t.Errorf("%d pages and %d, not the same", len(one), len(two))
	}
}

// TestKilledUnitIsMissedAndComesBack: without a spare the chain goes on with one unit; the other one comes back, is wiped, and joins
// again.
func TestKilledUnitIsMissedAndComesBack(t *testing.T) {
	ctx, dev := testContext(t), openDevice(t)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1})
	l := startLoad(t, ctx, log)
	l.more(300)
	if err := c.KillUnit(1); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "a shorter chain", func(l *layout.Layout) bool { return !l.IsMember(1) })
	l.more(300)
	if err := c.RestartUnit(ctx, 1); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "it is back", func(l *layout.Layout) bool { return l.IsMember(1) })
	l.more(300)
	l.finish(ctx)
}

func TestKilledSequencerIsReplaced(t *testing.T) {
	ctx, dev := testContext(t), openDevice(t)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 2, Standbys: 1})
	l := startLoad(t, ctx, log)
	l.more(300)
	if err := c.KillSequencer(1); err != nil {
		t.Fatal(err)
	}
	got := awaitLayout(t, log, "the standby serves", func(l *layout.Layout) bool { return l.Sequencer.ID == 2 })
	if got.Start == 0 {
		t.Errorf("it starts at %d (rule R20)", got.Start)
	}
	l.more(300)
	l.finish(ctx)
}

// TestBelowMinReplicasAppendsFailAndSayWhy: what is read at the other end of the chain is read still.
func TestBelowMinReplicasAppendsFailAndSayWhy(t *testing.T) {
	notInLab(t, "the reason comes from the layout server; TestMemberThatMustStayIsNamed waits and reads over verbs")
	ctx, dev := testContext(t), openDevice(t)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, MinReplicas: 2})
	p, err := log.Append(ctx, []byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.KillUnit(1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "appends fail with the reason", func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := log.Append(ctx, []byte("after"))
		if !errors.Is(err, client.ErrUnavailable) || !bytes.Contains([]byte(err.Error()), []byte("min_replicas is 2")) {
			return fmt.Errorf("append: %v", err)
		}
		return nil
	})
	if b, err := log.Read(ctx, p); err != nil || string(b) != "before" {
		t.Errorf("read: %q, %v", b, err)
	}
}
