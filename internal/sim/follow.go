package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/client"
	"corfu/internal/history"
	"corfu/layout"
)

// following is a follower of a run: it is given every entry from position 0 on, whatever happens.
type following struct {
	who, id int
	l       *client.Log
	h       *History

	mu    sync.Mutex
	next  layout.Position          // behind the last entry that it was given
	given map[layout.Position]bool // where entries begin
}

func newFollowing(who, id int, l *client.Log, h *History) *following {
	return &following{who: who, id: id, l: l, h: h, given: map[layout.Position]bool{}}
}

// run follows until ctx ends. It fails if the log lost something.
func (f *following) run(ctx context.Context) error {
	for ctx.Err() == nil {
		called := f.h.tick() // each entry was read at some time after this
		for e, err := range f.l.Follow(ctx, f.next) {
			var trimmed *client.TrimmedError
			var beyond *client.BeyondTailError
			switch {
			case errors.As(err, &trimmed):
				f.pass(trimmed.To, false)
			case errors.As(err, &beyond):
				return fmt.Errorf("follower %d: %w", f.id, err)
			case errors.Is(err, client.ErrClosed), ctx.Err() != nil:
				return nil
			case err != nil:
				f.h.note("follower %d from %d: %v", f.id, f.next, err)
				time.Sleep(10 * time.Millisecond)
			case e.Position < f.next:
				return fmt.Errorf("follower %d: position %d after %d", f.id, e.Position, f.next-1)
			default:
				f.h.add(history.Op{Client: f.id, Kind: history.Read, Position: e.Position, Out: string(e.Payload), Called: called, Returned: f.h.tick()})
				f.pass(e.Position, true)
			}
		}
	}
	return nil
}

func (f *following) pass(p layout.Position, entry bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next = p; entry {
		f.given[p] = true
		f.next++
	}
}

func (f *following) at() layout.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// missed returns an error if an acknowledged entry, which nobody trimmed, lies behind the follower and was not given to it.
func (f *following) missed(all *history.History) error {
	trimmed := func(p layout.Position) bool {
		for _, x := range all.Prefixes {
			if x.Below > p {
				return true
			}
		}
		for _, o := range all.Ops {
			if o.Kind == history.Trim && o.Position >= p && o.Position < p+largest {
				return true
			}
		}
		return false
	}
	for _, o := range all.Ops {
		if o.Kind == history.Append && o.Position < f.next && !f.given[o.Position] && !trimmed(o.Position) {
			return fmt.Errorf("follower %d: it is at %d, and was not given %v", f.id, f.next, o)
		}
	}
	return nil
}

// followers follow the log with every client of a run.
type followers struct {
	all    []*following
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// firstFollower is the id of the first one in the history.
const firstFollower = 2000

func (x *run) startFollowers(ctx context.Context, logs []*client.Log) *followers {
	fs := &followers{}
	ctx, fs.cancel = context.WithCancel(ctx)
	if !x.Follows {
		return fs
	}
	for i, l := range logs {
		f := newFollowing(i, firstFollower+i, l, x.h)
		fs.all = append(fs.all, f)
		fs.wg.Go(func() {
			if err := f.run(ctx); err != nil {
				x.fail(err)
			}
		})
	}
	return fs
}

// soon is how long after it was acknowledged an entry reaches all followers, once nothing is broken: a client may have
// to find out that the connections that it has are dead.
const soon = time.Minute

// finish sees that every follower of a client that lives is given one more entry, and all before it.
func (fs *followers) finish(ctx context.Context, x *run) error {
	defer fs.wg.Wait()
	defer fs.cancel()
	if len(fs.all) == 0 {
		return nil
	}
	l, err := x.c.open(ctx, "last", client.Options{OpTimeout: 500 * time.Millisecond})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	called := x.h.tick()
	p, err := l.Append(ctx, []byte("the last"))
	if err != nil {
		return fmt.Errorf("the last append: %w", err)
	}
	x.h.add(history.Op{Client: firstFollower - 1, Kind: history.Append, Position: p, Payload: "the last", Called: called, Returned: x.h.tick()})
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		var behind *following
		for _, f := range fs.all {
			if !x.dead[f.who].Load() && f.at() <= p {
				behind = f
			}
		}
		if behind == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("follower %d is at %d %v after position %d was acknowledged", behind.id, behind.at(), soon, p)
		}
	}
	fs.cancel()
	fs.wg.Wait()
	x.h.mu.Lock()
	defer x.h.mu.Unlock()
	for _, f := range fs.all {
		if err := f.missed(&x.h.known); err != nil {
			return err
		}
	}
	return nil
}
