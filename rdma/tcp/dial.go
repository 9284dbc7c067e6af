package tcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"corfu/rdma"
)

// dialTimeout bounds Dial where its context does not.
const dialTimeout = 30 * time.Second

// Dial opens a connection. It fails with ErrInvalid, with a *rdma.RejectError, with the
// context's error, or with what the network says.
func (d *Device) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	o, err := checkOptions(o)
	if err != nil {
		return nil, err
	}
	if len(private) > rdma.MaxPrivate {
		return nil, fmt.Errorf("tcp: dial: %w: %d bytes of private data", rdma.ErrInvalid, len(private))
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("tcp: dial: %w: %v", rdma.ErrInvalid, err)
	}
	if err := d.mayUse(host); err != nil {
		return nil, fmt.Errorf("tcp: dial: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()

	forward, reverse, err := handshake(ctx, addr, private)
	if err != nil {
		if ctx.Err() != nil { // the cause of what the sockets said
			err = ctx.Err()
		}
		return nil, fmt.Errorf("tcp: dial %s: %w", addr, err)
	}
	c, err := newConn(d, o, forward, reverse)
	if err != nil {
		_ = forward.Close()
		_ = reverse.Close()
		return nil, err
	}
	return c, nil
}

// handshake gives two open sockets, or none.
func handshake(ctx context.Context, addr string, private []byte) (forward, reverse *net.TCPConn, err error) {
	h := hello{version: version, role: roleForward, private: private}
	if _, err := rand.Read(h.token[:]); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			for _, s := range []*net.TCPConn{forward, reverse} {
				if s != nil {
					_ = s.Close()
				}
			}
			forward, reverse = nil, nil
		}
	}()
	if forward, err = sayHello(ctx, addr, &h); err != nil {
		return
	}
	h.role, h.private = roleReverse, nil
	if reverse, err = sayHello(ctx, addr, &h); err != nil {
		return
	}
	r, err := readReply(ctx, forward)
	if err != nil {
		return
	}
	if r.rejected {
		err = &rdma.RejectError{Reason: r.reason}
	}
	return
}

func sayHello(ctx context.Context, addr string, h *hello) (*net.TCPConn, error) {
	var dialer net.Dialer
	s, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = s.SetWriteDeadline(time.Now().Add(handshakeTimeout))
	if _, err := s.Write(h.encode()); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s.(*net.TCPConn), nil
}

// readReply waits as long as ctx: when to accept is the application's business over there.
func readReply(ctx context.Context, s *net.TCPConn) (*reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.SetReadDeadline(time.Now()) })
	defer stop()
	var b [replySize]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("closed by the peer in the handshake")
		}
		return nil, err
	}
	return decodeReply(b[:])
}
