package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
)

// fault is a kind of what goes wrong, or is done by an operator.
type fault struct {
	name   string
	weight int
	// network: it needs machines of their own, with disks of their own.
	network bool
	// whole: the cluster is whole before, and meanwhile no other unit is touched.
	whole bool
	// mild: it touches no unit.
	mild bool
	// past: stores go back, within what is promised or beyond it. Nothing else is done beside it.
	past pastMode
	// layouts: it needs several layout servers.
	layouts bool
	// do inflicts it, lasts, and mends it. It says what it did; an error ends the run.
	do func(ctx context.Context, x *run, r *rand.Rand) (what string, err error)
}

var faults = []fault{
	{name: "kill", weight: 6, do: killSome},
	{name: "kill-all", weight: 1, do: killAll},
	{name: "kill-leader", weight: 2, mild: true, do: killLeader},
	{name: "kill-client", weight: 1, mild: true, do: killClient},
	{name: "stop", weight: 4, do: stopSome},
	{name: "cut-one-way", weight: 3, network: true, do: cutOneWay},
	{name: "cut", weight: 3, network: true, do: cutOff},
	{name: "split", weight: 2, network: true, do: split},
	{name: "full", weight: 2, network: true, do: fillDisk},
	{name: "reconfigure", weight: 2, mild: true, do: reconfigure},
	{name: "failover", weight: 2, mild: true, do: failOver},
	{name: "lost", weight: 2, whole: true, do: loseUnit},
	{name: "store-empty", weight: 2, whole: true, past: pastWithin, do: storeEmpty},
	{name: "store-old", weight: 3, whole: true, past: pastWithin, do: storeOld},
	{name: "store-swapped", weight: 1, whole: true, past: pastWithin, do: storeSwapped},
	{name: "store-foreign", weight: 1, whole: true, past: pastWithin, do: storeForeign},
	{name: "layout-empty", weight: 2, whole: true, past: pastWithin, layouts: true, do: layoutEmpty},
	{name: "layout-old", weight: 1, whole: true, past: pastWithin, layouts: true, do: layoutOld},
	{name: "layout-torn", weight: 1, whole: true, past: pastWithin, layouts: true, do: layoutTorn},
	{name: "layout-foreign", weight: 1, whole: true, past: pastWithin, layouts: true, do: layoutForeign},
	{name: "chain-empty", weight: 3, whole: true, past: pastBeyond, do: chainEmpty},
	{name: "chain-old", weight: 3, whole: true, past: pastBeyond, do: chainOld},
	{name: "layouts-empty", weight: 3, whole: true, past: pastBeyond, do: layoutsEmpty},
	{name: "layouts-old", weight: 3, whole: true, past: pastBeyond, do: layoutsOld},
}

func faultNames() (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// between draws a time.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

func names(list []*member) string {
	var all []string
	for _, m := range list {
		all = append(all, m.String())
	}
	return strings.Join(all, ", ")
}

// some draws up to most of the members.
func some(r *rand.Rand, list []*member, most int) []*member {
	n := 1 + r.IntN(min(most, len(list)))
	var out []*member
	for _, i := range r.Perm(len(list))[:n] {
		out = append(out, list[i])
	}
	return out
}

// killThem is kill -9, and each starts again after a time of its own.
func killThem(ctx context.Context, r *rand.Rand, list []*member) error {
	for _, m := range list {
		m.kill()
	}
	for _, m := range list {
		_ = sleep.For(ctx, between(r, 0, 2*time.Second)/time.Duration(len(list)))
		if err := m.start(); err != nil {
			return err
		}
	}
	return nil
}

func killSome(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victims := some(r, x.c.servers(), 3)
	return names(victims), killThem(ctx, r, victims)
}

func killAll(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victims := x.c.servers()
	r.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	return "all servers", killThem(ctx, r, victims)
}

func killLeader(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim := x.c.layout[r.IntN(len(x.c.layout))]
	for _, m := range x.c.layout {
		if s, err := x.serverState(ctx, m); err == nil && s.GetRole() == "leader" {
			victim = m
		}
	}
	return names([]*member{victim}), killThem(ctx, r, []*member{victim})
}

func killClient(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victims := some(r, x.c.client, 1)
	return names(victims), killThem(ctx, r, victims)
}

// stopSome stops processes, whose sockets stay open.
func stopSome(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victims, d := some(r, x.c.all(), 2), between(r, 100*time.Millisecond, 4*time.Second)
	for _, m := range victims {
		m.signal(syscall.SIGSTOP)
	}
	_ = sleep.For(ctx, d)
	for _, m := range victims {
		m.signal(syscall.SIGCONT)
	}
	return fmt.Sprintf("%s for %v", names(victims), d.Round(time.Millisecond)), nil
}

// cutOneWay drops what one machine sends to one other, or to all.
func cutOneWay(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	all := x.c.all()
	from := all[r.IntN(len(all))]
	to, d := all, between(r, 200*time.Millisecond, 5*time.Second)
	if r.IntN(2) == 0 {
		to = some(r, all, 1)
	}
	var cut []link
	for _, m := range to {
		if m != from {
			cut = append(cut, link{from, m})
		}
	}
	what := fmt.Sprintf("%v → %s for %v", from, names(to), d.Round(time.Millisecond))
	if len(to) == len(all) {
		what = fmt.Sprintf("%v → everybody for %v", from, d.Round(time.Millisecond))
	}
	return what, x.cut(ctx, cut, d)
}

// link is a way from one machine to another.
type link struct{ from, to *member }

// cut drops what goes over the links, for a time.
func (x *run) cut(ctx context.Context, links []link, d time.Duration) error {
	for _, l := range links {
		if err := l.from.host.deafen(l.to.host); err != nil {
			return fmt.Errorf("cut %v → %v: %w", l.from, l.to, err)
		}
	}
	_ = sleep.For(ctx, d)
	for _, l := range links {
		if err := l.from.host.undeafen(l.to.host); err != nil {
			return fmt.Errorf("mend %v → %v: %w", l.from, l.to, err)
		}
	}
	return nil
}

// cutOff takes a machine off the network.
func cutOff(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim, d := x.c.all()[r.IntN(len(x.c.all()))], between(r, 200*time.Millisecond, 5*time.Second)
	if err := victim.host.unplug(); err != nil {
		return "", err
	}
	_ = sleep.For(ctx, d)
	return fmt.Sprintf("%v for %v", victim, d.Round(time.Millisecond)), victim.host.plug()
}

// split makes two sides of all machines.
func split(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	d := between(r, 300*time.Millisecond, 4*time.Second)
	var sides [2][]*member
	for _, m := range x.c.all() {
		i := r.IntN(2)
		sides[i] = append(sides[i], m)
	}
	var links []link
	for _, a := range sides[0] {
		for _, b := range sides[1] {
			links = append(links, link{a, b}, link{b, a})
		}
	}
	return fmt.Sprintf("%s | %s for %v", names(sides[0]), names(sides[1]), d.Round(time.Millisecond)), x.cut(ctx, links, d)
}

// fillDisk takes what a unit's disk has left, and gives it back.
func fillDisk(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	victim, d := x.c.unit[r.IntN(len(x.c.unit))], between(r, time.Second, 7*time.Second)
	f, err := os.CreateTemp(victim.dir, "ballast-") // its own: the disk may be filled twice at a time
	if err != nil {
		return "", err
	}
	for n := int64(1 << 20); n >= 4096; {
		// Each step keeps what is there and asks for n more, until not even a page is to be had.
		info, err := f.Stat()
		if err != nil {
			return "", err
		}
		if unix.Fallocate(int(f.Fd()), 0, info.Size(), n) != nil {
			n /= 2
		}
	}
	_ = f.Close()
	_ = sleep.For(ctx, d)
	return fmt.Sprintf("the disk of %v for %v", victim, d.Round(time.Millisecond)), os.Remove(f.Name())
}

func reconfigure(ctx context.Context, x *run, _ *rand.Rand) (string, error) {
	_, err := x.c.command(ctx, 10*time.Second, "layout", "reconfigure", "--reason", "chaos")
	return "planned" + refusal(err), nil
}

func failOver(ctx context.Context, x *run, _ *rand.Rand) (string, error) {
	_, err := x.c.command(ctx, 10*time.Second, "seq", "failover")
	return "planned" + refusal(err), nil
}

// refusal is why an operator's command was not carried out: that is no error while other things go wrong.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	return ", refused: " + err.Error()
}

// loseUnit kills a unit for good, with all that it has, and puts a new one in its place.
func loseUnit(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	i := r.IntN(len(x.c.unit))
	victim := x.c.unit[i]
	victim.kill()
	if err := os.RemoveAll(filepath.Join(victim.dir, "store")); err != nil {
		return "", err
	}
	_ = sleep.For(ctx, between(r, 0, 3*time.Second))
	fresh, err := x.c.newUnit()
	if err != nil {
		return "", err
	}
	if err := fresh.start(); err != nil {
		return "", err
	}
	x.c.unit[i] = fresh
	if err := x.insist(ctx, fresh.id, true, "unit", "add", fmt.Sprintf("%d=%s", fresh.id, fresh.control())); err != nil {
		return "", err
	}
	if err := x.insist(ctx, victim.id, false, "unit", "remove", fmt.Sprint(victim.id)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v; %v takes its place", victim, fresh), x.c.awaitWhole(ctx, x.o.patience)
}

// insist runs an operator's command until the unit is listed, or is not. A command that ends without an answer may have been carried out.
func (x *run) insist(ctx context.Context, unit int, listed bool, args ...string) error {
	var err error
	for end := time.Now().Add(x.o.patience); time.Now().Before(end) && ctx.Err() == nil; _ = sleep.For(ctx, 200*time.Millisecond) {
		if _, err = x.c.command(ctx, 10*time.Second, args...); err == nil {
			return nil
		}
		m, e := x.c.status(ctx)
		if e != nil {
			continue
		}
		is := func(u *pb.Unit) bool { return int(u.GetId()) == unit }
		if listed == (slices.ContainsFunc(m.GetLayout().GetUnits(), is) || slices.ContainsFunc(m.GetLayout().GetSpares(), is)) {
			return nil
		}
	}
	return err
}
