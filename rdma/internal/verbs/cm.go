//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"
)

// EventChannel delivers the events of the ids that are on it.
type EventChannel struct {
	object
	ptr unsafe.Pointer
	w   *waiter
	ev  C.cf_event
	err C.int
}

// NewEventChannel makes an event channel.
func NewEventChannel() (*EventChannel, error) {
	if err := Load(); err != nil {
		return nil, err
	}
	var fd C.int
	p, err := C.cf_cm_channel_create(&fd)
	if p == nil {
		return nil, verbErr("rdma_create_event_channel", err)
	}
	ch := &EventChannel{ptr: p}
	if ch.w, err = newWaiter(int(fd), "rdma_cm event channel", ch.take); err != nil {
		C.cf_cm_channel_destroy(p)
		return nil, err
	}
	ch.object = live(func() error {
		ch.w.close()
		C.cf_cm_channel_destroy(p)
		return nil
	})
	return ch, nil
}

func (ch *EventChannel) take() bool {
	ch.err = C.cf_cm_get(ch.ptr, &ch.ev)
	return syscall.Errno(ch.err) != syscall.EAGAIN && syscall.Errno(ch.err) != syscall.EINTR
}

// Next waits for the next event. It fails with ctx's error, or ErrInterrupted
// after Interrupt. One goroutine at a time.
func (ch *EventChannel) Next(ctx context.Context) (Event, error) {
	if ctx.Done() != nil {
		fired := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			ch.w.interrupt()
			close(fired)
		})
		defer func() {
			if !stop() {
				<-fired
				ch.w.resume()
			}
		}()
	}
	if err := ch.w.wait(); err != nil {
		if e := ctx.Err(); e != nil {
			return Event{}, e
		}
		return Event{}, err
	}
	if ch.err != 0 {
		return Event{}, verbError("rdma_get_cm_event", int(ch.err))
	}
	e := Event{
		Type: EventType(ch.ev._type), Status: int(ch.ev.status),
		Responder: uint8(ch.ev.responder), Initiator: uint8(ch.ev.initiator),
		Retry: uint8(ch.ev.retry), RNRRetry: uint8(ch.ev.rnr_retry),
		Private: C.GoBytes(unsafe.Pointer(&ch.ev.priv[0]), C.int(ch.ev.plen)),
	}
	if e.Type == ConnectRequest {
		e.ID = newID(ch.ev.id, ch)
	}
	return e, nil
}

// Interrupt ends Next, now and for ever.
func (ch *EventChannel) Interrupt() { ch.w.interrupt() }

// ID is an rdma_cm identifier: what a socket is to TCP.
type ID struct {
	object
	ptr unsafe.Pointer
}

// NewID makes an identifier whose events come on the channel.
func (ch *EventChannel) NewID() (*ID, error) {
	p, err := C.cf_id_create(ch.ptr)
	if p == nil {
		return nil, verbErr("rdma_create_id", err)
	}
	return newID(p, ch), nil
}

func newID(p unsafe.Pointer, ch *EventChannel) *ID {
	id := &ID{ptr: p}
	id.object = live(func() error { return verbError("rdma_destroy_id", int(C.cf_id_destroy(p))) }, &ch.object)
	return id
}

// Migrate moves the id's events to another channel, those that wait included.
func (id *ID) Migrate(to *EventChannel) error {
	if rc := C.cf_id_migrate(id.ptr, to.ptr); rc != 0 {
		return verbError("rdma_migrate_id", int(rc))
	}
	to.hold()
	id.mu.Lock()
	old := id.parents
	id.parents = []*object{&to.object}
	id.mu.Unlock()
	var err error
	for _, p := range old {
		err = p.release()
	}
	return err
}

// Bind binds the id to a local address, and with it to the device that has it.
func (id *ID) Bind(a netip.AddrPort) error {
	ca := caddr(a)
	return wrapAddr(verbError("rdma_bind_addr", int(C.cf_id_bind(id.ptr, &ca))), a)
}

// Listen lets connection requests come in.
func (id *ID) Listen(backlog int) error {
	return verbError("rdma_listen", int(C.cf_id_listen(id.ptr, C.int(backlog))))
}

// ResolveAddr starts to look for the way to dst, from src; AddrResolved or AddrError follows.
func (id *ID) ResolveAddr(src, dst netip.AddrPort, ms int) error {
	s, d := caddr(src), caddr(dst)
	return wrapAddr(verbError("rdma_resolve_addr", int(C.cf_id_resolve_addr(id.ptr, &s, &d, C.int(ms)))), dst)
}

// ResolveRoute is the next step; RouteResolved or RouteError follows.
func (id *ID) ResolveRoute(ms int) error {
	return verbError("rdma_resolve_route", int(C.cf_id_resolve_route(id.ptr, C.int(ms))))
}

// SetAckTimeout sets the acknowledgement time-out to 4.096 µs × 2^code, code 1 to 31. Before Connect or Accept.
func (id *ID) SetAckTimeout(code uint8) error {
	return verbError("rdma_set_option(ACK_TIMEOUT)", int(C.cf_id_ack_timeout(id.ptr, C.uint8_t(code))))
}

// Connect asks the peer; Established, Rejected, Unreachable or ConnectError follows.
func (id *ID) Connect(p ConnParam) error {
	cp, err := cparam(p)
	if err != nil {
		return err
	}
	return verbError("rdma_connect", int(C.cf_id_connect(id.ptr, &cp)))
}

// Accept agrees to a request; Established follows.
func (id *ID) Accept(p ConnParam) error {
	cp, err := cparam(p)
	if err != nil {
		return err
	}
	return verbError("rdma_accept", int(C.cf_id_accept(id.ptr, &cp)))
}

// Reject refuses a request. The protocol carries 148 bytes of private data.
func (id *ID) Reject(private []byte) error {
	var b [maxPrivateInEvents]C.uint8_t
	for i, v := range private {
		b[i] = C.uint8_t(v)
	}
	return verbError("rdma_reject", int(C.cf_id_reject(id.ptr, &b[0], C.uint8_t(len(private)))))
}

// Disconnect moves the queue pair to the error state and tells the peer.
func (id *ID) Disconnect() error {
	return verbError("rdma_disconnect", int(C.cf_id_disconnect(id.ptr)))
}

// Addrs are the local and the peer's address.
func (id *ID) Addrs() (local, peer netip.AddrPort) {
	var l, p C.cf_addr
	C.cf_id_addrs(id.ptr, &l, &p)
	return goaddr(l), goaddr(p)
}

func cparam(p ConnParam) (C.cf_param, error) {
	if len(p.Private) > maxPrivateInEvents {
		return C.cf_param{}, fmt.Errorf("verbs: %d bytes of private data", len(p.Private))
	}
	c := C.cf_param{
		responder: C.uint8_t(p.Responder), initiator: C.uint8_t(p.Initiator),
		retry: C.uint8_t(p.Retry), rnr_retry: C.uint8_t(p.RNRRetry), plen: C.uint8_t(len(p.Private)),
	}
	for i, b := range p.Private {
		c.priv[i] = C.uint8_t(b)
	}
	return c, nil
}

func caddr(a netip.AddrPort) C.cf_addr {
	c := C.cf_addr{port: C.uint16_t(a.Port())}
	ip := a.Addr().Unmap()
	if ip.Is4() {
		c.v4 = 1
	}
	for i, b := range ip.AsSlice() {
		c.ip[i] = C.uint8_t(b)
	}
	c.scope = C.uint32_t(zone(ip.Zone()))
	return c
}

func goaddr(c C.cf_addr) netip.AddrPort {
	var b [16]byte
	for i := range b {
		b[i] = byte(c.ip[i])
	}
	if c.v4 != 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), uint16(c.port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b), uint16(c.port))
}
