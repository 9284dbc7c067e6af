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

const (
	// handshakeTimeout bounds every record of the handshake, so that a silent peer costs little.
	handshakeTimeout = 5 * time.Second
	// backlog is how many requests wait for Accept, and how many sockets are in the handshake.
	// Further ones are turned away.
	backlog    = 128
	handshakes = 1024
)

// listener pairs sockets into requests.
type listener struct {
	dev  *Device
	sock *net.TCPListener

	requests chan *request
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	once     sync.Once
	slots    chan struct{} // one for each socket in the handshake

	mu   sync.Mutex
	half map[token]*half // the first of two sockets, whichever came first

	running sync.WaitGroup
}

// half is a socket that waits for its twin.
type half struct {
	hello *hello
	sock  *net.TCPConn
	twin  chan *half // gets the other one, or nothing in time
}

// Listen waits for connections on "host:port"; an empty host is the device's address.
func (d *Device) Listen(addr string) (rdma.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("tcp: listen: %w: %v", rdma.ErrInvalid, err)
	}
	if host == "" {
		host = d.opts.Addr
	}
	if err := d.mayUse(host); err != nil {
		return nil, fmt.Errorf("tcp: listen: %w", err)
	}
	if err := d.hold(&d.listen); err != nil {
		return nil, err
	}
	sock, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		d.release(&d.listen)
		return nil, fmt.Errorf("tcp: listen: %w", err)
	}
	l := &listener{
		dev:      d,
		sock:     sock.(*net.TCPListener),
		requests: make(chan *request, backlog),
		slots:    make(chan struct{}, handshakes),
		half:     make(map[token]*half),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Add(1)
	go l.run()
	return l, nil
}

func (l *listener) Addr() string { return l.sock.Addr().String() }

// run takes sockets until Close.
func (l *listener) run() {
	defer l.running.Done()
	for {
		s, err := l.sock.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely. Others will be closed.
			select {
			case <-time.After(10 * time.Millisecond):
				continue
			case <-l.ctx.Done():
				return
			}
		}
		select {
		case l.slots <- struct{}{}:
			l.running.Add(1)
			go l.handshake(s)
		default:
			_ = s.Close()
		}
	}
}

// handshake reads a hello and finds the socket's twin. The socket that came first
// waits and makes the request; the second only hands itself over.
func (l *listener) handshake(s *net.TCPConn) {
	defer l.running.Done()
	defer func() { <-l.slots }()
	h, err := l.readHello(s)
	if err != nil {
		_ = s.Close()
		return
	}
	if h.version != version {
		turnAway(s, fmt.Sprintf("version %d, not %d", h.version, version))
		return
	}
	me := &half{hello: h, sock: s, twin: make(chan *half, 1)}
	if !l.pair(me) {
		return
	}
	var twin *half
	select {
	case twin = <-me.twin:
	case <-time.After(handshakeTimeout):
	case <-l.ctx.Done():
	}
	if twin == nil {
		twin = l.unpair(me)
	}
	if twin == nil {
		_ = s.Close()
		return
	}
	l.offer(me, twin)
}

// pair gives me to its twin and reports false, or leaves it for one to come.
func (l *listener) pair(me *half) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.half[me.hello.token]
	if first == nil {
		l.half[me.hello.token] = me
		return true
	}
	delete(l.half, me.hello.token)
	first.twin <- me
	return false
}

// unpair ends the wait of me. The twin may have come in the last moment.
func (l *listener) unpair(me *half) *half {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.half[me.hello.token] == me {
		delete(l.half, me.hello.token)
		return nil
	}
	return <-me.twin
}

// offer makes a request of two sockets and queues it for Accept.
func (l *listener) offer(a, b *half) {
	if a.hello.role == roleReverse {
		a, b = b, a
	}
	if a.hello.role != roleForward || b.hello.role != roleReverse {
		_ = a.sock.Close()
		_ = b.sock.Close()
		return
	}
	r := &request{dev: l.dev, hello: a.hello, forward: a.sock, reverse: b.sock}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.ctx.Done():
		_ = r.Reject("listener closed")
		return
	default:
	}
	select {
	case l.requests <- r:
	default:
		_ = r.Reject("too many requests waiting")
	}
}

// Accept waits for the next request. It fails with ErrClosed once the listener is closed.
func (l *listener) Accept(ctx context.Context) (rdma.Request, error) {
	select {
	case r := <-l.requests:
		return r, nil
	case <-l.ctx.Done():
		return nil, fmt.Errorf("tcp: accept: %w", rdma.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("tcp: accept: %w", ctx.Err())
	}
}

// Close turns away the requests that nobody accepted. Idempotent.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		l.cancel()
		l.mu.Unlock()
		_ = l.sock.Close()
		l.running.Wait()
		for len(l.requests) > 0 {
			_ = (<-l.requests).Reject("listener closed")
		}
		l.dev.release(&l.dev.listen)
	})
	return nil
}

// readHello gives up when its time is over or the listener closes.
func (l *listener) readHello(s *net.TCPConn) (*hello, error) {
	if err := s.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(l.ctx, func() { _ = s.SetReadDeadline(time.Now()) })
	defer stop()
	var b [helloSize]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return nil, err
	}
	return decodeHello(b[:])
}

func writeReply(s *net.TCPConn, r *reply) error {
	if err := s.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	_, err := s.Write(r.encode())
	return err
}

// turnAway rejects and closes a socket.
func turnAway(s *net.TCPConn, reason string) error {
	err := writeReply(s, &reply{version: version, rejected: true, reason: reason})
	return errors.Join(err, s.Close())
}

// request is a peer that waits for an answer.
type request struct {
	dev              *Device
	hello            *hello
	forward, reverse *net.TCPConn

	mu       sync.Mutex
	answered bool
}

func (r *request) Private() []byte    { return r.hello.private }
func (r *request) RemoteAddr() string { return r.forward.RemoteAddr().String() }

// first reports whether nobody answered yet.
func (r *request) first() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.answered
	r.answered = true
	return !was
}

// Accept opens the connection. If it fails, the peer gets a rejection or the end of
// its sockets, and the request is spent.
func (r *request) Accept(ctx context.Context, o rdma.ConnOptions) (rdma.Conn, error) {
	if !r.first() {
		return nil, fmt.Errorf("tcp: accept: %w: request was answered", rdma.ErrInvalid)
	}
	o, err := checkOptions(o)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = r.turnAway("not accepted")
		return nil, err
	}
	// The reply goes out first: once the connection runs, the forward socket carries frames.
	err = writeReply(r.forward, &reply{version: version})
	if err != nil {
		_ = r.forward.Close()
		_ = r.reverse.Close()
		return nil, fmt.Errorf("tcp: accept: %w: %v", rdma.ErrBroken, err)
	}
	c, err := newConn(r.dev, o, r.reverse, r.forward)
	if err != nil {
		_ = r.forward.Close()
		_ = r.reverse.Close()
		return nil, err
	}
	return c, nil
}

// Reject refuses; of the reason, 100 bytes reach the peer.
func (r *request) Reject(reason string) error {
	if !r.first() {
		return fmt.Errorf("tcp: reject: %w: request was answered", rdma.ErrInvalid)
	}
	return r.turnAway(reason)
}

func (r *request) turnAway(reason string) error {
	err := turnAway(r.forward, reason)
	_ = r.reverse.Close()
	if err != nil {
		return fmt.Errorf("tcp: reject: %w", err)
	}
	return nil
}
