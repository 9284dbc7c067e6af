package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"corfu/rdma"
)

// Host is one life of a process on a machine, with its NIC. A process that was killed comes back as another Host of the same name.
type Host struct {
	f     *Fabric
	name  string
	dead  bool
	ports int
	rand  *rand.Rand

	regions map[rdma.RKey]*region
	freed   map[int][]rdma.RKey // by size, the last first, as from the cache of mlx5: memory that is registered anew gets its old key
	next    rdma.RKey
	pending [nics]*rmw
}

var _ rdma.Device = (*Host)(nil)

// NewHost starts a life of the host.
func (f *Fabric) NewHost(name string) *Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &Host{f: f, name: name, rand: f.chanceLocked("host " + name), regions: map[rdma.RKey]*region{}, freed: map[int][]rdma.RKey{}, next: 1}
	f.hosts[name] = h
	return h
}

// killed reports whether the life has ended.
func (h *Host) killed() bool {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.dead
}

// Kill ends the life: nothing reaches it any more, and nothing that it does reaches others. noisy: its peers learn at once,
// as when a kernel closes what a process leaves; else only when they miss it.
func (h *Host) Kill(noisy bool) {
	f := h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.dead {
		return
	}
	h.finishAll()
	h.dead = true
	delete(f.hosts, h.name)
	clear(h.regions)
	for _, c := range f.sortedConns() {
		if c.host == h {
			c.breakLocked(fmt.Errorf("sim: %w: killed", rdma.ErrClosed), noisy)
		}
	}
	for a, l := range f.listens {
		if l.host == h {
			delete(f.listens, a)
		}
	}
	for a, e := range f.services {
		if e.host == h {
			delete(f.services, a)
		}
	}
}

// Info implements rdma.Device.
func (h *Host) Info() rdma.Info {
	return rdma.Info{Provider: "sim", Name: h.name, Addr: h.name, MaxRDAtomic: 16}
}

// Alloc implements rdma.Device.
func (h *Host) Alloc(size int) (*rdma.Memory, error) { return rdma.MapMemory(size, false) }

// Close implements rdma.Device. Nothing is held by it.
func (h *Host) Close() error { return nil }

// region is registered memory.
type region struct {
	h      *Host
	mem    *rdma.Memory
	off, n int
	access rdma.Access
	key    rdma.RKey
}

// Register implements rdma.Device.
func (h *Host) Register(m *rdma.Memory, off, n int, a rdma.Access) (rdma.Region, error) {
	if m == nil || off < 0 || n <= 0 || n > m.Len()-off || a == 0 {
		return nil, fmt.Errorf("sim: register: %w", rdma.ErrInvalid)
	}
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	r := &region{h: h, mem: m, off: off, n: n, access: a}
	if i := len(h.freed[n]) - 1; i >= 0 {
		r.key, h.freed[n] = h.freed[n][i], h.freed[n][:i]
	} else {
		r.key = h.next
		h.next++
	}
	if !h.dead {
		h.regions[r.key] = r
	}
	return r, nil
}

func (r *region) Key() rdma.RKey { return r.key }

func (r *region) Remote(off int) rdma.Remote {
	return rdma.Remote{Addr: r.mem.Base() + uint64(r.off+off), Key: r.key}
}

// Close revokes the key (rule R15): operations take effect under the same lock, and an atomic that was begun is ended.
func (r *region) Close() error {
	f := r.h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	r.h.finishAll()
	if r.h.regions[r.key] == r {
		delete(r.h.regions, r.key)
		r.h.freed[r.n] = append(r.h.freed[r.n], r.key)
	}
	return nil
}

// later runs fn under the fabric's lock after a time, if the region is registered still.
func (r *region) later(d time.Duration, fn func()) {
	time.AfterFunc(d, func() {
		r.h.f.mu.Lock()
		defer r.h.f.mu.Unlock()
		if r.h.regions[r.key] == r {
			fn()
		}
	})
}

// at gives the place of n bytes at a remote address that grants the right, or nil.
func (h *Host) at(to rdma.Remote, n int, a rdma.Access) (*region, int) {
	r := h.regions[to.Key]
	if r == nil || r.access&a == 0 {
		return nil, 0
	}
	off := to.Addr - r.mem.Base() - uint64(r.off)
	if off > uint64(r.n) || uint64(n) > uint64(r.n)-off {
		return nil, 0
	}
	return r, r.off + int(off)
}

// listener takes connections.
type listener struct {
	host   *Host
	addr   string
	queue  chan *request
	closed chan struct{}
}

// Listen implements rdma.Device.
func (h *Host) Listen(addr string) (rdma.Listener, error) {
	f := h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	h.ports++
	l := &listener{host: h, addr: fmt.Sprintf("%s:%d", h.name, h.ports), queue: make(chan *request, 64), closed: make(chan struct{})}
	f.listens[l.addr] = l
	return l, nil
}

func (l *listener) Addr() string { return l.addr }

func (l *listener) Accept(ctx context.Context) (rdma.Request, error) {
	select {
	case <-l.closed:
		return nil, fmt.Errorf("sim: accept: %w", rdma.ErrClosed)
	default:
	}
	select {
	case r := <-l.queue:
		return r, nil
	case <-l.closed:
		return nil, fmt.Errorf("sim: accept: %w", rdma.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Close() error {
	f := l.host.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listens[l.addr] == l {
		delete(f.listens, l.addr)
	}
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// request is a connection to be.
type request struct {
	l       *listener
	from    *Host
	private []byte
	opts    rdma.ConnOptions
	answer  chan answered // room for one
	gone    bool          // the dialler does not wait any more
}

type answered struct {
	conn *conn
	err  error
}

func (r *request) Private() []byte    { return r.private }
func (r *request) RemoteAddr() string { return r.from.name }

func (r *request) Reject(reason string) error {
	r.answer <- answered{err: &rdma.RejectError{Reason: reason}}
	return nil
}

func (r *request) Accept(_ context.Context, o rdma.ConnOptions) (rdma.Conn, error) {
	f := r.l.host.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.gone || r.l.host.dead || r.from.dead {
		return nil, fmt.Errorf("sim: accept: %w: the peer is gone", rdma.ErrBroken)
	}
	near, far := f.connect(r.from, r.l.host, r.opts, o)
	r.answer <- answered{conn: near}
	return far, nil
}

// dialPatience is how long a dialler waits for a machine that does not answer.
const dialPatience = 500 * time.Millisecond

// Dial implements rdma.Device.
func (h *Host) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	f := h.f
	f.runs(h.name)
	f.mu.Lock()
	d := f.latency(h.rand)
	f.mu.Unlock()
	time.Sleep(d)
	f.mu.Lock()
	l := f.listens[addr]
	if h.dead {
		l = nil
	}
	cut := l != nil && (f.blocked[[2]string{h.name, l.host.name}] || f.blocked[[2]string{l.host.name, h.name}])
	f.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("sim: dial %s: %w", addr, rdma.ErrClosed)
	}
	r := &request{l: l, from: h, private: append([]byte(nil), private...), opts: o, answer: make(chan answered, 1)}
	if !cut {
		select {
		case l.queue <- r:
		default:
		}
	}
	timer := time.NewTimer(dialPatience)
	defer timer.Stop()
	var a answered
	select {
	case a = <-r.answer:
	case <-ctx.Done():
		a.err = ctx.Err()
	case <-timer.C:
		a.err = fmt.Errorf("sim: dial %s: no answer", addr)
	}
	if a.err != nil {
		f.mu.Lock()
		r.gone = true
		f.mu.Unlock()
		select {
		case late := <-r.answer:
			if late.conn != nil {
				_ = late.conn.Close()
			}
		default:
		}
		return nil, a.err
	}
	return a.conn, nil
}
