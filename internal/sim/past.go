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
	"strings"
	"time"

	"corfu/client"
	"corfu/internal/mutant"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit/flash"
)

// Stores that go back (rules R21 to R27) while everything else goes on: those of units here, those
// of layout servers in pastlayout.go. Both keep within what docs/protocol.md promises; beyond.go
// exceeds it.

// Past says which stores go back in a run.
type Past string

const (
	PastNone   Past = ""
	PastUnits  Past = "units"  // of units: each chain keeps a member whose store did not go back
	PastLayout Past = "layout" // of a single layout server (rule R25)

	// Beyond the promise, when the workers have ended: the log must stop, and name the stores.
	PastChain   Past = "chain"   // of all units of a chain
	PastLayouts Past = "layouts" // of all layout servers
	PastLoss    Past = "loss"    // a unit is given up with --accept-loss, and comes back with what it had (rule R27)
)

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

// replaced reports whether what is said of a member is said of one whose store was replaced.
func (p *pasts) replaced(said string) bool {
	for u := range p.went {
		if strings.Contains(said, fmt.Sprintf("member=unit %d ", u)) {
			return true
		}
	}
	return false
}

// aside is a copy of a store.
type aside struct {
	dir     string
	changes uint64 // durable changes, and maybe some more (rule R23)
}

// pasts are the stores of a run that went back. Its maps are under the run's lock.
type pasts struct {
	rand  *rand.Rand
	only  int                            // the unit whose store goes back; 0: any
	aside map[int]aside                  // of units: the last copy of each store
	truth map[int]string                 // where the store is that counted last, of a unit that has another one
	went  map[layout.UnitID]layout.Epoch // units whose stores were replaced, and the highest epoch there was then
	busy  map[int]bool                   // units that are being killed, replaced or started
	store *storeBack                     // of the layout servers; nil: it is the one that it was
}

func newPasts(r *rand.Rand) *pasts {
	return &pasts{rand: r, aside: map[int]aside{}, truth: map[int]string{}, went: map[layout.UnitID]layout.Epoch{}, busy: map[int]bool{}}
}

// pastFault does something to a store.
func (x *injector) pastFault() {
	p := x.past
	if x.Past == PastLayout {
		x.layoutGoesBack()
		return
	}
	u := p.only
	if u == 0 {
		u = 1 + p.rand.IntN(len(x.c.units))
	}
	switch k := p.rand.IntN(12); {
	case k < 4:
		x.putAside(u)
	case k < 7:
		x.mu.Lock()
		old, ok := p.aside[u]
		x.mu.Unlock()
		if ok {
			x.goBack(u, old)
		}
	case k < 10:
		x.goBack(u, aside{})
	default:
		x.foreign(u)
	}
}

// putAside copies the store of a unit that runs.
func (x *injector) putAside(u int) {
	x.wg.Go(func() {
		dir, err := x.c.copyStore(u)
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		s, err := x.c.stateOf(ctx, u)
		if err != nil {
			return
		}
		x.h.note("fault: a copy of the store of unit %d is put aside, %d changes at most", u, s.GetStoreState().GetChanges())
		x.mu.Lock()
		defer x.mu.Unlock()
		x.past.aside[u] = aside{dir, s.GetStoreState().GetChanges()}
	})
}

// stateOf asks a unit for its state.
func (c *cluster) stateOf(ctx context.Context, u int) (*pb.UnitStateReply, error) {
	cc, err := c.dial(unitName(u) + ":control")
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	return pb.NewUnitServiceClient(cc).State(ctx, &pb.UnitStateRequest{})
}

// goBack starts a unit on another store, if it is one that rules R21 to R23 tell from its own, and
// each of its chains keeps a member whose store did not go back.
func (x *injector) goBack(u int, with aside) {
	after, noisy := x.some(), x.past.rand.IntN(2) == 0
	if !x.told(u, with) {
		return
	}
	bury, ok := x.killForGood(u, noisy)
	if !ok {
		return
	}
	x.h.note("fault: unit %d comes back after %v on another store: %q", u, after, filepath.Base(with.dir))
	x.wg.Go(func() {
		bury()
		time.Sleep(after)
		if err := x.replaced(u, with.dir); err != nil {
			x.fail(fmt.Errorf("unit %d does not start on another store: %w", u, err))
		}
		x.free(u)
	})
}

func (x *injector) free(u int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.past.busy[u] = false
}

// replaced starts a unit, which is down, on another store, and keeps the one that it had if that
// counted.
func (x *run) replaced(u int, with string) error {
	p := x.past
	was, err := x.c.replaceStore(u, with)
	if err != nil {
		return err
	}
	counted := x.counts(was)
	x.c.raft.look(func(s *layout.State) {
		x.mu.Lock()
		defer x.mu.Unlock()
		at, went := p.went[layout.UnitID(u)]
		if p.truth[u] == "" || (counted && (!went || at < s.Latest())) {
			p.truth[u] = was
		}
		p.went[layout.UnitID(u)] = s.Highest()
	})
	return x.c.startUnit(u)
}

// foreign starts a unit on a clone of the store of another one, or swaps the two stores. Units
// refuse what is not theirs, and get their own stores back.
func (x *injector) foreign(u int) {
	p := x.past
	v := 1 + p.rand.IntN(len(x.c.units))
	swap, after, noisy := p.rand.IntN(2) == 0, x.some(), p.rand.IntN(2) == 0
	if v == u {
		return
	}
	x.mu.Lock()
	clone := p.aside[v].dir
	x.mu.Unlock()
	if clone == "" && !swap {
		return
	}
	list := []int{u}
	if swap {
		list = append(list, v)
	}
	var buries []func()
	for _, w := range list {
		// Within an epoch of its own it would be a copy of it: the mutant takes it for that.
		if bury, ok := x.killForGood(w, noisy); ok {
			buries = append(buries, bury)
			continue
		}
		list = list[:len(buries)]
		break
	}
	swap = swap && len(list) == 2
	if len(list) == 0 {
		return
	}
	x.h.note("fault: unit %d comes back on a store of unit %d, swapped: %v, for %v", u, v, swap, after)
	x.wg.Go(func() {
		for _, bury := range buries {
			bury()
		}
		if swap {
			var err error
			if clone, err = x.c.copyStore(v); err != nil {
				x.fail(err)
				return
			}
		}
		own := map[int]string{}
		for i, w := range list {
			with := clone
			if i == 1 {
				with = own[u]
			}
			var err error
			if with == "" { // only one of two could be killed
				break
			}
			if own[w], err = x.c.replaceStore(w, with); err != nil {
				x.fail(err)
				return
			}
		}
		ran := false
		for w := range own {
			if err := x.c.startUnit(w); err == nil {
				ran = true
			} else if !errors.Is(err, flash.ErrOtherUnit) {
				x.fail(fmt.Errorf("unit %d on a store of another one: %w", w, err))
			}
		}
		if ran {
			x.c.raft.look(func(s *layout.State) {
				x.mu.Lock()
				defer x.mu.Unlock()
				for w := range own {
					p.went[layout.UnitID(w)] = s.Highest()
				}
			})
		}
		if ran && !mutant.R21 {
			x.fail(fmt.Errorf("one of the units %v runs on a store of another one", list))
		}
		time.Sleep(after)
		for _, w := range list {
			if dir, ok := own[w]; ok && !ran {
				if _, err := x.c.replaceStore(w, dir); err != nil {
					x.fail(err)
				}
			}
			if !ran {
				if err := x.c.startUnit(w); err != nil {
					x.fail(fmt.Errorf("unit %d does not start on its own store: %w", w, err))
				}
			}
			x.free(w)
		}
	})
}

// killForGood ends the life of a unit whose store is to be replaced, if the promise allows that:
// each chain that names it keeps a member whose store did not go back. While an epoch is
// undecided, nobody knows whose chains count.
func (x *injector) killForGood(u int, noisy bool) (bury func(), ok bool) {
	p := x.past
	allowed := false
	x.c.raft.look(func(s *layout.State) {
		x.mu.Lock()
		defer x.mu.Unlock()
		a := s.Active()
		if a == nil || s.Highest() != a.Epoch || p.busy[u] {
			return
		}
		for _, seg := range a.Segments {
			for _, ch := range seg.Chains {
				named, kept := false, false
				for _, v := range ch.Units {
					at, went := p.went[v]
					named = named || int(v) == u
					kept = kept || (int(v) != u && !p.busy[int(v)] && (!went || at < a.Epoch))
				}
				if named && !kept {
					return
				}
			}
		}
		allowed = true
		p.busy[u] = true
	})
	if !allowed {
		return nil, false
	}
	if bury, ok = x.kill(u, noisy); !ok {
		x.free(u)
	}
	return bury, ok
}

// told reports whether the rules tell a store from that of a unit: it is another one, or it was
// never reconciled for the latest ACTIVE epoch, or it has less than the layout store has noted
// (rule R23; what is in its window may be lost, docs/protocol.md).
func (x *injector) told(u int, with aside) (ok bool) {
	if with.dir == "" {
		return true
	}
	m, err := metaOf(with.dir)
	if err != nil {
		return false
	}
	x.c.raft.look(func(s *layout.State) {
		if s.Active() == nil {
			return
		}
		ok = m.Reconciled.Epoch < s.Latest()
		for _, n := range s.Notes() {
			ok = ok || (int(n.Unit) == u && n.Reconciled == m.Reconciled && with.changes < n.Changes)
		}
	})
	return ok
}

// counts reports whether a store is the one that is a member of the latest ACTIVE epoch.
func (x *run) counts(dir string) (ok bool) {
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

// probe reports whether the log can be read.
func (x *run) probe(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	l, err := x.c.open(try, "probe", client.Options{HoleTimeout: 5 * time.Millisecond, OpTimeout: 500 * time.Millisecond})
	if err != nil {
		return err
	}
	tail, err := l.Tail(try)
	if err != nil || tail == 0 {
		return err
	}
	_, err = l.Read(try, tail-1)
	if errors.Is(err, client.ErrJunk) || errors.Is(err, client.ErrTrimmed) || errors.Is(err, client.ErrFragment) || errors.Is(err, client.ErrUnwritten) {
		return nil
	}
	return err
}

// restoreTruth puts the true stores back if the log stands still without them, which is what it may
// do then, if it says why.
func (x *run) restoreTruth(ctx context.Context) error {
	p := x.past
	if p == nil {
		return nil
	}
	if x.storeForgot() {
		return x.restoreLayout()
	}
	if len(p.truth) == 0 && p.store == nil {
		return nil
	}
	err := x.probe(ctx)
	if err == nil {
		return nil
	}
	said := x.c.waitsFor(ctx)
	x.h.note("the log stands still (%v), and says %q: true stores come back", err, said)
	if p.store != nil {
		return x.restoreLayout()
	}
	latest, named := x.latest(), false
	for u := range x.c.units {
		u++
		if dir := p.truth[u]; dir != "" && (p.went[layout.UnitID(u)] >= latest || !x.counts(x.c.unitDir(u))) {
			named = named || strings.Contains(said, fmt.Sprintf("unit %d", u)) || strings.Contains(said, "lost their past")
			if _, err := x.c.backTo(u, dir); err != nil {
				return err
			}
		}
	}
	if !named {
		return fmt.Errorf("the log stands still (%w), and names no store that went back, but %q", err, said)
	}
	return nil
}
