package verbs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// backlog is how many requests wait for Accept; more are rejected.
const backlog = 128

// maxRetry is how often a peer may ask this side to send again.
const maxRetry = 6

var errDeadListener = errors.New("its event channel ended")

type listener struct {
	d     *Device
	ec    *ib.EventChannel
	id    *ib.ID
	addr  string
	queue chan *request
	stop  chan struct{}
	dead  chan struct{} // closed when no request can come any more
	gors  sync.WaitGroup
	once  sync.Once
	err   error
}

// Listen waits for connections on addr; an empty host is the device's address.
func (d *Device) Listen(addr string) (rdma.Listener, error) {
	ap, err := d.bind(addr)
	if err != nil {
		return nil, err
	}
	if err := d.hold(); err != nil {
		return nil, err
	}
	l := &listener{d: d, queue: make(chan *request, backlog), stop: make(chan struct{}), dead: make(chan struct{})}
	err = func() (err error) {
		if l.ec, err = ib.NewEventChannel(); err != nil {
			return err
		}
		if l.id, err = l.ec.NewID(); err != nil {
			return err
		}
		if err = l.id.Bind(ap); err != nil {
			return err
		}
		return l.id.Listen(backlog)
	}()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("verbs: listen on %s: %w", addr, err), l.release())
	}
	local, _ := l.id.Addrs()
	l.addr = local.String()
	l.gors.Add(1)
	go l.run()
	return l, nil
}

func (l *listener) Addr() string { return l.addr }

// run takes the requests as they come.
func (l *listener) run() {
	defer l.gors.Done()
	defer close(l.dead)
	for {
		ev, err := l.ec.Next(context.Background())
		if err != nil {
			return // interrupted by Close, or the device is gone
		}
		if ev.Type == ib.DeviceRemoval {
			l.d.lose("RDMA_CM_EVENT_DEVICE_REMOVAL")
			return
		}
		if ev.Type != ib.ConnectRequest {
			continue
		}
		r, err := newRequest(l.d, ev)
		if err != nil {
			continue // it is rejected; the peer may try again
		}
		select {
		case l.queue <- r:
		default:
			_ = r.Reject("too many requests wait")
		}
	}
}

func (l *listener) Accept(ctx context.Context) (rdma.Request, error) {
	select {
	case <-l.stop:
		return nil, fmt.Errorf("verbs: listener: %w", rdma.ErrClosed)
	default:
	}
	select {
	case r := <-l.queue:
		return r, nil
	case <-l.stop:
		return nil, fmt.Errorf("verbs: listener: %w", rdma.ErrClosed)
	case <-l.dead:
		return nil, fmt.Errorf("verbs: listener: %w: %w", rdma.ErrClosed, cmp.Or(l.d.GoneErr(), errDeadListener))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close stops listening, and rejects the requests that nobody accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.stop)
		l.ec.Interrupt()
		l.gors.Wait()
		for len(l.queue) > 0 {
			_ = (<-l.queue).Reject("the listener was closed")
		}
		l.err = l.release()
	})
	return l.err
}

func (l *listener) release() error {
	var errs []error
	if l.id != nil {
		errs = append(errs, l.id.Close())
	}
	if l.ec != nil {
		errs = append(errs, l.ec.Close())
	}
	l.d.release()
	return errors.Join(errs...)
}

// request is a peer's wish to connect, with an event channel of its own, so that
// connections share nothing with the listener or each other.
type request struct {
	d       *Device
	ec      *ib.EventChannel
	id      *ib.ID
	private []byte
	remote  string
	depth   int // READs and atomics that the peer offers, at most
}

func newRequest(d *Device, ev ib.Event) (*request, error) {
	r := &request{d: d, id: ev.ID, depth: int(min(ev.Responder, ev.Initiator))}
	ec, err := ib.NewEventChannel()
	if err == nil {
		if err = ev.ID.Migrate(ec); err != nil {
			err = errors.Join(err, ec.Close())
		}
	}
	if err != nil {
		_ = ev.ID.Reject(packPrivate([]byte("out of resources")))
		return nil, errors.Join(err, ev.ID.Close())
	}
	r.ec = ec
	_, peer := r.id.Addrs()
	r.remote = peer.String()
	// Its counts go for this side's queue pair, too (rdma_get_cm_event(3); cm_req_handler in the kernel's core/cm.c). 7 is for ever: on
	// InfiniBand for a receiver that is not ready, on some devices (sw/rxe/rxe_comp.c) for one that is gone as well.
	if ev.Retry > maxRetry || ev.RNRRetry > maxRetry {
		return nil, errors.Join(errors.New("verbs: retries without end"), r.Reject("retries without end"))
	}
	private, ok := unpackPrivate(ev.Private)
	if !ok {
		return nil, errors.Join(errors.New("verbs: malformed private data"), r.Reject("malformed private data"))
	}
	r.private = private
	return r, nil
}

func (r *request) Private() []byte    { return r.private }
func (r *request) RemoteAddr() string { return r.remote }

// Reject refuses the connection.
func (r *request) Reject(reason string) error {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	return errors.Join(r.id.Reject(packPrivate([]byte(reason))), r.id.Close(), r.ec.Close())
}

// exhausted tells the peer why there is no connection for it.
func (r *request) exhausted(err error) {
	reason := "no RDMA resources for another connection"
	var verb *ib.Error
	if errors.As(err, &verb) {
		reason = fmt.Sprintf("no RDMA resources: %s: %v", verb.Verb, verb.Errno)
		if verb.Errno == syscall.EAGAIN {
			reason += " (rdma.max of the member's cgroup)"
		}
	}
	_ = r.id.Reject(packPrivate([]byte(reason[:min(len(reason), maxReason)])))
}

// Accept agrees, and waits until the peer has heard of it.
func (r *request) Accept(ctx context.Context, o rdma.ConnOptions) (rdma.Conn, error) {
	o, err := r.d.options(o)
	if err != nil {
		return nil, errors.Join(err, r.Reject("the listener's options are wrong"))
	}
	depth := max(1, min(o.MaxRDAtomic, r.depth))
	c, err := r.d.newConn(r.ec, r.id, o, r.exhausted)
	if err != nil {
		return nil, err
	}
	err = r.id.SetAckTimeout(ackTimeout(o.AckTimeout))
	if err == nil {
		err = r.id.Accept(ib.ConnParam{
			Responder: uint8(depth), Initiator: uint8(depth), Retry: uint8(o.RetryCount), RNRRetry: rnrRetry,
		})
	}
	if err == nil {
		err = expect(ctx, r.ec, ib.Established)
	}
	if err != nil {
		_ = c.release()
		return nil, fmt.Errorf("verbs: accept %s: %w", r.remote, err)
	}
	return c.start(), nil
}
