package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"corfu/internal/certs"
	"corfu/internal/control"
	layoutserver "corfu/layout/server"
)

// startLayouts starts all layout servers. The ports of several must be known before the first one starts, and are kept from then on.
func (c *Cluster) startLayouts(ctx context.Context) error {
	n := c.record.Shape.LayoutServers
	c.Layouts = make([]*layoutserver.Server, n)
	listeners := make([][2]net.Listener, n)
	if n > 1 && len(c.record.Layouts) == 0 {
		if err := c.openPorts(listeners); err != nil {
			return err
		}
	}
	for i := range n {
		if err := c.startLayout(ctx, i, listeners[i]); err != nil {
			for _, l := range listeners[i+1:] {
				closeAll(l)
			}
			return err
		}
	}
	if was := c.record.Layout; was != c.LayoutAddr() {
		c.record.Layout = c.LayoutAddr()
		if err := c.record.save(c.opts.Dir); err != nil {
			return err
		}
	}
	tls, err := c.identity(certs.Admin, "devcluster")
	if err != nil {
		return err
	}
	c.asking = newAsking(c.LayoutAddrs(), control.DialOptions(tls))
	return nil
}

// openPorts takes two ports for each layout server and notes them in the record.
func (c *Cluster) openPorts(listeners [][2]net.Listener) (err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				closeAll(l)
			}
		}
	}()
	first := c.record.Layout
	for i := range listeners {
		for k, addr := range []string{first, control.FreePort} {
			if listeners[i][k], err = control.Listen(addr, false, false); err != nil {
				return fmt.Errorf("layout server %d: %w", i+1, err)
			}
		}
		first = control.FreePort
		c.record.Layouts = append(c.record.Layouts, peer{listeners[i][0].Addr().String(), listeners[i][1].Addr().String()})
	}
	c.record.Layout = c.record.Layouts[0].Control
	return c.record.save(c.opts.Dir)
}

func closeAll(l [2]net.Listener) {
	for _, x := range l {
		if x != nil {
			_ = x.Close()
		}
	}
}

// startLayout starts layout server i+1, at listeners where they are open already.
func (c *Cluster) startLayout(ctx context.Context, i int, listeners [2]net.Listener) error {
	tls, err := c.identity(certs.Layout, fmt.Sprintf("layout-%d", i+1))
	if err != nil {
		return err
	}
	o := layoutserver.Config{
		TLS: tls,
		ID:  uint16(i + 1), Dir: filepath.Join(c.opts.Dir, "layout"), Control: c.record.Layout, Bootstrap: c.record.template(),
		Poll: c.opts.Poll, FailAfter: c.opts.FailAfter, MinReplicas: c.opts.MinReplicas, RebuildRate: c.opts.RebuildRate,
		Election: c.opts.Election, Registerer: c.opts.Registerer, Logger: c.opts.Logger.With("layout", i+1),
		ControlListener: listeners[0], RaftListener: listeners[1], Device: c.device,
	}
	if len(c.record.Layouts) > 0 {
		o.Control = c.record.Layouts[i].Control
		o.Registerer = prometheus.WrapRegistererWith(prometheus.Labels{"server": strconv.Itoa(i + 1)}, o.Registerer)
	}
	for k, p := range c.record.Layouts {
		o.Servers = append(o.Servers, layoutserver.Peer{ID: uint16(k + 1), Control: p.Control, Raft: p.Raft})
	}
	if i > 0 {
		o.Dir += fmt.Sprintf("-%d", i+1)
	}
	if c.opts.Layouts != nil {
		c.opts.Layouts(&o)
	}
	s, err := layoutserver.Start(ctx, o)
	if err != nil {
		return fmt.Errorf("layout server %d: %w", i+1, err)
	}
	c.Layouts[i] = s
	return nil
}

// LayoutAddr is host:port of the first layout server.
func (c *Cluster) LayoutAddr() string { return c.LayoutAddrs()[0] }

// LayoutAddrs are host:port of all layout servers: what client.Options.LayoutServers wants.
func (c *Cluster) LayoutAddrs() []string {
	if len(c.record.Layouts) == 0 {
		return []string{c.Layouts[0].ControlAddr()}
	}
	var all []string
	for _, p := range c.record.Layouts {
		all = append(all, p.Control)
	}
	return all
}

// StopLayout stops layout server i+1; StartLayout starts it again. They are for tests, one call at a time.
func (c *Cluster) StopLayout(i int) error {
	err := c.Layouts[i].Close()
	c.Layouts[i] = nil
	return err
}

// StartLayout starts layout server i+1, which was stopped, at its old addresses.
func (c *Cluster) StartLayout(ctx context.Context, i int) error {
	return c.startLayout(ctx, i, [2]net.Listener{})
}

// asking is a connection to each layout server.
type asking struct {
	*control.Layouts
	options []grpc.DialOption

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func newAsking(addrs []string, options []grpc.DialOption) *asking {
	a := &asking{options: options, conns: map[string]*grpc.ClientConn{}}
	a.Layouts = control.NewLayouts(addrs, a.dial)
	return a
}

func (a *asking) dial(addr string) (grpc.ClientConnInterface, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.conns[addr]; c != nil {
		return c, nil
	}
	c, err := control.Dial(addr, a.options...)
	if err != nil {
		return nil, err
	}
	a.conns[addr] = c
	return c, nil
}

func (a *asking) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, c := range a.conns {
		errs = append(errs, c.Close())
	}
	clear(a.conns)
	return errors.Join(errs...)
}
