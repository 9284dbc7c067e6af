//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import (
	"errors"
	"net/netip"
	"unsafe"
)

// Context is an open device, in the connection manager's own context: ids and
// queue pairs must share it. It is held by an id bound to the device's address.
type Context struct {
	object
	ch  *EventChannel
	id  *ID
	ptr unsafe.Pointer
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
	c.object = live(func() error { return nil }, &id.object)
	// From now on the children's holds decide: id and channel go with the last of them.
	err = errors.Join(id.Close(), ch.Close())
	if c.ptr == nil {
		return nil, errors.Join(&Error{Verb: "rdma_bind_addr", Errno: 19 /* ENODEV */}, err, c.Close())
	}
	return c, err
}

// Name is the device's name, such as "mlx5_0".
func (c *Context) Name() string { return C.GoString(C.cf_id_device(c.id.ptr)) }

// Query asks the device for its attributes, ports and GIDs.
func (c *Context) Query() (DeviceInfo, error) { return query(c.ptr, c.Name()) }

// Owns tells whether an id is bound to this device.
func (c *Context) Owns(id *ID) bool { return C.cf_id_verbs(id.ptr) == c.ptr }
