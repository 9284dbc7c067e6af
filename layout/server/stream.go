package server

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ownStream keeps the connections of a stream layer, and closes them when the layer is closed.
// Raft's transport closes only its listener: what it accepted stays, and is served, until the peer
// closes it.
type ownStream struct {
	raft.StreamLayer

	mu     sync.Mutex
	open   map[*ownConn]struct{}
	closed bool
}

func newOwnStream(s raft.StreamLayer) *ownStream {
	return &ownStream{StreamLayer: s, open: map[*ownConn]struct{}{}}
}

// Accept implements net.Listener.
func (s *ownStream) Accept() (net.Conn, error) { return s.own(s.StreamLayer.Accept()) }

// Dial implements raft.StreamLayer.
func (s *ownStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.own(s.StreamLayer.Dial(addr, timeout))
}

func (s *ownStream) own(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	o := &ownConn{c, s}
	s.open[o] = struct{}{}
	return o, nil
}

// Close closes the listener and all connections.
func (s *ownStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	errs := []error{s.StreamLayer.Close()}
	for c := range s.open {
		errs = append(errs, c.Conn.Close())
	}
	clear(s.open)
	return errors.Join(errs...)
}

// again ends all connections, so that both ends say anew who they are: this server knows more of
// itself now.
func (s *ownStream) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Conn.Close()
	}
	clear(s.open)
}

// ownConn leaves its stream when it is closed.
type ownConn struct {
	net.Conn
	of *ownStream
}

func (c *ownConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
