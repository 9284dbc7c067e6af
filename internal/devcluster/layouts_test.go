package devcluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// appender appends until it is stopped, and notes how many appends there were, the longest one, and the first that failed.
type appender struct {
	log     *client.Log
	bears   atomic.Bool // goes on after an append whose outcome stays unknown
	appends atomic.Int64
	longest atomic.Int64
	ended   chan error
	stop    context.CancelFunc
}

func startAppender(ctx context.Context, log *client.Log) *appender {
	l := &appender{log: log, ended: make(chan error, 1)}
	ctx, l.stop = context.WithCancel(ctx)
	go func() { l.ended <- l.run(ctx) }()
	return l
}

func (l *appender) run(ctx context.Context) error {
	for n := 0; ctx.Err() == nil; n++ {
		begin := time.Now()
		if _, err := l.log.Append(context.Background(), fmt.Appendf(nil, "entry %d", n)); err != nil {
			if l.bears.Load() && errors.Is(err, client.ErrUnknown) {
				continue
			}
			return fmt.Errorf("append %d: %w", n, err)
		}
		l.longest.Store(max(l.longest.Load(), int64(time.Since(begin))))
		l.appends.Add(1)
	}
	return nil
}

// more waits until n more appends were acknowledged.
func (l *appender) more(t *testing.T, n int64) {
	t.Helper()
	before := l.appends.Load()
	eventually(t, fmt.Sprintf("%d more appends", n), func() error {
		select {
		case err := <-l.ended:
			l.ended <- err // whatever ends it waits for that
			t.Fatal(err)
		default:
		}
		if got := l.appends.Load() - before; got < n {
			return fmt.Errorf("%d of %d appends", got, n)
		}
		return nil
	})
}

// TestRollingRestartOfLayoutServersIsInvisibleToAppends stops each of three layout servers under load, and starts it again: no append
// fails or is held up, and the epoch stays. Afterwards the client, whose stream has moved twice at least, hears of a new epoch.
func TestRollingRestartOfLayoutServersIsInvisibleToAppends(t *testing.T) {
	notInLab(t, "layout servers follow each other by Raft, over TCP; no session hears of it")
	ctx, dev, dir := testContext(t), openDevice(t), t.TempDir()
	o := devcluster.Options{Device: dev, Dir: dir, LayoutServers: 3, Chains: 1, Election: time.Second}
	c, err := devcluster.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	before := log.Layout()
	l := startAppender(ctx, log)
	for i := range 3 {
		l.more(t, 50)
		if err := c.StopLayout(i); err != nil {
			t.Error(err)
		}
		l.more(t, 50) // without it
		if err := c.StartLayout(ctx, i); err != nil {
			t.Fatal(err)
		}
		eventually(t, "health", c.Health) // all three hear of a leader again
	}
	l.more(t, 50)
	l.stop()
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
	if e := log.Layout().Epoch; e != before.Epoch {
		t.Errorf("epoch %d, was %d", e, before.Epoch)
	}
	t.Logf("%d appends, the longest took %v", l.appends.Load(), time.Duration(l.longest.Load()))

	next, err := c.Reconfigure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the epoch arrives", func() error { // nothing is asked of the log: only its stream can tell it
		if e := log.Layout().Epoch; e != next.Epoch {
			return fmt.Errorf("the client is in epoch %d, the log in %d", e, next.Epoch)
		}
		return nil
	})
	if err := errors.Join(log.Close(), c.Close()); err != nil {
		t.Error(err)
	}
}

// TestLayoutServersOfADirectoryAreFound: a second start finds all three, with what they hold, at their addresses.
func TestLayoutServersOfADirectoryAreFound(t *testing.T) {
	notInLab(t, "files and addresses of TCP")
	ctx, dev, dir := testContext(t), openDevice(t), t.TempDir()
	var addrs []string
	var first layout.LogID
	for start, o := range []devcluster.Options{{LayoutServers: 3, Chains: 1}, {}} {
		o.Device, o.Dir, o.Election = dev, dir, time.Second
		c, err := devcluster.Start(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.Reconfigure(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if start == 0 {
			addrs, first = c.LayoutAddrs(), l.Log
		}
		if got := c.LayoutAddrs(); len(got) != 3 || fmt.Sprint(got) != fmt.Sprint(addrs) || l.Log != first {
			t.Errorf("start %d: log %v at %v, before %v at %v", start, l.Log, got, first, addrs)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := devcluster.Start(ctx, devcluster.Options{Device: dev, Dir: dir, LayoutServers: 1}); !errors.Is(err, devcluster.ErrShape) {
		t.Errorf("another number of layout servers: %v", err)
	}
}

// commits is the index of the last command that the layout servers committed, as their leader says.
func commits(ctx context.Context, t *testing.T, c *devcluster.Cluster) (index uint64) {
	t.Helper()
	st, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range st.LayoutServers {
		index = max(index, s.CommitIndex)
	}
	return index
}

// TestReadersNeedNoIDAndNoLeader: to open a log and read from it costs the layout servers no command, and works while none of them leads.
// An append that is the first of its client says what it waits for, and goes on with the next leader.
func TestReadersNeedNoIDAndNoLeader(t *testing.T) {
	notInLab(t, "it counts commands of Raft")
	ctx, dev := testContext(t), openDevice(t)
	c, err := devcluster.Start(ctx, devcluster.Options{Device: dev, Dir: t.TempDir(), LayoutServers: 3, Chains: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	open := func() *client.Log {
		t.Helper()
		log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		return log
	}
	p, err := open().Append(ctx, []byte("entry"))
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		t.Helper()
		log := open()
		if e, err := log.Read(ctx, p); err != nil || string(e) != "entry" {
			t.Errorf("%q, %v", e, err)
		}
		if tail, err := log.Tail(ctx); err != nil || tail != p+1 {
			t.Errorf("the tail is %d, %v", tail, err)
		}
	}
	before, began := commits(ctx, t, c), time.Now()
	for range 10 {
		read()
	}
	for range 10 {
		if _, err := open().Append(ctx, []byte("more")); err != nil {
			t.Fatal(err)
		}
	}
	// What the members have is noted once a second while entries come (rule R23), whatever clients there are.
	after := commits(ctx, t, c)
	notes := 2 + uint64(time.Since(began)/time.Second)
	if after > before+notes {
		t.Errorf("10 readers and 10 appenders cost the layout servers %d commands; want %d at most, none of them for a client", after-before, notes)
	}
	if p, err = open().Append(ctx, []byte("entry")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := c.StopLayout(i); err != nil {
			t.Fatal(err)
		}
	}
	read()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	writer := open()
	if _, err := writer.Append(short, []byte("x")); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("an append without a leader: %v, want ErrUnavailable", err)
	}
	if err := c.StartLayout(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Append(ctx, []byte("y")); err != nil {
		t.Errorf("an append once there is a leader again: %v", err)
	}
}
