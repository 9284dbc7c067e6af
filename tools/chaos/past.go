package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
)

// The faults of this file replace stores of units: by an empty directory, by an older copy, by
// another's. They keep within what docs/protocol.md promises of stores that went back: each chain
// keeps one member whose store did not. beyond.go has those that exceed it.

// pastMode says how far stores may go back in a run.
type pastMode string

const (
	pastOff    pastMode = "off"    // none goes back
	pastWithin pastMode = "within" // each chain keeps a member, and the layout servers a majority, whose stores did not
	pastBeyond pastMode = "beyond" // also all stores of a chain, or those of all layout servers
)

// notedWithin is more than the layout store takes to note what the members have (rule R23): what
// became durable since is in the window that the rule leaves.
const notedWithin = 3 * time.Second

// newEpoch makes an epoch, whatever is asked in vain meanwhile because the layout servers elect a
// leader.
func (x *run) newEpoch(ctx context.Context) error {
	var err error
	if e := x.await(ctx, func() bool {
		_, err = x.c.command(ctx, 10*time.Second, "layout", "reconfigure", "--reason", "chaos")
		return err == nil
	}); e != nil {
		return fmt.Errorf("no new epoch %w: %w", e, err)
	}
	return nil
}

// passTime lets clients append, and the layout store note it.
func (x *run) passTime(ctx context.Context) error {
	if err := x.c.awaitWhole(ctx, x.o.patience); err != nil {
		return err
	}
	if err := x.c.awaitAcks(ctx, x.o.patience); err != nil {
		return err
	}
	if err := sleep.For(ctx, notedWithin); err != nil {
		return err
	}
	return x.c.awaitWhole(ctx, x.o.patience)
}

// endOneWay ends a process in peace or by kill -9.
func endOneWay(r *rand.Rand, m *member) { endAll([]*member{m}, r.IntN(2) == 0) }

// endAll ends processes one after another, in peace or by kill -9.
func endAll(list []*member, kill bool) {
	for _, m := range list {
		if kill {
			m.kill()
		} else {
			m.end(syscall.SIGTERM, 20*time.Second)
		}
	}
}

// alone draws how long those that come up first are alone. A member that a new leader has never
// heard gets ten times fail-after.
func (x *run) alone(r *rand.Rand) time.Duration {
	return between(r, 0, 12*x.o.failAfter+6*time.Second)
}

// victim draws a unit: every second time the tail of a chain, which is enough for R16 if it is
// alone.
func (x *run) victim(ctx context.Context, r *rand.Rand) (*member, error) {
	if r.IntN(2) == 0 {
		return x.c.unit[r.IntN(len(x.c.unit))], nil
	}
	chain, err := x.aChain(ctx, r)
	if err != nil {
		return nil, err
	}
	return chain[len(chain)-1], nil
}

// replaced is a unit whose store was replaced, and is up.
type replaced struct {
	unit    *member
	away    string // its true store
	stopped bool   // the log stopped for it, and it has its true store again
	what    string
}

// replace ends a unit, puts its store away, calls put, which puts another in its place, and starts
// the unit, in one of three ways: the others go on; all units are switched off with it; all servers
// are. Those that were switched off come up later than the unit, so that for a while it is alone.
// Then the log must go on. If the others were killed, the chain may lack an intact member (rule
// R16): then the log may also stop, name the unit and say what can be done; with its true store it
// must go on.
func (x *run) replace(ctx context.Context, r *rand.Rand, victim *member, put func() error) (p replaced, err error) {
	var first, later []*member
	switch p.what = "the others go on"; r.IntN(3) {
	case 1:
		p.what, later = "all units were off", slices.Clone(x.c.unit)
	case 2:
		p.what, later, first = "all servers were off", slices.Clone(x.c.unit), slices.Concat(x.c.layout, x.c.seq)
	}
	later = slices.DeleteFunc(later, func(m *member) bool { return m == victim })
	first = append(first, victim)
	kill := r.IntN(2) == 0
	if kill {
		p.what += ", killed"
	}
	endAll(slices.Concat(later, first), kill)
	p.unit = victim
	if p.away, err = victim.putAway(); err == nil {
		err = put()
	}
	for _, m := range first {
		err = errors.Join(err, m.start())
	}
	if err != nil {
		return p, err
	}
	if len(later) > 0 {
		d := x.alone(r)
		p.what += fmt.Sprintf(", and came up %v later", d.Round(time.Millisecond))
		_ = sleep.For(ctx, d)
	}
	r.Shuffle(len(later), func(i, j int) { later[i], later[j] = later[j], later[i] })
	for _, m := range later {
		err = errors.Join(err, m.start())
	}
	if err != nil || !kill || len(later) == 0 {
		return p, errors.Join(err, x.c.awaitWhole(ctx, x.o.patience))
	}
	if x.c.awaitWhole(ctx, 12*x.o.failAfter+10*time.Second) == nil {
		return p, nil
	}
	said, err := x.awaitStopped(ctx, []string{victim.String()})
	if err != nil || said == "" {
		return p, err
	}
	p.stopped = true
	p.what += fmt.Sprintf("; the log stopped: %q", said)
	return p, x.putBack(ctx, r, p)
}

// putBack gives the unit its true store again, and waits until the cluster is whole.
func (x *run) putBack(ctx context.Context, r *rand.Rand, p replaced) error {
	endOneWay(r, p.unit)
	if err := errors.Join(p.unit.putStore(p.away), p.unit.start()); err != nil {
		return err
	}
	return x.c.awaitWhole(ctx, x.o.patience)
}

// storeEmpty starts a unit on an empty directory, as if its volume were not mounted. Half of the
// time the volume is found again.
func storeEmpty(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim, err := x.victim(ctx, r)
	if err != nil {
		return "", err
	}
	p, err := x.replace(ctx, r, victim, func() error { return empty(victim) })
	what := fmt.Sprintf("%v on an empty store, %s", victim, p.what)
	if err != nil || p.stopped {
		return what, err
	}
	if r.IntN(2) == 0 {
		return what, os.RemoveAll(p.away)
	}
	return what + "; then on its own again", x.putBack(ctx, r, p)
}

// storeOld starts a unit on an older copy of its store. The copy was made while the unit was
// stopped, or of the running one.
func storeOld(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	made := "of the running unit"
	victim, err := x.victim(ctx, r)
	if err != nil {
		return "", err
	}
	if r.IntN(2) == 0 {
		made = "of the stopped unit"
		endAll([]*member{victim}, false)
	}
	if err := errors.Join(victim.copyStore(ctx, victim.beside("old")), victim.start()); err != nil {
		return made, err
	}
	if r.IntN(2) == 0 { // the copy is of an epoch that is over
		if err := x.newEpoch(ctx); err != nil {
			return made, err
		}
	}
	if err := x.passTime(ctx); err != nil {
		return made, err
	}
	p, err := x.replace(ctx, r, victim, func() error { return old(victim) })
	what := fmt.Sprintf("%v on an old copy, %s; %s", victim, made, p.what)
	if err != nil || p.stopped {
		return what, err
	}
	return what, os.RemoveAll(p.away)
}

// storeSwapped starts two units each on the other's store. Both must refuse it.
func storeSwapped(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	i := r.Perm(len(x.c.unit))
	a, b := x.c.unit[i[0]], x.c.unit[i[1]]
	what := fmt.Sprintf("%v and %v", a, b)
	endOneWay(r, a)
	endOneWay(r, b)
	swap := func() error { // each has a disk of its own: the stores are moved by copying
		for _, m := range []*member{a, b} {
			if err := m.copyStore(ctx, m.beside("other")); err != nil {
				return err
			}
		}
		if err := moveStore(ctx, a.beside("other"), b); err != nil {
			return err
		}
		return moveStore(ctx, b.beside("other"), a)
	}
	if err := swap(); err != nil {
		return what, err
	}
	if err := errors.Join(a.tryStart(), b.tryStart()); err != nil {
		return what, err
	}
	if err := x.await(ctx, func() bool { return a.refused() && b.refused() }); err != nil {
		return what, fmt.Errorf("a unit runs on the store of another: %w", err)
	}
	what += " refused: " + a.lastWords()
	a.kill()
	b.kill()
	if err := errors.Join(swap(), a.start(), b.start()); err != nil {
		return what, err
	}
	return what, x.c.awaitWhole(ctx, x.o.patience)
}

// moveStore makes a copy of the directory the store of a member.
func moveStore(ctx context.Context, dir string, to *member) error {
	from := &member{role: roleLayout, dir: dir}
	if err := from.copyStore(ctx, to.beside("moved")); err != nil {
		return err
	}
	return errors.Join(to.putStore(to.beside("moved")), os.RemoveAll(dir))
}

// await waits until ok.
func (x *run) await(ctx context.Context, ok func() bool) error {
	for end := time.Now().Add(x.o.patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %v", x.o.patience)
		}
	}
	return nil
}

// storeForeign starts a unit on a store of the unit of the same number of another log. It must be
// named, and must keep what it has.
func storeForeign(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim := x.c.unit[r.IntN(len(x.c.unit))]
	what := fmt.Sprintf("%v on a store of another log", victim)
	f, err := x.foreign(ctx, victim.id)
	if err != nil {
		return what, err
	}
	endOneWay(r, victim)
	away, err := victim.putAway()
	if err != nil {
		return what, err
	}
	if err := f.unit[0].copyStore(ctx, victim.store()); err != nil {
		return what, err
	}
	before, err := x.dump(ctx, victim)
	if err != nil {
		return what, err
	}
	if err := victim.tryStart(); err != nil {
		return what, err
	}
	said := ""
	err = x.await(ctx, func() bool {
		if victim.refused() {
			said = victim.lastWords()
			return true
		}
		s, err := x.c.status(ctx)
		i := slices.IndexFunc(s.GetMembers(), func(m *pb.MemberStatus) bool { return m.GetName() == victim.String() })
		if err == nil && i >= 0 {
			said = s.GetMembers()[i].GetError()
		}
		return strings.Contains(said, "another log")
	})
	if err != nil {
		return what, fmt.Errorf("nobody says that the store is of another log, but %q: %w", said, err)
	}
	endOneWay(r, victim)
	after, err := x.dump(ctx, victim)
	if err == nil && after != before {
		err = fmt.Errorf("the store of another log has changed: it was\n%s\nand is\n%s", tailOf(before), tailOf(after))
	}
	if err := errors.Join(err, victim.putStore(away), victim.start()); err != nil {
		return what, err
	}
	return what + ": " + said, x.c.awaitWhole(ctx, x.o.patience)
}

// dump lists what the store of a unit that does not run holds.
func (x *run) dump(ctx context.Context, m *member) (string, error) {
	out, err := x.c.command(ctx, time.Minute, "dump", "-o", "json", m.store())
	return out, err
}
