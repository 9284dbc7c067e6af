package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
)

// The faults of this file replace the directory of one layout server of several.

// awaitLayouts waits until every layout server leads or follows one that does.
func (x *run) awaitLayouts(ctx context.Context) error {
	said := ""
	err := x.await(ctx, func() bool {
		said = ""
		for _, m := range x.c.layout {
			s, err := x.serverState(ctx, m)
			if err != nil {
				said = fmt.Sprintf("%v: %v", m, err)
			} else if s.GetRole() != "leader" && (s.GetRole() != "follower" || s.GetLeader() == 0) {
				said = fmt.Sprintf("%v is %s and knows %d as leader", m, s.GetRole(), s.GetLeader())
			}
		}
		return said == ""
	})
	if err != nil {
		return fmt.Errorf("the layout servers do not find together again: %s: %w", said, err)
	}
	return x.c.awaitWhole(ctx, x.o.patience)
}

// serverState asks a layout server for what it knows of itself.
func (x *run) serverState(ctx context.Context, m *member) (*pb.LayoutServerState, error) {
	conn, err := x.c.dial(m.control())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return pb.NewLayoutServerServiceClient(conn).State(ctx, &pb.LayoutServerStateRequest{})
}

// layoutEmpty starts a layout server on an empty directory: while the other two go on; or, all
// servers having been off, beside a layout server that lags and a unit that was left out since,
// before the others. Those two must not go on at the epoch that the third one knows to be over.
func layoutEmpty(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	order := r.Perm(len(x.c.layout))
	victim, lags := x.c.layout[order[0]], x.c.layout[order[1]]
	what := fmt.Sprintf("%v on an empty directory", victim)
	if r.IntN(2) == 0 {
		endOneWay(r, victim)
		if err := errors.Join(os.RemoveAll(victim.store()), os.Mkdir(victim.store(), 0o755), victim.start()); err != nil {
			return what, err
		}
		return what + ", the others go on", x.awaitLayouts(ctx)
	}
	endOneWay(r, lags)
	chain, err := x.aChain(ctx, r)
	if err != nil {
		return what, err
	}
	left := chain[len(chain)-1] // it is left out: the epoch that it knows is the one that the server that lags knows
	endOneWay(r, left)
	if err := x.awaitLeftOut(ctx, left); err != nil {
		return what, err
	}
	if err := x.c.awaitAcks(ctx, x.o.patience); err != nil {
		return what, err
	}
	for _, m := range x.c.servers() {
		endOneWay(r, m)
	}
	if err := errors.Join(os.RemoveAll(victim.store()), os.Mkdir(victim.store(), 0o755)); err != nil {
		return what, err
	}
	for _, m := range slices.Concat([]*member{victim, lags, left}, x.c.seq) {
		if err := m.start(); err != nil {
			return what, err
		}
	}
	d := x.alone(r)
	_ = sleep.For(ctx, d)
	for _, m := range x.c.servers() {
		if err := m.start(); err != nil { // unless it is up
			return what, err
		}
	}
	return fmt.Sprintf("%s beside %v, which lags, and %v, which was left out; the others come up %v later", what, lags, left, d.Round(time.Millisecond)), x.awaitLayouts(ctx)
}

// awaitLeftOut waits until the log goes on without the unit.
func (x *run) awaitLeftOut(ctx context.Context, m *member) error {
	err := x.await(ctx, func() bool {
		s, err := x.c.status(ctx)
		return err == nil && s.GetEpochInProgress() == 0 && !slices.ContainsFunc(s.GetLayout().GetUnits(), func(u *pb.Unit) bool { return int(u.GetId()) == m.id })
	})
	if err != nil {
		return fmt.Errorf("%v is not left out: %w", m, err)
	}
	return nil
}

// layoutOld starts a layout server on an older copy of its directory, while the others go on.
func layoutOld(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim := x.c.layout[r.IntN(len(x.c.layout))]
	what := fmt.Sprintf("%v on an old copy of its directory", victim)
	if r.IntN(2) == 0 {
		victim.end(syscall.SIGTERM, 20*time.Second)
		what += ", made while it was stopped"
	}
	old := victim.beside("old")
	if err := errors.Join(victim.copyStore(ctx, old), victim.start()); err != nil {
		return what, err
	}
	if err := x.newEpoch(ctx); err != nil {
		return what, err
	}
	if err := x.passTime(ctx); err != nil {
		return what, err
	}
	endOneWay(r, victim)
	if err := errors.Join(victim.putStore(old), victim.start()); err != nil {
		return what, err
	}
	return what, x.awaitLayouts(ctx)
}

// layoutTorn starts a layout server whose Raft log has length 0. It must refuse that: a damaged log
// is not an empty one.
func layoutTorn(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim := x.c.layout[r.IntN(len(x.c.layout))]
	what := fmt.Sprintf("%v with a raft.db of length 0", victim)
	endOneWay(r, victim)
	kept := victim.beside("old")
	err := errors.Join(victim.copyStore(ctx, kept), os.Truncate(filepath.Join(victim.store(), "raft.db"), 0), victim.tryStart())
	if err != nil {
		return what, err
	}
	if err := x.await(ctx, victim.refused); err != nil {
		return what, fmt.Errorf("it runs: %w", err)
	}
	what += ": " + victim.lastWords()
	victim.kill()
	if err := errors.Join(victim.putStore(kept), victim.start()); err != nil {
		return what, err
	}
	return what, x.awaitLayouts(ctx)
}

// layoutForeign starts a layout server on the directory of one of the same number of another log.
// The servers must refuse each other.
func layoutForeign(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	i := r.IntN(len(x.c.layout))
	victim := x.c.layout[i]
	what := fmt.Sprintf("%v on a directory of another log", victim)
	f, err := x.foreign(ctx, 1)
	if err != nil {
		return what, err
	}
	endOneWay(r, victim)
	away, err := victim.putAway()
	if err != nil {
		return what, err
	}
	log := victim.logEnd()
	if err := errors.Join(f.layout[i].copyStore(ctx, victim.store()), victim.tryStart()); err != nil {
		return what, err
	}
	said := ""
	if err := x.await(ctx, func() bool { said = victim.loggedSince(log, "of another log"); return said != "" }); err != nil {
		return what, fmt.Errorf("it does not say that the others' log is another one: %w", err)
	}
	what += ": " + said
	if err := x.c.awaitAcks(ctx, x.o.patience); err != nil {
		return what, err
	}
	victim.kill()
	if err := errors.Join(victim.putStore(away), victim.start()); err != nil {
		return what, err
	}
	return what, x.awaitLayouts(ctx)
}
