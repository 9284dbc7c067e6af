//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import "unsafe"

// CompChannel tells when an armed completion queue got an entry.
type CompChannel struct {
	object
	ptr unsafe.Pointer
	w   *waiter
}

// NewCompChannel makes a completion channel.
func (c *Context) NewCompChannel() (*CompChannel, error) {
	var fd C.int
	p, err := C.cf_channel_create(c.ptr, &fd)
	if p == nil {
		return nil, verbErr("ibv_create_comp_channel", err)
	}
	w, err := newWaiter(int(fd), "completion channel", func() bool { return C.cf_channel_drain(p) > 0 })
	if err != nil {
		C.cf_channel_destroy(p)
		return nil, err
	}
	ch := &CompChannel{ptr: p, w: w}
	ch.object = live(func() error {
		w.close()
		return verbError("ibv_destroy_comp_channel", int(C.cf_channel_destroy(p)))
	}, &c.object)
	return ch, nil
}

// Wait parks the goroutine until an event came, and acknowledges it. It fails with
// ErrInterrupted after Interrupt. One goroutine at a time.
func (ch *CompChannel) Wait() error { return ch.w.wait() }

// Interrupt ends Wait, now and for ever.
func (ch *CompChannel) Interrupt() { ch.w.interrupt() }

// CQ is a completion queue.
type CQ struct {
	object
	ptr unsafe.Pointer
}

// NewCQ makes a completion queue of at least depth entries. It must hold an entry for each work
// request that may be in flight: after an error all of them complete.
func (c *Context) NewCQ(depth int, ch *CompChannel) (*CQ, error) {
	p, err := C.cf_cq_create(c.ptr, C.int(depth), ch.ptr)
	if p == nil {
		return nil, verbErr("ibv_create_cq", err)
	}
	q := &CQ{ptr: p}
	q.object = live(func() error { return verbError("ibv_destroy_cq", int(C.cf_cq_destroy(p))) }, &c.object, &ch.object)
	return q, nil
}
