package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/rdma"
	"corfu/rdma/selftest"
)

const revokeDo = "do not use this device: sealing an epoch rests on this (rule R15). Look for a newer driver or firmware"

// revoke: a revoked key must fail; a new one must work, and fail again once it is revoked, too.
func (t *tester) revoke(ctx context.Context, _, _ *Measured) Result {
	name := t.name("revoked key")
	var reused int
	var last rdma.RKey
	for round := range 2 {
		conns, err := t.begin(ctx, 2)
		if err != nil {
			return t.broke(name, err)
		}
		if round > 0 && t.region.Key == last {
			reused++
		} else if round > 0 {
			// The key of the round before is no key of what was registered since.
			if err := t.refused(ctx, conns[1], rdma.Remote{Addr: t.region.Addr, Key: last}); err != nil {
				return fail(name, revokeDo, "the old key, after the memory was registered anew: %v", err)
			}
		}
		last = t.region.Key
		b := rdma.NewBatch(1)
		b.FetchAdd(t.region.Add(countOff), 1)
		if err := conns[0].Do(ctx, b); err != nil {
			return fail(name, "look at dmesg of both machines", "the key of round %d does not work: %s", round+1, oneLine(err.Error()))
		}
		a, err := t.ask(ctx, doRevoke)
		if err != nil {
			return t.broke(name, err)
		}
		if err := t.refused(ctx, conns[0], t.region); err != nil {
			return fail(name, revokeDo, "round %d: %v", round+1, err)
		}
		if a.Count != 1 || a.Late != "" {
			return fail(name, revokeDo, "round %d: the word is %d and must be 1 %s", round+1, a.Count, a.Late)
		}
	}
	r := good(name, "refused, and again after the memory was registered anew")
	if reused > 0 {
		r = r.with("this device hands out the key of a closed region again: the epoch in the compared words is what keeps a late writer out (rule R18)")
	}
	return r
}

// refused wants a FETCH_ADD to end with ErrRemoteAccess, and the connection to break.
func (t *tester) refused(ctx context.Context, c rdma.Conn, at rdma.Remote) error {
	ctx, cancel := context.WithTimeout(ctx, t.trials.Grace)
	defer cancel()
	b := rdma.NewBatch(1)
	b.FetchAdd(at.Add(countOff), 1)
	err := c.Do(ctx, b)
	switch {
	case err == nil:
		return errors.New("a FETCH_ADD under a revoked key was carried out")
	case !errors.Is(err, rdma.ErrRemoteAccess):
		return fmt.Errorf("a FETCH_ADD under a revoked key ended otherwise than refused: %s", oneLine(err.Error()))
	}
	select {
	case <-c.Broken():
		return nil
	case <-ctx.Done():
		return errors.New("the connection that was refused did not break")
	}
}

// revokeUnderLoad revokes while three connections keep lists in flight: nothing may land afterwards, what was acknowledged is
// there and what was refused is not.
func (t *tester) revokeUnderLoad(ctx context.Context, _, _ *Measured) Result {
	name := t.name("revoke under load")
	var done uint64
	for round := range t.trials.Rounds {
		n, err := t.revokeRound(ctx, time.Duration(1+3*round)*time.Millisecond)
		if err != nil {
			return fail(name, revokeDo, "round %d: %s", round+1, oneLine(err.Error()))
		}
		done += n
	}
	return good(name, "%d times, %d lists of three operations before; nothing landed afterwards (rule R15)", t.trials.Rounds, done)
}

func (t *tester) revokeRound(ctx context.Context, pause time.Duration) (done uint64, err error) {
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	conns, err := t.begin(ctx, writers)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	all := make([]*selftest.RevokeWriter, writers)
	errs := make([]error, writers)
	for i, c := range conns {
		all[i] = &selftest.RevokeWriter{Conn: c, Area: t.region.Add(uint64(areaOff + i*selftest.RevokeArea)), Source: t.local}
		wg.Go(func() { errs[i] = all[i].Run(writing) })
	}
	time.Sleep(pause) // so that the key dies at another moment each round
	a, err := t.ask(ctx, doRevoke)
	end := time.AfterFunc(t.trials.Grace, cancel)
	wg.Wait() // a writer ends once its connection breaks
	end.Stop()
	if err != nil {
		return 0, errors.Join(append(errs, err)...)
	}
	if a.Late != "" {
		return 0, errors.New(a.Late)
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	if len(a.Sums) != writers {
		return 0, fmt.Errorf("the peer answers with %d sums", len(a.Sums))
	}
	for i, w := range all {
		if err := w.Judge(uint64(a.Sums[i])); err != nil {
			return 0, fmt.Errorf("connection %d: %w", i+1, err)
		}
		done += w.Done()
	}
	return done, nil
}
