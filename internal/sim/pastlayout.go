package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// storeBack is a layout store that went back.
type storeBack struct {
	truth  [][]byte     // the commands that it had
	latest layout.Epoch // ACTIVE by them
}

// goBack puts other commands in the place of those that were committed, as if the directories of
// all layout servers, which are down, were older copies. It returns those that there were.
func (c *consensus) goBack(to [][]byte) (was [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, c.log, c.state = c.log, slices.Clone(to), layout.NewState()
	c.records.said = map[layout.Epoch]layout.Record{}
	for _, b := range c.log {
		if cmd, err := layout.DecodeCommand(b); err == nil {
			_, _ = c.state.Apply(cmd)
			c.records.watch(c.state)
		}
	}
	return was
}

// committed are the commands so far.
func (c *consensus) committed() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

// killLayouts ends all layout servers. False: one of them is down, and nothing was done.
func (c *cluster) killLayouts(noisy bool) (bury func(), ok bool) {
	var all []func()
	for i := range c.layouts {
		if b, ok := c.kill(c.layouts, i+1, noisy); ok {
			all = append(all, b)
		}
	}
	return func() {
		for _, b := range all {
			b()
		}
	}, len(all) == len(c.layouts)
}

func (c *cluster) startLayouts() error {
	var errs []error
	for i := range c.layouts {
		errs = append(errs, c.startLayout(i+1))
	}
	c.raft.elect(layoutName(1))
	return errors.Join(errs...)
}

// layoutGoesBack starts the only layout server on an older copy of its directory, or on an empty
// one.
func (x *injector) layoutGoesBack() {
	p := x.past
	after, noisy, part := x.some(), p.rand.IntN(2) == 0, p.rand.Float64()
	if p.rand.IntN(4) == 0 {
		part = 0
	}
	x.mu.Lock()
	again := p.store != nil // which of two would be the true one, no run knows
	x.mu.Unlock()
	if again {
		return
	}
	bury, ok := x.c.killLayouts(noisy)
	if !ok {
		return
	}
	x.wg.Go(func() {
		bury()
		time.Sleep(after)
		x.storeGoesBack(part)
		if err := x.c.startLayouts(); err != nil {
			x.fail(err)
		}
	})
}

// storeGoesBack makes the layout store forget all but a part of its commands, and keeps those that
// counted.
func (x *run) storeGoesBack(part float64) {
	now := x.c.raft.committed()
	keep := int(part * float64(len(now)))
	latest := x.latest()
	was := x.c.raft.goBack(now[:keep])
	x.mu.Lock()
	x.past.store = &storeBack{was, latest}
	x.mu.Unlock()
	x.h.note("fault: the layout store goes back: it keeps %d of %d commands, epoch %d was active", keep, len(now), latest)
}

// storeForgot reports whether the layout store has forgotten an epoch that was ACTIVE, and knows
// nothing newer.
func (x *run) storeForgot() (forgot bool) {
	x.mu.Lock()
	p := x.past.store
	x.mu.Unlock()
	x.c.raft.look(func(s *layout.State) { forgot = p != nil && s.Latest() < p.latest })
	return forgot
}

// restoreLayout gives the layout servers their true store again.
func (x *run) restoreLayout() error {
	bury, ok := x.c.killLayouts(true)
	bury()
	if !ok {
		return errors.New("a layout server is down at the end")
	}
	x.c.raft.goBack(x.past.store.truth)
	x.past.store = nil
	x.h.note("the layout servers get their own store back")
	return x.c.startLayouts()
}

// dial opens a control connection as an operator does.
func (c *cluster) dial(addr string) (*grpc.ClientConn, error) {
	return control.Dial(addr, c.f.NewHost("admin").DialOptions()...)
}

// status asks the layout servers how things are.
func (c *cluster) status(ctx context.Context) (s *pb.StatusReply, err error) {
	for _, addr := range c.names {
		cc, e := c.dial(addr)
		if e != nil {
			return nil, e
		}
		try, cancel := context.WithTimeout(ctx, time.Second)
		s, e = pb.NewLayoutServiceClient(cc).Status(try, &pb.StatusRequest{})
		cancel()
		_ = cc.Close()
		if e == nil {
			return s, nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w", addr, e))
	}
	return nil, err
}

// waitsFor is what the leader of the layout servers says that it waits for.
func (c *cluster) waitsFor(ctx context.Context) string {
	s, err := c.status(ctx)
	if err != nil {
		return err.Error()
	}
	return s.GetPhase()
}
