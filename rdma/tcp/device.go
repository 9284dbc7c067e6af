package tcp

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"corfu/rdma"
)

// Options of a device.
type Options struct {
	Addr      string // address that listeners bind to if they name no host, without port; default 127.0.0.1
	HugePages bool   // back Alloc by huge pages where the kernel has some to give

	// Insecure lets connections leave the machine. They are in clear, tokens and keys included: without it Listen and Dial take
	// addresses of loopback alone, and fail with ErrClear.
	Insecure bool

	// ReuseKeys hands the key of the region closed last to the next one, as mlx5's MR
	// cache does. It is for tests of what must hold on such a NIC. Without it a
	// device gives each key once.
	ReuseKeys bool
}

// ErrClear: the address is not on loopback, where this provider would be in clear. Use an RDMA fabric, or say that the network is trusted.
var ErrClear = errors.New("tcp: the software fabric is in clear: outside loopback it needs --insecure (RDMA does not)")

// mayUse fails with ErrClear unless the host, as an address names it, is on loopback, or clear text is allowed.
func (d *Device) mayUse(host string) error {
	if d.opts.Insecure {
		return nil
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return err
	}
	if host == "" || !ip.IP.IsLoopback() {
		return fmt.Errorf("address %q: %w", host, ErrClear)
	}
	return nil
}

// Device is the software provider. It implements rdma.Device.
type Device struct {
	opts    Options
	regions table

	mu     sync.Mutex
	memory map[*rdma.Memory]int // regions open on each
	conns  int
	listen int
	closed bool
}

var _ rdma.Device = (*Device)(nil)

// Open makes a device. It fails with ErrInvalid if Addr is no address of a host.
func Open(o Options) (*Device, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1"
	}
	if _, err := net.ResolveIPAddr("ip", o.Addr); err != nil {
		return nil, fmt.Errorf("tcp: open %q: %w: %v", o.Addr, rdma.ErrInvalid, err)
	}
	d := &Device{opts: o, memory: make(map[*rdma.Memory]int)}
	if err := d.regions.init(o.ReuseKeys); err != nil {
		return nil, fmt.Errorf("tcp: open: %w", err)
	}
	return d, nil
}

// Info describes the device. Nothing limits the READs and atomics in flight but SendDepth.
func (d *Device) Info() rdma.Info {
	return rdma.Info{Provider: "tcp", Name: "tcp", Addr: d.opts.Addr, MaxRDAtomic: maxDepth}
}

// Alloc maps at least size bytes, zeroed. It fails with ErrInvalid or ErrClosed, or if there is no memory.
func (d *Device) Alloc(size int) (*rdma.Memory, error) {
	m, err := rdma.MapMemory(size, d.opts.HugePages)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = m.Close()
		return nil, fmt.Errorf("tcp: alloc: %w", rdma.ErrClosed)
	}
	d.memory[m] = 0
	m.Bind(0, func() error { return d.forget(m) })
	return m, nil
}

// forget lets memory go unless a region still stands on it: then a peer could
// reach what is about to be unmapped.
func (d *Device) forget(m *rdma.Memory) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.memory[m]; n > 0 {
		return fmt.Errorf("tcp: close memory: %w: %d regions open", rdma.ErrInvalid, n)
	}
	delete(d.memory, m)
	return nil
}

// hold counts one more connection or listener, which keep the device open.
func (d *Device) hold(n *int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("tcp: device: %w", rdma.ErrClosed)
	}
	*n++
	return nil
}

func (d *Device) release(n *int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*n--
}

// Close closes the device. It fails with ErrInvalid, and the device stays open, while
// connections, listeners, regions or memory are open. Idempotent.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.regions.len(); n+len(d.memory)+d.conns+d.listen > 0 {
		return fmt.Errorf("tcp: close device: %w: %d connections, %d listeners, %d regions, %d memories open",
			rdma.ErrInvalid, d.conns, d.listen, n, len(d.memory))
	}
	d.closed = true
	return nil
}
