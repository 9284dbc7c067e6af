package sim

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"corfu/client"
)

// pastRun is a cluster of two units and one layout server for a script.
func pastRun(t *testing.T, script func(ctx context.Context, x three, l *client.Log, h *History) error) (err error) {
	t.Helper()
	dir, h := scratch(t), newHistory()
	synctest.Test(t, func(t *testing.T) {
		f := NewFabric(*seedFlag, Weird{Late: time.Microsecond, Disk: 10 * time.Microsecond})
		log := slog.New(slog.DiscardHandler)
		if *logFlag {
			log = slog.Default()
		}
		c, e := start(f, dir, Shape{Chains: 1, Replicas: 2, Layouts: 1, Heals: true}, 2*time.Millisecond, log)
		if e != nil {
			t.Fatal(e)
		}
		defer func() {
			c.close()
			time.Sleep(time.Minute)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		x := three{t, c, f}
		err = script(ctx, x, x.open(ctx, "client"), h)
	})
	if *traceFlag {
		for _, line := range h.trace {
			t.Log(line)
		}
	}
	return errors.Join(err, h.known.Check())
}

func (x three) open(ctx context.Context, name string) *client.Log {
	x.Helper()
	l, err := x.c.open(ctx, name, client.Options{HoleTimeout: time.Millisecond, OpTimeout: 100 * time.Millisecond})
	if err != nil {
		x.Fatal(err)
	}
	return l
}

func (x three) kill(id int) {
	if bury, ok := x.c.kill(x.c.units, id, true); ok {
		bury()
	}
}

// tries reads a position, which may have no answer now.
func tries(ctx context.Context, l *client.Log, h *History) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for p := range l.Layout().Start + 2 {
		_ = h.read(ctx, l, 1, p)
	}
}

// tailGoesBack appends an entry after a store was copied, ends both units, and starts the tail alone
// on the copy: on an older one of its own store, when what it had since is noted, or at once on one
// of the head's. Then the true stores come back.
func tailGoesBack(t *testing.T, of int) error {
	return pastRun(t, func(ctx context.Context, x three, l *client.Log, h *History) error {
		h.append(ctx, l, 1, "before")
		dir, err := x.c.copyStore(of)
		if err != nil {
			x.Fatal(err)
		}
		h.append(ctx, l, 1, "after")
		if of == 2 {
			time.Sleep(notedWithin)
		}
		x.kill(1)
		x.kill(2)
		own, err := x.c.replaceStore(2, dir)
		if err != nil {
			x.Fatal(err)
		}
		if err := x.c.startUnit(2); err != nil {
			h.note("refused: %v", err)
		}
		time.Sleep(3 * time.Second)
		if err := x.c.startUnit(1); err != nil {
			x.Fatal(err)
		}
		tries(ctx, l, h)
		if _, err := x.c.backTo(2, own); err != nil {
			x.Fatal(err)
		}
		return errors.Join(h.read(ctx, l, 1, 0), h.read(ctx, l, 1, 1))
	})
}

// Rule R21: a unit does not serve with a store of another one, whose note is as good as its own.
func TestR21ClonesDoNotCount(t *testing.T) {
	if err := tailGoesBack(t, 1); err != nil {
		t.Error(err)
	}
}

// Rule R23: an older copy of the same epoch does not count, once it is noted what the unit had.
func TestR23OldCopiesDoNotCountWithinAnEpoch(t *testing.T) {
	if err := tailGoesBack(t, 2); err != nil {
		t.Error(err)
	}
}

// layoutForgets makes an epoch without the tail, in which an entry is acknowledged. Then the layout
// store forgets that epoch, and only the tail is there.
func layoutForgets(t *testing.T) error {
	return pastRun(t, func(ctx context.Context, x three, l *client.Log, h *History) error {
		old := x.c.raft.committed()
		x.kill(2)
		h.append(ctx, l, 1, "acknowledged")
		if e := l.Layout().Epoch; e < 2 {
			x.Fatalf("the append was in epoch %d", e)
		}
		swap := func(to [][]byte) (was [][]byte) {
			bury, _ := x.c.killLayouts(true)
			bury()
			was = x.c.raft.goBack(to)
			if err := x.c.startLayouts(); err != nil {
				x.Fatal(err)
			}
			return was
		}
		x.kill(1)
		if err := x.c.startUnit(2); err != nil {
			x.Fatal(err)
		}
		truth := swap(old)
		time.Sleep(3 * time.Second)
		tries(ctx, x.open(ctx, "late"), h)
		if err := x.c.startUnit(1); err != nil {
			x.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		swap(truth)
		return h.read(ctx, x.open(ctx, "reader"), 1, 0)
	})
}

// Rule R25: a single layout server whose directory went back decides nothing before it has heard all
// members, and then it knows.
func TestR25LayoutServerThatWentBackDecidesNothing(t *testing.T) {
	if err := layoutForgets(t); err != nil {
		t.Error(err)
	}
}
