package client

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	grpcend "corfu/internal/control"
)

// control keeps one gRPC connection for each address. gRPC reconnects by itself.
type control struct {
	o *Options

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

func (c *control) init() { c.conns = map[string]*grpc.ClientConn{} }

func (c *control) get(addr string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if cc := c.conns[addr]; cc != nil {
		return cc, nil
	}
	if err := c.o.mayDial(addr); err != nil {
		return nil, err
	}
	cc, err := grpcend.Dial(addr, c.o.DialOptions...)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", addr, err)
	}
	c.conns[addr] = cc
	return cc, nil
}

// dial is get for those who do not care what a connection is.
func (c *control) dial(addr string) (grpc.ClientConnInterface, error) { return c.get(addr) }

func (c *control) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, cc := range c.conns {
		errs = append(errs, cc.Close())
	}
	return errors.Join(errs...)
}
