package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// memory is the network of the tests: TCP of a host of its own, as far as gRPC and Raft can tell.
// Nothing waits for the kernel in it, so that it works in a synctest bubble: there time-outs cost
// nothing, and none passes because the machine is busy.
var memory = memoryNet{listeners: map[string]*memoryListener{}}

const (
	memoryHost   = "127.77.0.1" // loopback, where no test opens a socket
	memoryBuffer = 256 << 10    // bytes on their way in one direction
)

type memoryNet struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
	last      int // port that was given out
}

// memoryDial connects gRPC in clear.
func memoryDial() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return memory.dial(ctx, addr) })}
}

// memoryListen listens at an address that memory gave out before; the empty string takes a free one.
func memoryListen(t *testing.T, addr string) (l net.Listener) {
	t.Helper()
	await(t, "listen at "+addr, func() (err error) {
		l, err = memory.listen(addr)
		return err
	})
	return l
}

func (n *memoryNet) listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr == "" {
		n.last++
		addr = fmt.Sprintf("%s:%d", memoryHost, n.last)
	}
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: at, Err: syscall.EADDRINUSE}
	}
	l := &memoryListener{at: at, queue: make(chan *memoryConn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

func (n *memoryNet) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	there, back := newMemoryPipe(), newMemoryPipe()
	from := &net.TCPAddr{IP: net.ParseIP(memoryHost), Port: 1}
	select {
	case l.queue <- &memoryConn{in: there, out: back, local: at, remote: from}:
		return &memoryConn{in: back, out: there, local: from, remote: at}, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memoryListener struct {
	at     *net.TCPAddr
	queue  chan *memoryConn
	closed chan struct{}
	once   sync.Once
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.at, Err: net.ErrClosed}
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		memory.mu.Lock()
		delete(memory.listeners, l.at.String())
		memory.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *memoryListener) Addr() net.Addr { return l.at }

// memoryPipe is one direction of a connection.
type memoryPipe struct {
	mu      sync.Mutex
	buf     []byte
	closed  bool
	changed chan struct{} // closed, and made anew, whenever anything changes
}

func newMemoryPipe() *memoryPipe { return &memoryPipe{changed: make(chan struct{})} }

// change calls f, and wakes all who wait.
func (p *memoryPipe) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// until calls try, which reports whether it is done, now and after each change until then.
func (p *memoryPipe) until(d *memoryDeadline, try func() bool) error {
	for {
		over := d.passed()
		p.mu.Lock()
		changed := p.changed
		select {
		case <-over:
			p.mu.Unlock()
			return os.ErrDeadlineExceeded
		default:
		}
		if try() {
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-over:
		}
	}
}

type memoryConn struct {
	in, out          *memoryPipe
	local, remote    net.Addr
	reading, writing memoryDeadline

	mu     sync.Mutex
	closed bool
}

func (c *memoryConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *memoryConn) Read(b []byte) (n int, err error) {
	late := c.in.until(&c.reading, func() bool {
		switch n = copy(b, c.in.buf); {
		case c.isClosed():
			n, err = 0, net.ErrClosed
		case n > 0:
			c.in.buf = c.in.buf[n:]
		case c.in.closed:
			err = io.EOF
		default:
			return len(b) == 0
		}
		return true
	})
	if late != nil {
		return 0, late
	}
	return n, err
}

func (c *memoryConn) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		late := c.out.until(&c.writing, func() bool {
			room := min(memoryBuffer-len(c.out.buf), len(b)-n)
			switch {
			case c.isClosed():
				err = net.ErrClosed
			case c.out.closed:
				err = syscall.EPIPE
			case room <= 0:
				return false
			default:
				c.out.buf = append(c.out.buf, b[n:n+room]...)
				n += room
			}
			return true
		})
		if late != nil {
			return n, late
		}
	}
	return n, err
}

// Close lets the peer read what was sent.
func (c *memoryConn) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return net.ErrClosed
	}
	for _, p := range []*memoryPipe{c.in, c.out} {
		p.change(func() { p.closed = true })
	}
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr  { return c.local }
func (c *memoryConn) RemoteAddr() net.Addr { return c.remote }

func (c *memoryConn) SetDeadline(at time.Time) error {
	_ = c.SetReadDeadline(at)
	return c.SetWriteDeadline(at)
}

func (c *memoryConn) SetReadDeadline(at time.Time) error {
	c.in.change(func() { c.reading.set(at) })
	return nil
}

func (c *memoryConn) SetWriteDeadline(at time.Time) error {
	c.out.change(func() { c.writing.set(at) })
	return nil
}

// memoryDeadline is when a direction of a connection gives up.
type memoryDeadline struct {
	mu    sync.Mutex
	over  chan struct{}
	timer *time.Timer
}

func (d *memoryDeadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer, d.over = nil, nil
	if at.IsZero() {
		return
	}
	over := make(chan struct{})
	d.over, d.timer = over, time.AfterFunc(time.Until(at), func() { close(over) })
}

// passed is closed when the deadline has passed; without one it never is.
func (d *memoryDeadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}
