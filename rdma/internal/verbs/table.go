//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import "unsafe"

// NewCall makes a Call outside the Go heap.
func NewCall() *Call {
	p := C.cf_call_new()
	if p == nil {
		panic("verbs: out of C memory")
	}
	return (*Call)(unsafe.Pointer(p))
}

// Free gives the Call's memory back.
func (c *Call) Free() { C.cf_call_free((*C.cf_call)(unsafe.Pointer(c))) }

// Table is the slots of batches in flight, apart from any queue pair: for tests.
type Table struct{ ptr *C.cf_table }

// NewTable makes a table of n slots, 1 to 65536.
func NewTable(n int) *Table { return &Table{C.cf_table_new(C.uint32_t(n))} }

// Free gives the table's memory back.
func (t *Table) Free() { C.cf_table_delete(t.ptr) }

// Slots are the table's slots.
func (t *Table) Slots() []Slot {
	return unsafe.Slice((*Slot)(unsafe.Pointer(t.ptr.slots)), int(t.ptr.n))
}

// Stray is the number of completions that belonged to no batch in flight.
func (t *Table) Stray() uint64 { return uint64(t.ptr.stray) }

// Open marks the Call's slot as posted.
func (t *Table) Open(c *Call, spinning bool) {
	s := C.int(0)
	if spinning {
		s = 1
	}
	C.cf_table_open(t.ptr, ccall(c), s)
}

// Spin, Unspin and Done are the steps of a thread that polls for its own batch (table.c).
func (t *Table) Spin(c *Call) bool { return C.cf_table_spin(t.ptr, ccall(c)) != 0 }

// Unspin: see Spin.
func (t *Table) Unspin(c *Call) bool { return C.cf_table_unspin(t.ptr, ccall(c)) != 0 }

// Done: see Spin.
func (t *Table) Done(c *Call) bool { return C.cf_table_done(t.ptr, ccall(c)) != 0 }

// Complete takes one completion; one thread at a time.
func (t *Table) Complete(c *Call, wrID uint64, s Status, vendor uint32) {
	C.cf_table_complete(t.ptr, ccall(c), C.uint64_t(wrID), C.uint32_t(s), C.uint32_t(vendor))
}

// WRID names operation op of generation gen of a slot.
func WRID(slot, op, gen uint32) uint64 {
	return uint64(C.cf_wr_id(C.uint32_t(slot), C.uint32_t(op), C.uint32_t(gen)))
}

func ccall(c *Call) *C.cf_call { return (*C.cf_call)(unsafe.Pointer(c)) }
