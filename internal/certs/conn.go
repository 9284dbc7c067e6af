package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// HandshakeTimeout is how long a peer may take to say who it is.
	HandshakeTimeout = 10 * time.Second
	// pendingHandshakes is how many peers may be about to; more are turned away.
	pendingHandshakes = 256
)

// expiring is a connection that ends when its peer's certificate does.
type expiring struct {
	net.Conn
	end    *time.Timer
	forget func()
}

// Expire gives a connection that breaks when the certificates of its peer end, or are revoked: a renewed one has to be shown by then, on a new connection.
func (s *Source) Expire(c net.Conn, cs tls.ConnectionState) net.Conn {
	if len(cs.PeerCertificates) == 0 {
		return c
	}
	end := func() { _ = c.Close() }
	return &expiring{c, time.AfterFunc(time.Until(cs.PeerCertificates[0].NotAfter), end), s.Standing(cs).OnRevoked(end)}
}

func (e *expiring) Close() error {
	e.end.Stop()
	e.forget()
	return e.Conn.Close()
}

// Dial connects to host:port, whose certificate must name the host and one of the roles, if any is given.
func (s *Source) Dial(ctx context.Context, addr string, roles ...Role) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{Config: s.Client(host, nil, roles...)}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return s.Expire(c, c.(*tls.Conn).ConnectionState()), nil
}

// listener gives connections whose handshake is over.
type listener struct {
	net.Listener
	source *Source
	config *tls.Config
	ready  chan net.Conn
	slots  chan struct{} // one for each handshake
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

// Listen puts TLS before what comes in at l, from peers of the roles, any if none is given. Handshakes run beside each other, so that a silent peer delays
// nobody, and those that do not succeed are never seen by the caller. Close closes l.
func (s *Source) Listen(l net.Listener, roles ...Role) net.Listener {
	t := &listener{Listener: l, source: s, config: s.Server(nil, roles...), ready: make(chan net.Conn), slots: make(chan struct{}, pendingHandshakes)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.run)
	return t
}

func (t *listener) run() {
	for {
		c, err := t.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || t.ctx.Err() != nil:
			return
		case err != nil: // out of file descriptors, most likely
			select {
			case <-time.After(10 * time.Millisecond):
				continue
			case <-t.ctx.Done():
				return
			}
		}
		select {
		case t.slots <- struct{}{}:
			t.wg.Go(func() {
				defer func() { <-t.slots }()
				t.handshake(c)
			})
		default:
			_ = c.Close()
		}
	}
}

func (t *listener) handshake(c net.Conn) {
	ctx, cancel := context.WithTimeout(t.ctx, HandshakeTimeout)
	defer cancel()
	x := tls.Server(c, t.config)
	if err := x.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // it is what closed the connection
		}
		t.source.HandshakeRefused(c, err)
		_ = c.Close()
		return
	}
	select {
	case t.ready <- t.source.Expire(x, x.ConnectionState()):
	case <-t.ctx.Done():
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (t *listener) Accept() (net.Conn, error) {
	select {
	case c := <-t.ready:
		return c, nil
	case <-t.ctx.Done():
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: t.Addr(), Err: net.ErrClosed}
	}
}

// Close implements net.Listener.
func (t *listener) Close() error {
	t.once.Do(func() {
		t.cancel()
		t.err = t.Listener.Close()
		t.wg.Wait()
	})
	return t.err
}
