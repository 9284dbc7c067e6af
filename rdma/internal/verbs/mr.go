//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import "unsafe"

// PD is a protection domain.
type PD struct {
	object
	ptr unsafe.Pointer
}

// AllocPD makes a protection domain.
func (c *Context) AllocPD() (*PD, error) {
	p, err := C.cf_pd_alloc(c.ptr)
	if p == nil {
		return nil, verbErr("ibv_alloc_pd", err)
	}
	pd := &PD{ptr: p}
	pd.object = live(func() error { return verbError("ibv_dealloc_pd", int(C.cf_pd_free(p))) }, &c.object)
	return pd, nil
}

// MR is a registration of memory.
type MR struct {
	object
	LKey, RKey uint32
}

// Register makes [addr, addr+n) known to the device, with the rights a. The memory must
// stay mapped until Close returned without error, and lie outside the Go heap.
// After Close returned, no remote operation with RKey takes effect.
func (pd *PD) Register(addr uint64, n int, a Access) (*MR, error) {
	var l, r C.uint32_t
	p, err := C.cf_mr_reg(pd.ptr, C.uint64_t(addr), C.size_t(n), C.int(a), &l, &r)
	if p == nil {
		return nil, verbErr("ibv_reg_mr", err)
	}
	mr := &MR{LKey: uint32(l), RKey: uint32(r)}
	mr.object = live(func() error { return verbError("ibv_dereg_mr", int(C.cf_mr_dereg(p))) }, &pd.object)
	return mr, nil
}
