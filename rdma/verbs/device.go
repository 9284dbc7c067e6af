package verbs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// watchdog is how long a revocation or the end of a connection may take before
// the caller gets an error and the memory is leaked. In the lab one seal in
// thousands hung for 50 s in the kernel.
const watchdog = 5 * time.Second

// Device is an RDMA device. Safe for many goroutines.
type Device struct {
	info rdma.Info
	addr netip.Addr
	attr ib.DeviceInfo
	huge bool
	ctx  *ib.Context
	pd   *ib.PD

	mu     sync.Mutex
	users  int // memory, regions, listeners, connections
	closed bool

	gone    chan struct{} // closed with goneErr set
	goneErr error
	stop    chan struct{} // closed by Close
	watches sync.WaitGroup
}

var _ rdma.Device = (*Device)(nil)

// Open opens a device. Where none is usable, the error wraps rdma.ErrUnavailable.
//
// On a machine with one CPU it raises GOMAXPROCS to 2. A thread that spins in C
// keeps its P, and if there is no idle one the runtime's monitor wakes up every
// 20 µs to take it away: in the lab that made a FETCH_ADD of 42 µs one of 65 to 145.
func Open(o Options) (*Device, error) {
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
	ch, err := Choose(o)
	if err != nil {
		return nil, err
	}
	ctx, err := ib.OpenContext(ch.Addr)
	if err != nil {
		return nil, openError(ch.Device.Name, err)
	}
	if n := ctx.Name(); n != ch.Device.Name {
		err = fmt.Errorf("verbs: the address %v leads to %s, not to %s", ch.Addr, n, ch.Device.Name)
		return nil, errors.Join(err, ctx.Close())
	}
	pd, err := ctx.AllocPD()
	if err != nil {
		return nil, errors.Join(openError(ch.Device.Name, err), ctx.Close())
	}
	d := &Device{
		gone: make(chan struct{}), stop: make(chan struct{}),
		info: rdma.Info{
			Provider: "verbs", Name: ch.Device.Name, Addr: ch.Addr.String(), MaxRDAtomic: maxRDAtomic(ch.Device),
		},
		addr: ch.Addr, attr: ch.Device, huge: o.HugePages, ctx: ctx, pd: pd,
	}
	d.watchGone()
	return d, nil
}

// openError is why a device could not be opened. It wraps rdma.ErrUnavailable where that lies in
// what this process may do or the kernel has loaded: no rights on /dev/infiniband/rdma_cm or
// uverbs* (EACCES, EPERM), no rdma_ucm (ENODEV, ENOENT), no locked memory left for the device's own
// queues (ENOMEM). Source: rdma_create_event_channel(3), ibv_open_device(3), and the kernel's
// drivers/infiniband/core/ucma.c and uverbs_main.c.
func openError(name string, err error) error {
	for _, e := range []syscall.Errno{syscall.EACCES, syscall.EPERM, syscall.ENODEV, syscall.ENOENT, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return fmt.Errorf("verbs: %w: open %s: %w", rdma.ErrUnavailable, name, err)
		}
	}
	return fmt.Errorf("verbs: open %s: %w", name, err)
}

// maxRDAtomic is what a connection can both ask and answer. 255 means "the
// highest there is" to librdmacm, so stay below.
func maxRDAtomic(d ib.DeviceInfo) int {
	return max(1, min(d.MaxRDAtom, d.MaxInit, 128))
}

// Addrs asks for the addresses by which the device can be reached now.
func (d *Device) Addrs() ([]netip.Addr, error) {
	devs, err := ib.Devices()
	if err != nil {
		return nil, err
	}
	for _, x := range devs {
		if x.Name == d.info.Name {
			return Addrs(x), nil
		}
	}
	return nil, nil
}

// Info describes the device.
func (d *Device) Info() rdma.Info { return d.info }

// hold counts a child; release takes it back.
func (d *Device) hold() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("verbs: device %s: %w", d.info.Name, rdma.ErrClosed)
	}
	d.users++
	return nil
}

func (d *Device) release() {
	d.mu.Lock()
	d.users--
	d.mu.Unlock()
}

// Close closes the device. It fails while memory, regions, listeners or connections are open.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	if d.users > 0 {
		n := d.users
		d.mu.Unlock()
		return fmt.Errorf("verbs: close %s: %d regions, connections, listeners or pieces of memory are open", d.info.Name, n)
	}
	d.closed = true
	d.mu.Unlock()
	close(d.stop)
	d.ctx.Interrupt()
	d.watches.Wait()
	return errors.Join(d.pd.Close(), d.ctx.Close())
}

// Alloc maps memory and makes it known to the device for local use.
func (d *Device) Alloc(size int) (*rdma.Memory, error) {
	return d.alloc(size, d.huge)
}

func (d *Device) alloc(size int, huge bool) (*rdma.Memory, error) {
	if err := d.hold(); err != nil {
		return nil, err
	}
	m, err := rdma.MapMemory(size, huge)
	if err != nil {
		d.release()
		return nil, err
	}
	// READs and the old values of atomics are written here by the device.
	mr, err := d.pd.Register(m.Base(), m.Len(), ib.LocalWrite)
	if err != nil {
		d.release()
		return nil, errors.Join(fmt.Errorf("verbs: register %d bytes: %w", m.Len(), err), m.Close())
	}
	m.Bind(mr.LKey, func() error {
		if err := within(watchdog, "ibv_dereg_mr", mr.Close); err != nil {
			return err
		}
		d.release()
		return nil
	})
	return m, nil
}

// Register lets peers reach a part of m.
func (d *Device) Register(m *rdma.Memory, off, n int, a rdma.Access) (rdma.Region, error) {
	if m == nil || off < 0 || n <= 0 || off > m.Len()-n || a == 0 || a&^(rdma.RemoteRead|rdma.RemoteWrite|rdma.RemoteAtomic) != 0 {
		return nil, fmt.Errorf("verbs: register %d bytes at %d with access %#x: %w", n, off, a, rdma.ErrInvalid)
	}
	if err := d.hold(); err != nil {
		return nil, err
	}
	mr, err := d.pd.Register(m.Base()+uint64(off), n, access(a))
	if err != nil {
		d.release()
		return nil, fmt.Errorf("verbs: register %d bytes: %w", n, err)
	}
	return &region{d: d, mr: mr, base: m.Base() + uint64(off)}, nil
}

// access are the verbs' flags for a. Remote writes and atomics need local write (ibv_reg_mr(3)).
func access(a rdma.Access) ib.Access {
	var f ib.Access
	if a&rdma.RemoteRead != 0 {
		f |= ib.RemoteRead
	}
	if a&rdma.RemoteWrite != 0 {
		f |= ib.RemoteWrite | ib.LocalWrite
	}
	if a&rdma.RemoteAtomic != 0 {
		f |= ib.RemoteAtomic | ib.LocalWrite
	}
	return f
}

// region is registered memory.
type region struct {
	d    *Device
	mr   *ib.MR
	base uint64
	once sync.Once
	err  error
}

func (r *region) Key() rdma.RKey { return rdma.RKey(r.mr.RKey) }

func (r *region) Remote(off int) rdma.Remote {
	return rdma.Remote{Addr: r.base + uint64(off), Key: r.Key()}
}

// Close deregisters: after ibv_dereg_mr returned, nothing lands (measured: no late
// operation in thousands of trials, where every other way of revoking let some land).
func (r *region) Close() error {
	r.once.Do(func() {
		if r.err = within(watchdog, "ibv_dereg_mr", r.mr.Close); r.err == nil {
			r.d.release()
		}
	})
	return r.err
}

// within runs f, and gives up waiting for it after limit.
func within(limit time.Duration, what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("verbs: %s has not returned after %v: its memory is leaked", what, limit)
	}
}

// bind parses "host:port" for local use; an empty host is the device's address.
func (d *Device) bind(addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("verbs: address %q: %w: %w", addr, rdma.ErrInvalid, err)
	}
	if host == "" {
		host = d.addr.String()
	}
	ap, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("verbs: address %q: %w: %w", addr, rdma.ErrInvalid, err)
	}
	return ap, nil
}
