package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"corfu/rdma"
)

// Limits of a connection's options.
const (
	maxDepth   = 8192
	maxMessage = 1 << 20 // bytes
)

// grace is how long a broken connection still takes what the peer sent before the
// end: answers that are on their way, above all the NAK that says why.
const grace = 500 * time.Millisecond

// conn is one end of a connection. It consists of an initiator, which posts on the
// socket out and takes the answers from it, and a responder, which executes the
// peer's requests from the socket in. Each has one goroutine that reads; they
// share nothing but the state here.
//
// Lock order: initiator.mu, conn.mu. Device.mu and the locks of table and region are leaves.
type conn struct {
	dev    *Device
	opts   rdma.ConnOptions
	remote string
	out    *net.TCPConn
	in     *net.TCPConn

	init initiator
	resp responder
	msgs inbox

	broken chan struct{}

	mu      sync.Mutex
	err     error // why it broke; nil while it stands
	closing bool  // Close was called

	running sync.WaitGroup // all goroutines
	once    sync.Once
}

var _ rdma.Conn = (*conn)(nil)

// checkOptions fills in defaults and reports every field out of range.
func checkOptions(o rdma.ConnOptions) (rdma.ConnOptions, error) {
	o = o.WithDefaults()
	if o.MaxRDAtomic == 0 {
		o.MaxRDAtomic = maxDepth
	}
	var errs []error
	check := func(name string, v, lo, hi int) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s is %d, not in %d to %d", name, v, lo, hi))
		}
	}
	check("SendDepth", o.SendDepth, 1, maxDepth)
	check("RecvDepth", o.RecvDepth, 1, maxDepth)
	check("MaxMessage", o.MaxMessage, 1, maxMessage)
	check("MaxRDAtomic", o.MaxRDAtomic, 1, maxDepth)
	check("RetryCount", o.RetryCount, 1, 6)
	if o.AckTimeout < 0 || o.AckTimeout > time.Minute {
		errs = append(errs, fmt.Errorf("AckTimeout is %v, not in 0 to 1m", o.AckTimeout))
	}
	if errs != nil {
		return o, fmt.Errorf("tcp: options: %w: %w", rdma.ErrInvalid, errors.Join(errs...))
	}
	return o, nil
}

// timeout is when a silent peer is dead.
func timeout(o rdma.ConnOptions) time.Duration {
	return max(minTimeout, o.AckTimeout*time.Duration(o.RetryCount+1))
}

// newConn starts a connection on two sockets that are through the handshake. On
// failure the sockets are the caller's to close.
func newConn(d *Device, o rdma.ConnOptions, out, in *net.TCPConn) (*conn, error) {
	for _, s := range []*net.TCPConn{out, in} {
		if err := errors.Join(s.SetDeadline(time.Time{}), tune(s, timeout(o))); err != nil {
			return nil, fmt.Errorf("tcp: connection: %w", err)
		}
	}
	w, err := newTryWriter(out)
	if err != nil {
		return nil, fmt.Errorf("tcp: connection: %w", err)
	}
	if err := d.hold(&d.conns); err != nil {
		return nil, err
	}
	c := &conn{dev: d, opts: o, remote: out.RemoteAddr().String(), out: out, in: in, broken: make(chan struct{})}
	c.msgs.setup(o.RecvDepth)
	c.init.setup(c, w)
	c.resp.setup(&d.regions, &c.msgs, in, o, c.broken)
	c.running.Add(2)
	go c.runInitiator()
	go c.runResponder()
	return c, nil
}

// runInitiator takes answers until the connection breaks, and then ends what is in
// flight. It alone writes into the memory of READs, so once it ended the batches
// nothing of them is touched any more.
func (c *conn) runInitiator() {
	defer c.running.Done()
	c.fail(c.init.readAnswers())
	c.init.abandon(c.Err())
	_ = c.out.Close()
}

// runResponder executes requests until the connection breaks.
func (c *conn) runResponder() {
	defer c.running.Done()
	err := c.resp.serve()
	c.fail(err)
	c.msgs.end()
	var refused *refusal
	if errors.As(err, &refused) {
		c.linger()
	}
	_ = c.in.Close()
}

// linger lets the peer read the NAK. Closing a socket with unread requests in it
// would send a reset, which may overtake the NAK; so the rest is read and dropped
// until the peer hangs up.
func (c *conn) linger() {
	c.mu.Lock()
	if !c.closing {
		_ = c.in.SetReadDeadline(time.Now().Add(grace))
	}
	c.mu.Unlock()
	_ = c.in.CloseWrite()
	_, _ = io.Copy(io.Discard, c.in)
}

// fail breaks the connection, once. Both readers find out by their deadlines.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("closed by the peer")
	}
	if c.err = err; !errors.Is(err, rdma.ErrClosed) {
		c.err = fmt.Errorf("tcp: %w: %w", rdma.ErrBroken, err)
	}
	close(c.broken)
	now := time.Now()
	_ = c.out.SetWriteDeadline(now)
	_ = c.in.SetDeadline(now)
	if !errors.Is(err, errProtocol) { // nothing is expected of that kind of peer
		now = now.Add(grace)
	}
	_ = c.out.SetReadDeadline(now)
}

func (c *conn) Broken() <-chan struct{} { return c.broken }

func (c *conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *conn) isBroken() bool {
	select {
	case <-c.broken:
		return true
	default:
		return false
	}
}

// closedErr is what a post after the end gets.
func (c *conn) closedErr() error {
	err := c.Err()
	if errors.Is(err, rdma.ErrClosed) {
		return err
	}
	// Not wrapped: nothing was posted, so ErrBroken's "unknown" must not be found here.
	return fmt.Errorf("tcp: post: %w: %v", rdma.ErrClosed, err)
}

func (c *conn) RemoteAddr() string { return c.remote }

// Close does not tell the peer more than the end of its sockets does.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.fail(fmt.Errorf("tcp: connection: %w", rdma.ErrClosed))
		c.mu.Lock()
		c.closing = true
		now := time.Now()
		_ = c.out.SetDeadline(now)
		_ = c.in.SetDeadline(now)
		c.mu.Unlock()
		c.running.Wait()
		c.dev.release(&c.dev.conns)
	})
	return nil
}

func (c *conn) Post(ctx context.Context, b *rdma.Batch) error { return c.init.post(ctx, b) }

// Wait sleeps at once, whatever Spin says: the goroutine to wait for needs the CPU.
func (c *conn) Wait(ctx context.Context, b *rdma.Batch) error {
	if !b.InFlight() {
		return fmt.Errorf("tcp: wait: %w: batch not in flight", rdma.ErrInvalid)
	}
	if ctx.Done() == nil {
		<-b.Done()
		return b.Taken()
	}
	select {
	case <-b.Done():
		return b.Taken()
	default:
	}
	select {
	case <-b.Done():
		return b.Taken()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *conn) Do(ctx context.Context, b *rdma.Batch) error {
	if err := c.Post(ctx, b); err != nil {
		return err
	}
	return c.Wait(ctx, b)
}

func (c *conn) Receive(fn func(msg []byte)) error {
	if c.msgs.receive(fn) {
		return nil
	}
	err := c.Err()
	if errors.Is(err, rdma.ErrClosed) {
		return err
	}
	return fmt.Errorf("tcp: receive: %w", err)
}
