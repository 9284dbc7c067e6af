package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"corfu/internal/wire/pb"
)

// The faults of this file exceed what is promised: all stores of a chain go back, or those of all
// layout servers. The log must stop then, and say which store lost its past and what an operator
// may do. Here the operator finds the true stores and puts them back: everything must be there.

// lostPast and advice are what the status says of stores that lost their past: that they did, and a
// way on.
var (
	lostPast = regexp.MustCompile(`lost (its|their) past|holds a log already|holds another log`)
	advice   = regexp.MustCompile(`--accept-loss|corfu layout recover|mounted|[Rr]estore`)
)

// awaitStopped waits until the status says that the log has stopped, why, and what can be done, and
// names all of these, and returns its first line. If the log goes on, it returns "".
func (x *run) awaitStopped(ctx context.Context, named []string) (string, error) {
	out := ""
	for end := time.Now().Add(x.o.patience); ; time.Sleep(200 * time.Millisecond) {
		out, _ = x.c.command(ctx, 5*time.Second, "status") // its exit status says that not all is well
		verdict, _, _ := strings.Cut(out, "\n\n")          // without the tables
		missing := slices.DeleteFunc(slices.Clone(named), func(n string) bool { return strings.Contains(verdict, n) })
		if x.c.whole(ctx) == nil {
			return "", nil
		}
		if len(missing) == 0 && lostPast.MatchString(verdict) && advice.MatchString(verdict) {
			return firstLine(out), nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("after %v the status does not say that a store lost its past, what can be done, and that it waits for %s:\n%s",
				x.o.patience, strings.Join(named, ", "), out)
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// replaceAll ends all units, or all servers, replaces the stores of some members by put, starts
// everything, waits until the log has stopped for those that are named, and puts the true stores
// back.
func (x *run) replaceAll(ctx context.Context, r *rand.Rand, victims []*member, named []string, put func(m *member) error) (what string, err error) {
	what = names(victims)
	off := slices.Clone(x.c.unit)
	if victims[0].role == roleLayout || r.IntN(2) == 0 {
		what, off = what+", all servers were off", x.c.servers()
	}
	for _, m := range off {
		endOneWay(r, m)
	}
	away := map[*member]string{}
	for _, m := range victims {
		if away[m], err = m.putAway(); err == nil {
			err = put(m)
		}
		if err != nil {
			return what, err
		}
	}
	r.Shuffle(len(off), func(i, j int) { off[i], off[j] = off[j], off[i] })
	for _, m := range off {
		if err := m.tryStart(); err != nil {
			return what, err
		}
	}
	said, err := x.awaitStopped(ctx, named)
	if err != nil {
		return what, err
	}
	if said == "" {
		return what, errors.New("the log goes on, although nothing that is left has what was acknowledged")
	}
	for _, m := range off {
		endOneWay(r, m)
	}
	for _, m := range victims {
		if err := m.putStore(away[m]); err != nil {
			return what, err
		}
	}
	for _, m := range off {
		if err := m.start(); err != nil {
			return what, err
		}
	}
	return fmt.Sprintf("%s: %q; the true stores are back", what, said), x.c.awaitWhole(ctx, x.o.patience)
}

// aChain draws a chain of the layout in force.
func (x *run) aChain(ctx context.Context, r *rand.Rand) (chain []*member, err error) {
	var s *pb.StatusReply
	if e := x.await(ctx, func() bool { s, err = x.c.status(ctx); return err == nil }); e != nil {
		return nil, errors.Join(e, err)
	}
	segments := s.GetLayout().GetSegments()
	chains := segments[len(segments)-1].GetChains()
	for _, id := range chains[r.IntN(len(chains))].GetUnits() {
		i := slices.IndexFunc(x.c.unit, func(m *member) bool { return m.id == int(id) })
		if i < 0 {
			return nil, fmt.Errorf("unit %d is in a chain and no member", id)
		}
		chain = append(chain, x.c.unit[i])
	}
	return chain, nil
}

func eachName(list []*member) (all []string) {
	for _, m := range list {
		all = append(all, m.String())
	}
	return all
}

func empty(m *member) error { return os.Mkdir(m.store(), 0o755) }

// old puts the copy that was made before in the place of the store.
func old(m *member) error { return os.Rename(m.beside("old"), m.store()) }

func chainEmpty(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	chain, err := x.aChain(ctx, r)
	if err != nil {
		return "", err
	}
	if err := x.passTime(ctx); err != nil {
		return names(chain), err
	}
	what, err := x.replaceAll(ctx, r, chain, eachName(chain), empty)
	return "empty: " + what, err
}

func chainOld(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	if r.IntN(2) == 0 { // all of it at rest
		for _, m := range x.c.unit {
			m.end(syscall.SIGTERM, 20*time.Second)
		}
	}
	for _, m := range x.c.unit { // whichever is in the chain then
		if err := errors.Join(m.copyStore(ctx, m.beside("old")), m.start()); err != nil {
			return "", err
		}
	}
	if err := x.passTime(ctx); err != nil {
		return "", err
	}
	chain, err := x.aChain(ctx, r)
	if err != nil {
		return "", err
	}
	what, err := x.replaceAll(ctx, r, chain, eachName(chain), old)
	for _, m := range x.c.unit {
		err = errors.Join(err, os.RemoveAll(m.beside("old")))
	}
	return "old copies: " + what, err
}

func layoutsEmpty(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	what, err := x.replaceAll(ctx, r, x.c.layout, nil, empty)
	return "empty: " + what, err
}

// layoutsOld restores all layout servers to before an epoch. That units have seen that epoch stops
// the log.
func layoutsOld(ctx context.Context, x *run, r *rand.Rand) (string, error) {
	for _, m := range x.c.layout {
		if err := m.copyStore(ctx, m.beside("old")); err != nil {
			return "", err
		}
	}
	if err := x.newEpoch(ctx); err != nil {
		return "", err
	}
	if err := x.passTime(ctx); err != nil {
		return "", err
	}
	what, err := x.replaceAll(ctx, r, x.c.layout, nil, old)
	return "old copies: " + what, err
}
