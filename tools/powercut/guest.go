package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/unit/flash"
)

// guest is one boot's work inside the machine.
type guest struct {
	boot     int
	dir      string // on the disk whose power is cut
	out      string // file of the host
	provider string
	from     layout.Position
	last     bool          // look and stop, no load
	noSync   bool          // the control: units do not flush
	limit    time.Duration // of the load, if nobody cuts
}

// The geometry is small, so that pages leave the window and segments are made all the time: all of that
// must bear a cut as well.
var geometry = layout.Geometry{PageSize: 4096, Window: 256, SessionSlots: 64, MaxSessions: 8}

const (
	segmentPages = 64
	clients      = 2

	// scanners read beside each other after recovery.
	scanners = 16

	// holeTimeout is above the time that an append takes under emulation, so that not every
	// append loses its position to a reader; some should.
	holeTimeout = 60 * time.Millisecond
)

func guestMain(args []string) error {
	var g guest
	var from uint64
	f := flag.NewFlagSet("powercut guest", flag.ContinueOnError)
	f.IntVar(&g.boot, "boot", 0, "`number` of this boot")
	f.StringVar(&g.dir, "dir", "", "`directory` of the cluster")
	f.StringVar(&g.out, "out", "", "`file` to tell everything to")
	f.StringVar(&g.provider, "provider", "verbs", "fabric `provider`")
	f.Uint64Var(&from, "from", 0, "first `position` to look at")
	f.BoolVar(&g.last, "last", false, "look, stop the cluster, look again")
	f.BoolVar(&g.noSync, "no-sync", false, "units do not flush: the control that must lose data")
	f.DurationVar(&g.limit, "limit", 2*time.Minute, "end the load after this `time`")
	if err := f.Parse(args); err != nil {
		return err
	}
	g.from = layout.Position(from)
	return g.run(context.Background())
}

func (g *guest) run(ctx context.Context) (err error) {
	r, err := newRecorder(g.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.tell(line{fact: factBoot, number: uint64(g.boot)}); err != nil {
		return err
	}
	if err := g.work(ctx, r); err != nil {
		return errors.Join(err, r.tell(line{fact: factFailed, text: err.Error()}))
	}
	return r.tell(line{fact: factEnd})
}

func (g *guest) work(ctx context.Context, r *recorder) (err error) {
	_, statErr := os.Stat(filepath.Join(g.dir, "unit-1"))
	fresh := errors.Is(statErr, os.ErrNotExist)
	if err := tellFlash(r, g.dir, g.from); err != nil {
		return err
	}
	if err := r.tell(line{fact: factFlashDone}); err != nil {
		return err
	}
	c, err := g.start(ctx)
	if err != nil {
		return err
	}
	open := true
	defer func() {
		if open {
			err = errors.Join(err, c.Close())
		}
	}()
	logs, err := g.openLogs(ctx, c)
	defer func() {
		for _, l := range logs {
			err = errors.Join(err, l.Close())
		}
	}()
	if err != nil {
		return err
	}
	if err := r.tell(line{fact: factUp, number: uint64(logs[0].Layout().Epoch)}); err != nil {
		return err
	}
	tail, err := g.scan(ctx, r, logs[0])
	if err != nil {
		return err
	}
	if !g.last {
		return g.load(ctx, r, logs, tail, fresh)
	}
	for _, l := range logs {
		err = errors.Join(err, l.Close())
	}
	logs, open = nil, false
	if err := errors.Join(err, c.Close()); err != nil {
		// A fabric that is slow to let go is for other tests; a store that is still open fails below.
		fmt.Fprintln(os.Stderr, "powercut: stop the cluster:", err)
	}
	if err := r.tell(line{fact: factClosed}); err != nil {
		return err
	}
	return tellFlash(r, g.dir, g.from)
}

func (g *guest) start(ctx context.Context) (*devcluster.Cluster, error) {
	if g.noSync {
		fmt.Fprintln(os.Stderr, "powercut: WARNING: the units of this run do not flush: what they acknowledge is not durable")
	}
	return devcluster.Start(ctx, devcluster.Options{
		FailAfter: time.Minute, // all lose power at once: nobody is to be dropped because the machine is slow
		Provider:  g.provider, Dir: g.dir, Geometry: geometry, Ready: 2 * time.Minute,
		Flash:  flash.Options{SegmentPages: segmentPages, NoSync: g.noSync},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

func (g *guest) openLogs(ctx context.Context, c *devcluster.Cluster) (logs []*client.Log, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dev, _ := c.Device()
	for range clients {
		l, err := client.Open(ctx, client.Options{
			LayoutServers: []string{c.LayoutAddr()}, Device: dev, HoleTimeout: holeTimeout,
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			return logs, err
		}
		logs = append(logs, l)
	}
	return logs, nil
}

// scan reads every position up to the tail and tells what is there.
func (g *guest) scan(ctx context.Context, r *recorder, log *client.Log) (tail layout.Position, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = persist(ctx, func(ctx context.Context) (err error) {
		tail, err = log.Tail(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("tail: %w", err)
	}
	var next atomic.Uint64
	next.Store(uint64(g.from))
	errs := make([]error, scanners)
	var all sync.WaitGroup
	for i := range scanners {
		all.Go(func() {
			for {
				p := layout.Position(next.Add(1) - 1)
				if p >= tail {
					return
				}
				var x what
				err := persist(ctx, func(ctx context.Context) (err error) {
					x, err = readOne(ctx, log, p)
					return err
				})
				if err == nil {
					err = r.note(line{fact: factRead, position: p, what: x})
				}
				if err != nil {
					errs[i] = fmt.Errorf("read after recovery: %w", err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return tail, r.tell(line{fact: factScanDone, number: uint64(tail)})
}

// persist tries again until ctx ends: an emulated machine whose host is busy stands still for seconds now and then.
func persist(ctx context.Context, try func(context.Context) error) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, readTimeout)
		err := try(bounded)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "powercut: try again:", err)
		time.Sleep(readTimeout / 50)
	}
}

func (g *guest) load(ctx context.Context, r *recorder, logs []*client.Log, tail layout.Position, fresh bool) error {
	if fresh || g.noSync {
		// The cluster's list of its ports, which only this test's cluster has, is not flushed by who writes it. The control
		// begins with everything else in order, so that it fails for the one reason.
		unix.Sync()
	}
	if err := r.tell(line{fact: factLoad}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, g.limit)
	defer cancel()
	l := &load{r: r, boot: g.boot}
	l.end.Store(uint64(tail))
	if err := l.run(ctx, logs); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
