//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"unsafe"
)

// Context is an open device, in the connection manager's own context: ids and
// queue pairs must share it. It is held by an id bound to the device's address.
type Context struct {
	object
	ch  *EventChannel
	id  *ID
	ptr unsafe.Pointer

	async *waiter // nil: the device tells of no events
	event C.int
	err   C.int
}

// OpenContext opens the RDMA device that has the address.
func OpenContext(addr netip.Addr) (*Context, error) {
	ch, err := NewEventChannel()
	if err != nil {
		return nil, err
	}
	id, err := ch.NewID()
	if err != nil {
		return nil, errors.Join(err, ch.Close())
	}
	if err := id.Bind(netip.AddrPortFrom(addr, 0)); err != nil {
		return nil, errors.Join(err, id.Close(), ch.Close())
	}
	c := &Context{ch: ch, id: id, ptr: C.cf_id_verbs(id.ptr)}
	c.object = live(func() error {
		if c.async != nil {
			c.async.close()
		}
		return nil
	}, &id.object)
	// From now on the children's holds decide: id and channel go with the last of them.
	err = errors.Join(id.Close(), ch.Close())
	if c.ptr == nil {
		return nil, errors.Join(&Error{Verb: "rdma_bind_addr", Errno: 19 /* ENODEV */}, err, c.Close())
	}
	if fd := C.cf_async_fd(c.ptr); fd >= 0 {
		c.async, _ = newWaiter(int(fd), "channel of asynchronous events", c.take)
	}
	return c, err
}

// Name is the device's name, such as "mlx5_0".
func (c *Context) Name() string { return C.GoString(C.cf_id_device(c.id.ptr)) }

// Query asks the device for its attributes, ports and GIDs.
func (c *Context) Query() (DeviceInfo, error) { return query(c.ptr, c.Name()) }

// Owns tells whether an id is bound to this device.
func (c *Context) Owns(id *ID) bool { return C.cf_id_verbs(id.ptr) == c.ptr }

func (c *Context) take() bool {
	c.err = C.cf_async_get(c.ptr, &c.event)
	return syscall.Errno(c.err) != syscall.EAGAIN && syscall.Errno(c.err) != syscall.EINTR
}

// Removed waits until the kernel removes the device, and returns the event that said so. It fails with ErrInterrupted after Interrupt.
func (c *Context) Removed() (string, error) {
	for {
		switch ev, err := c.ch.Next(context.Background()); {
		case err != nil:
			return "", err
		case ev.Type == DeviceRemoval:
			return "RDMA_CM_EVENT_DEVICE_REMOVAL", nil
		}
	}
}

// Fatal waits until the device says that it is of no more use, and returns the event that said so. It fails with ErrInterrupted after
// Interrupt.
func (c *Context) Fatal() (string, error) {
	for c.async != nil {
		if err := c.async.wait(); err != nil {
			return "", err
		}
		if c.err != 0 {
			return "", verbError("ibv_get_async_event", int(c.err))
		}
		if c.event == AsyncFatal {
			return "IBV_EVENT_DEVICE_FATAL", nil
		}
	}
	return "", ErrInterrupted
}

// Interrupt ends Removed and Fatal, now and for ever.
func (c *Context) Interrupt() {
	c.ch.Interrupt()
	if c.async != nil {
		c.async.interrupt()
	}
}
