package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"corfu/internal/sleep"
)

// run is one run under way.
type run struct {
	o     options
	c     *cluster
	began time.Time

	others map[int]*cluster // of other logs, by the number of their unit

	mu   sync.Mutex
	hurt []inflicted
}

// inflicted is a fault that was, by the clock of the histories.
type inflicted struct {
	name     string
	from, to int64
}

func (x *run) say(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fmt.Printf("chaos %6.1fs: %s\n", time.Since(x.began).Seconds(), fmt.Sprintf(format, args...))
}

// settling is what starting and ending a run may take beside its faults.
const settling = 6 * time.Minute

func runMain(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.faulty+settling, fmt.Errorf("not done %v after the last fault", settling))
	defer cancel()
	x := &run{o: o, began: time.Now()}
	if err := x.prepare(); err != nil {
		return err
	}
	defer func() {
		x.c.close()
		if err != nil || o.keep {
			x.say("logs and histories are in %s", x.c.logs)
		} else {
			err = os.RemoveAll(x.c.logs)
		}
		if x.c.net != nil {
			_ = unix.Unmount(x.c.data, unix.MNT_DETACH) // the disks of units below it as well
		}
		err = errors.Join(err, os.RemoveAll(x.c.data))
		if err != nil {
			err = fmt.Errorf("seed %d: %w", o.seed, err)
		}
	}()
	if err := x.up(ctx); err != nil {
		return err
	}
	if err := x.torment(ctx); err != nil {
		return err
	}
	return x.conclude(ctx)
}

// prepare makes directories, network and members.
func (x *run) prepare() (err error) {
	shape := x.o.draw(rand.New(rand.NewPCG(x.o.seed, 0)))
	if x.o.failAfter == 0 {
		x.o.failAfter = shape.failAfter
	}
	x.say("seed %d: %v; failed after %v; faults for %v", x.o.seed, shape, x.o.failAfter, x.o.faulty)
	c := &cluster{o: x.o, s: shape, conns: newConns()}
	x.c = c
	if c.o.corfu, err = filepath.Abs(x.o.corfu); err != nil {
		return err
	}
	if _, err := os.Stat(c.o.corfu); err != nil {
		return fmt.Errorf("%w (make build makes it; -corfu names another)", err)
	}
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	if c.logs = x.o.dir; c.logs == "" {
		c.logs, err = os.MkdirTemp("", "corfu-chaos-")
	} else {
		err = os.MkdirAll(c.logs, 0o755)
	}
	if err != nil {
		return err
	}
	if c.data, err = os.MkdirTemp(os.Getenv("CORFU_LAB_DISK"), "corfu-chaos-data-"); err != nil {
		return err
	}
	if !x.o.plain {
		if c.net, err = settle(); err == nil {
			err = mountData(c.data)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(notContained)
		}
	}
	return c.build()
}

// up starts everything and waits until clients are served.
func (x *run) up(ctx context.Context) error {
	for _, m := range x.c.servers() {
		if err := m.start(); err != nil {
			return err
		}
	}
	if err := x.c.awaitWhole(ctx, x.o.patience); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for _, m := range x.c.client {
		if err := m.start(); err != nil {
			return err
		}
	}
	if err := x.c.awaitAcks(ctx, x.o.patience); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	x.say("up")
	return nil
}

// allowed are the faults that this run may choose from.
func (x *run) allowed() (list []fault) {
	for _, f := range faults {
		if f.network && x.c.net == nil || len(x.o.faults) > 0 && !slices.Contains(x.o.faults, f.name) {
			continue
		}
		if (f.name == "failover" && len(x.c.seq) < 2) || (f.name == "lost" && x.o.small) {
			continue
		}
		if x.o.past == pastOff && f.past != "" || x.o.past != pastBeyond && f.past == pastBeyond || f.layouts && len(x.c.layout) < 3 {
			continue
		}
		list = append(list, f)
	}
	return list
}

// draw draws one of the faults.
func draw(r *rand.Rand, list []fault) fault {
	all := 0
	for _, f := range list {
		all += f.weight
	}
	n := r.IntN(all)
	for _, f := range list {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	panic("weights do not add up")
}

// torment inflicts faults until the time is up: one, often two, sometimes three of them beside each other, and a pause.
func (x *run) torment(ctx context.Context) error {
	r := rand.New(rand.NewPCG(x.o.seed, 1))
	list := x.allowed()
	if len(list) == 0 {
		return usagef("none of these faults is possible here")
	}
	for end := time.Now().Add(x.o.faulty); time.Now().Before(end) && ctx.Err() == nil; {
		first := draw(r, list)
		if first.whole || x.o.small {
			if err := x.c.awaitWhole(ctx, x.o.patience); err != nil {
				return err
			}
		}
		if x.o.small { // a slow machine: each fault is to find a log at work
			if err := x.c.awaitAcks(ctx, x.o.patience); err != nil {
				return err
			}
		}
		beside := slices.DeleteFunc(slices.Clone(list), func(f fault) bool { return f.whole || first.past != "" || first.whole && !f.mild })
		now := []fault{first}
		for len(now) < 3 && len(beside) > 0 && r.IntN(2) == 0 && !x.o.small {
			now = append(now, draw(r, beside))
		}
		var all sync.WaitGroup
		errs := make([]error, len(now))
		for i, f := range now {
			own, late := rand.New(rand.NewPCG(r.Uint64(), 0)), time.Duration(i)*between(r, 0, time.Second)
			all.Go(func() {
				_ = sleep.For(ctx, late)
				errs[i] = x.inflict(ctx, f, own)
			})
		}
		all.Wait()
		if err := errors.Join(append(errs, x.c.crashed())...); err != nil {
			return err
		}
		_ = sleep.For(ctx, between(r, 100*time.Millisecond, 2*time.Second))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (x *run) inflict(ctx context.Context, f fault, r *rand.Rand) error {
	from := now()
	what, err := f.do(ctx, x, r)
	x.mu.Lock()
	x.hurt = append(x.hurt, inflicted{f.name, from, now()})
	x.mu.Unlock()
	x.say("%-12s %s", f.name, what)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}
