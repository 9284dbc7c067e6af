package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"corfu/internal/history"
	"corfu/internal/sleep"
	"corfu/layout"
)

func newConns() map[string]*grpc.ClientConn { return map[string]*grpc.ClientConn{} }

// mountData makes the members' directory one that goes with the run.
func mountData(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"); err != nil {
		return fmt.Errorf("mount a disk: %w", err)
	}
	return nil
}

// finalReaders read every position at the end, beside each other, each at finalAtOnce positions at once.
const (
	finalReaders = 2
	finalAtOnce  = 8
)

// conclude waits until everything is whole, and judges.
func (x *run) conclude(ctx context.Context) error {
	if err := x.c.awaitWhole(ctx, x.o.patience); err != nil {
		return err
	}
	if err := x.c.awaitAcks(ctx, x.o.patience); err != nil {
		return err
	}
	x.say("whole, and appends go on; the clients end")
	x.c.stopClients()
	t, err := x.hear()
	if err != nil {
		return err
	}
	if err := x.trimWhole(ctx, t); err != nil {
		return err
	}
	if t.final, err = x.readAll(ctx); err != nil {
		return err
	}
	acked, unknown, failed, reads := t.counts()
	x.say("%d appends acknowledged, %d of unknown outcome, %d failed for certain; %d reads; %d positions, the first %d trimmed in %d steps",
		acked, unknown, failed, reads, len(t.final)/finalReaders, t.trimmed(), len(t.trims()))
	for _, line := range pauses(t, x.hurt) {
		x.say("%s", line)
	}
	if acked == 0 {
		return errors.New("nothing was acknowledged: nothing was tested")
	}
	errs := []error{t.judge(), x.compare(ctx), x.alarms()}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := t.altered().judge(); err == nil {
		return errors.New("the control: an altered acknowledgement was not found, so that this test proves nothing")
	}
	x.say("histories linearizable, nothing acknowledged lost, replicas equal; an acknowledgement that was altered was found")
	return nil
}

// hear gives what the clients wrote down, each life of each for itself.
func (x *run) hear() (*testimony, error) {
	paths, err := filepath.Glob(filepath.Join(x.c.logs, "history-*.jsonl"))
	if err != nil {
		return nil, err
	}
	t := &testimony{}
	for _, p := range paths {
		facts, err := readFacts(p)
		if err != nil {
			return nil, err
		}
		t.clients = append(t.clients, facts)
	}
	return t, nil
}

// trimWhole does again what clients trimmed that ended before they knew whether it was done: replicas may differ until then.
func (x *run) trimWhole(ctx context.Context, t *testimony) error {
	below := t.trimmed()
	if below == 0 {
		return nil
	}
	log, err := openLog(ctx, x.c.layoutAddrs(), x.o.provider, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, x.o.patience)
	defer cancel()
	var told []fact
	_ = trimBelow(ctx, log, func(x fact) error { told = append(told, x); return nil }, 1, below)
	t.clients = append(t.clients, told)
	if last := told[len(told)-1]; last.Kind != factTrimmed {
		return fmt.Errorf("trim below %d: %s", below, last.Error)
	}
	return nil
}

// readAll reads every position below the tail with new clients.
func (x *run) readAll(ctx context.Context) (final []fact, err error) {
	quiet := slog.New(slog.DiscardHandler)
	for i := range finalReaders {
		log, err := openLog(ctx, x.c.layoutAddrs(), x.o.provider, quiet)
		if err != nil {
			return nil, fmt.Errorf("read everything: %w", err)
		}
		defer log.Close()
		tail, err := log.Tail(ctx)
		if err != nil {
			return nil, fmt.Errorf("read everything: tail: %w", err)
		}
		x.say("reader %d of %d: all %d positions", i+1, finalReaders, tail)
		facts, errs := make([]fact, tail), make([]error, finalAtOnce)
		var next atomic.Uint64
		var all sync.WaitGroup
		for i := range finalAtOnce {
			all.Go(func() {
				for p := next.Add(1) - 1; p < uint64(tail) && errs[i] == nil; p = next.Add(1) - 1 {
					rctx, cancel := context.WithTimeout(ctx, 3*opTimeout)
					var answered bool
					if facts[p], answered = readOne(rctx, log, layout.Position(p)); !answered {
						errs[i] = fmt.Errorf("read everything: position %d: %s", p, facts[p].Error)
					} else if facts[p].Payload == history.Unwritten {
						errs[i] = fmt.Errorf("position %d, below the tail %d, stays unwritten", p, tail)
					}
					cancel()
				}
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		final = append(final, facts...)
	}
	return final, nil
}

// compare has corfu fsck --cluster compare all replicas, until nothing is left that is not settled.
func (x *run) compare(ctx context.Context) error {
	for end := time.Now().Add(x.o.patience); ; _ = sleep.For(ctx, 200*time.Millisecond) {
		out, err := x.c.command(ctx, x.o.patience, "fsck", "--cluster", "-o", "json")
		if err != nil {
			return err
		}
		var sum struct{ Positions, Unsettled, Differences uint64 }
		if err := json.Unmarshal([]byte(out), &sum); err != nil {
			return fmt.Errorf("fsck said %q: %w", out, err)
		}
		if sum.Unsettled == 0 {
			x.say("fsck: %d positions, no replicas differ", sum.Positions)
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%d positions are not settled %v after all were read", sum.Unsettled, x.o.patience)
		}
	}
}

// alarming is what no member may say in its log.
var alarming = []string{"alarm", "invariant broken", "panic: ", "fatal error: ", "DATA RACE", "another entry than the head"}

// alarms are what the members themselves called impossible.
func (x *run) alarms() error {
	paths, err := filepath.Glob(filepath.Join(x.c.logs, "*.log"))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			for _, word := range alarming {
				if strings.Contains(s.Text(), word) {
					errs = append(errs, fmt.Errorf("%s: %s", filepath.Base(p), s.Text()))
					break
				}
			}
		}
		errs = append(errs, s.Err(), f.Close())
	}
	return errors.Join(errs...)
}
