package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"corfu/client"
	"corfu/layout"
	"corfu/unit/flash"
)

// Stores that go back (rules R21 to R24): a unit comes up on an older copy of its store, or on an
// empty one.

// copyStore copies a unit's store as it is on flash, whether the unit runs or not: what is not
// synced is in no file.
func (c *cluster) copyStore(id int) (dir string, err error) {
	c.mu.Lock()
	c.copies++
	dir = filepath.Join(c.dir, "copy"+strconv.Itoa(c.copies))
	c.mu.Unlock()
	for range 5 { // a file may come or go meanwhile
		_ = os.RemoveAll(dir)
		if err = os.CopyFS(dir, os.DirFS(c.unitDir(id))); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return dir, err
		}
	}
	return dir, err
}

// replaceStore puts a copy of a store in the place of that of a unit, which is down; "": an empty
// one. It returns where the one before is now.
func (c *cluster) replaceStore(id int, with string) (was string, err error) {
	if was, err = c.copyStore(id); err != nil {
		return was, err
	}
	if err = os.RemoveAll(c.unitDir(id)); err != nil || with == "" {
		return was, err
	}
	return was, os.CopyFS(c.unitDir(id), os.DirFS(with))
}

// metaOf is what a store says of itself while no unit has it.
func metaOf(dir string) (flash.Meta, error) {
	in, err := flash.OpenInspector(dir)
	if err != nil {
		return flash.Meta{}, err
	}
	return in.Meta(), in.Close()
}

// backTo starts a unit, which runs or is down, on a copy of a store; "": on an empty one.
func (c *cluster) backTo(id int, with string) (was string, err error) {
	if bury, ok := c.kill(c.units, id, true); ok {
		bury()
	}
	if was, err = c.replaceStore(id, with); err != nil {
		return was, err
	}
	return was, c.startUnit(id)
}

// pasts are the faults of stores in a run: of one unit, so that each chain keeps members whose
// stores do not go back, as is promised.
type pasts struct {
	unit  int
	rand  *rand.Rand
	aside string // a copy of its store; "": none
	truth string // its store, as it last counted; "": it is in its place
	busy  bool
}

// pastFault does something to the store of the unit. It reports false if it did nothing.
func (x *injector) pastFault() {
	p := x.past
	if p.aside == "" || p.rand.IntN(3) == 0 {
		x.mu.Lock()
		busy := p.busy
		x.mu.Unlock()
		if busy {
			return
		}
		dir, err := x.c.copyStore(p.unit)
		if err != nil {
			return
		}
		p.aside = dir
		x.h.note("fault: a copy of the store of unit %d is put aside", p.unit)
		return
	}
	with := p.aside
	if p.rand.IntN(2) == 0 {
		with = ""
	}
	x.goBack(with, x.some())
}

// goBack starts the unit on another store, if it is one that rules R21 and R22 tell from its own:
// within an epoch, what became durable since the layout store last noted it may be lost (rule R23,
// docs/protocol.md).
func (x *injector) goBack(with string, after time.Duration) {
	p := x.past
	x.mu.Lock()
	busy := p.busy
	x.mu.Unlock()
	if busy || !x.isOld(with) {
		return
	}
	bury, ok := x.kill(p.unit, p.rand.IntN(2) == 0)
	if !ok {
		return
	}
	x.mu.Lock()
	p.busy = true
	x.mu.Unlock()
	x.h.note("fault: unit %d comes back after %v on another store: %q", p.unit, after, filepath.Base(with))
	x.wg.Go(func() {
		bury()
		time.Sleep(after)
		was, err := x.c.replaceStore(p.unit, with)
		if err == nil {
			if p.truth == "" || x.counts(was) {
				p.truth = was
			}
			err = x.c.startUnit(p.unit)
		}
		if err != nil {
			x.fail(fmt.Errorf("unit %d does not start on another store: %w", p.unit, err))
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		p.busy = false
	})
}

// isOld reports whether a store was never reconciled for the latest ACTIVE epoch.
func (x *injector) isOld(dir string) (old bool) {
	m := flash.Meta{}
	if dir != "" {
		var err error
		if m, err = metaOf(dir); err != nil {
			return false
		}
	}
	x.c.raft.look(func(s *layout.State) { old = s.Active() != nil && m.Reconciled.Epoch < s.Latest() })
	return old
}

// counts reports whether a store is the one that is a member of the latest ACTIVE epoch.
func (x *injector) counts(dir string) (ok bool) {
	m, err := metaOf(dir)
	if err != nil {
		return false
	}
	x.c.raft.look(func(s *layout.State) {
		r, known := s.Record(s.Latest())
		if !known || s.Active() == nil || !s.Active().IsMember(m.Unit) {
			return
		}
		trust, _ := r.Judge(m.Unit, layout.StoreState{Store: m.Store, Reconciled: m.Reconciled, Entries: true}, nil)
		ok = trust == layout.Trusted
	})
	return ok
}

// restoreTruth puts the unit's own store back if the log stands still without it, which is what it
// may do then.
func (x *run) restoreTruth(ctx context.Context) error {
	p := x.past
	if p == nil || p.truth == "" {
		return nil
	}
	try, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	l, err := x.c.open(try, "probe", client.Options{HoleTimeout: 5 * time.Millisecond, OpTimeout: 500 * time.Millisecond})
	if err == nil {
		var tail layout.Position
		if tail, err = l.Tail(try); err == nil && tail > 0 {
			_, err = l.Read(try, tail-1)
			if errors.Is(err, client.ErrJunk) || errors.Is(err, client.ErrTrimmed) || errors.Is(err, client.ErrFragment) || errors.Is(err, client.ErrUnwritten) {
				err = nil
			}
		}
	}
	if err == nil {
		return nil
	}
	x.h.note("the log stands still (%v): unit %d gets its own store back", err, p.unit)
	_, err = x.c.backTo(p.unit, p.truth)
	return err
}
