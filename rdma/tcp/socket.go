package tcp

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bufferSize is how much of a socket is read or written at a time, in bytes.
const bufferSize = 64 << 10

// minTimeout is the shortest time after which a silent peer counts as dead. TCP itself
// first sends again after 200 ms, so the sub-second bounds of an RNIC would break
// connections over a single lost packet.
const minTimeout = time.Second

// tune sets what the connection's options ask of a socket: a peer that does not acknowledge
// within timeout, or does not answer keepalives, breaks it.
func tune(c *net.TCPConn, timeout time.Duration) error {
	if err := c.SetNoDelay(true); err != nil {
		return err
	}
	ka := net.KeepAliveConfig{Enable: true, Idle: max(timeout, time.Second), Interval: time.Second, Count: 3}
	if err := c.SetKeepAliveConfig(ka); err != nil {
		return err
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = rc.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return opt
}

// tryWriter writes what a socket takes at once and never waits for it.
type tryWriter struct {
	rc   syscall.RawConn
	call func(fd uintptr) bool // made once: a closure for each write would be garbage

	buf []byte
	n   int
	err error
}

func newTryWriter(c *net.TCPConn) (*tryWriter, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &tryWriter{rc: rc}
	w.call = func(fd uintptr) bool {
		for {
			w.n, w.err = unix.Write(int(fd), w.buf)
			if w.err != unix.EINTR {
				return true
			}
		}
	}
	return w, nil
}

// write gives the number of bytes that the socket took, 0 to all.
func (w *tryWriter) write(b []byte) (int, error) {
	w.buf = b
	err := w.rc.Write(w.call)
	w.buf = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == unix.EAGAIN:
		return 0, nil
	case w.err != nil:
		return 0, w.err
	}
	return w.n, nil
}
