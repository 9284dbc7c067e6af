package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/messages"
	"corfu/rdma"
)

// fabricLink is the message connection to a member, over which it is sealed besides the control plane, and by which the leader knows
// whether the fabric carries to it. It is opened over the control plane while that works, so that it stands when that does not.
// Nil: this server has no fabric.
type fabricLink struct {
	dev   rdma.Device
	cc    grpc.ClientConnInterface
	ctx   context.Context
	end   context.CancelFunc
	opens sync.WaitGroup
	limit time.Duration // for a member to answer over a connection that stands

	mu      sync.Mutex
	conn    *messages.Conn
	busy    bool      // a connection is being opened, or tried
	next    time.Time // no attempt to open one before
	backoff time.Duration

	pulse    pulse // of the fabric, as far as it was tried
	answered bool  // since the last heartbeat
	err      error // why the last try failed; nil: it did not, or it was never begun
	addr     string
}

const (
	// fabricPatience is by how much longer than FailAfter nothing may come over the fabric: a member that is left out for it answers, and has to
	// be copied to anew, so that a busy machine must not look like a cut cable.
	fabricPatience = 2

	linkTimeout    = 2 * time.Second
	linkBackoffMax = 2 * time.Second
)

func newFabricLink(dev rdma.Device, cc grpc.ClientConnInterface, limit time.Duration) *fabricLink {
	if dev == nil {
		return nil
	}
	f := &fabricLink{dev: dev, cc: cc, limit: limit}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// current returns the connection, or nil if none stands.
func (f *fabricLink) current() *messages.Conn {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.standing()
}

// standing is current with mu held.
func (f *fabricLink) standing() *messages.Conn {
	if f.conn == nil || !f.conn.Alive() {
		return nil
	}
	return f.conn
}

// keep notes what the fabric brought since the last heartbeat, which took so long, and tries it again in the background: it opens a
// connection if none stands, and else asks over it. It is called with each heartbeat that is answered, since only then silence is the
// fabric's. resumed says that the heartbeat before was not: then the member, or this leader, stood still, and nothing was learned.
func (f *fabricLink) keep(took, limit, patience time.Duration, resumed bool) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.answered:
		f.pulse.beat(true, false, took, limit, patience)
	case resumed && !f.pulse.failed:
		f.pulse.silent, f.pulse.missed = 0, 0
	case f.busy || f.err != nil:
		f.pulse.beat(false, false, took, limit, patience)
	}
	f.answered = false
	conn := f.standing()
	if f.busy || f.ctx.Err() != nil || (conn == nil && time.Now().Before(f.next)) {
		return
	}
	f.busy = true
	if conn != nil {
		f.opens.Go(func() { f.try(conn) })
		return
	}
	old := f.conn
	f.conn = nil
	if old != nil {
		f.opens.Go(old.Close) // it may take its time
	}
	f.opens.Go(f.open)
}

// try asks over a connection that stands.
func (f *fabricLink) try(c *messages.Conn) {
	ctx, cancel := context.WithTimeout(f.ctx, f.limit)
	defer cancel()
	err := c.Ping(ctx)
	if err != nil && f.ctx.Err() == nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer over the fabric (%s) from %s within %v", f.dev.Info().Provider, c.Addr(), f.limit)
		} else {
			err = fmt.Errorf("the fabric connection to %s ended: %w", c.Addr(), err)
		}
		c.Close() // so that the next attempt opens another
	}
	f.took(nil, err)
}

// open makes a connection.
func (f *fabricLink) open() {
	ctx, cancel := context.WithTimeout(f.ctx, linkTimeout)
	defer cancel()
	c, err := messages.Open(ctx, f.cc, f.dev, messages.Sealer, 0)
	f.took(c, err)
}

// took notes what a try came to. A refusal by the control plane says nothing about the fabric.
func (f *fabricLink) took(c *messages.Conn, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
	if c != nil {
		f.conn, f.addr = c, c.Addr()
	}
	if f.backoff = min(max(2*f.backoff, backoffMin), linkBackoffMax); err == nil {
		f.backoff, f.answered, f.err = 0, true, nil
	}
	f.next = time.Now().Add(f.backoff)
	var dial *rdma.DialError
	var other *rdma.ProviderError
	switch {
	case err == nil || f.ctx.Err() != nil:
	case errors.As(err, &dial):
		f.addr, f.err = dial.Addr, dial
	case errors.As(err, &other):
		f.err = other
	case f.conn != nil && c == nil:
		f.err = err // of a connection that stood
	default:
		f.err = nil
	}
}

// sight is what the leader's link to a member shows.
type sight struct {
	known  bool          // the fabric was tried, with a result
	failed bool          // nothing came over it for fabricPatience times fail_after
	doubt  bool          // nothing came the last time
	silent time.Duration // for how long
	err    error
}

// look returns what the link shows.
func (f *fabricLink) look() sight {
	if f == nil {
		return sight{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := sight{known: f.pulse.heard || f.pulse.missed > 0, failed: f.pulse.failed, doubt: f.pulse.missed > 0, silent: f.pulse.silent, err: f.err}
	var other *rdma.ProviderError
	if errors.As(s.err, &other) { // no patience cures that
		s.known, s.failed, s.silent = true, true, max(s.silent, f.limit)
	}
	if s.err == nil && (s.doubt || s.failed) {
		s.err = fmt.Errorf("no answer over the fabric (%s) from %s for %v", f.dev.Info().Provider, f.addr, f.pulse.silent.Round(time.Millisecond))
	}
	return s
}

// again forgets for how long nothing came over the link, and tries it at once: what was in the way was not the member's.
func (f *fabricLink) again() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pulse = pulse{heard: f.pulse.heard}
	f.err, f.next, f.backoff = nil, time.Time{}, 0
}

// proving reports whether the fabric of the member failed too often to be trusted already.
func (f *fabricLink) proving(failAfter time.Duration) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pulse.proving(failAfter)
}

func (f *fabricLink) close() {
	if f == nil {
		return
	}
	f.end()
	f.opens.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		f.conn.Close()
		f.conn = nil
	}
}
