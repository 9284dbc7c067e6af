//go:build cgo

package verbs

/*
#include "cf.h"

#cgo noescape cf_post
#cgo nocallback cf_post
#cgo noescape cf_wait
#cgo nocallback cf_wait
#cgo noescape cf_reap
#cgo nocallback cf_reap
#cgo noescape cf_recv_post
#cgo nocallback cf_recv_post
#cgo noescape cf_recv_poll
#cgo nocallback cf_recv_poll
*/
import "C"

import (
	"sync/atomic"
	"unsafe"
)

// QP is a reliable queue pair on an ID, with its table of batches in flight.
type QP struct {
	object
	ptr      *C.cf_qp
	id       *ID
	slots    []Slot
	sleepers *int32
	dead     bool
}

// NewQP makes a queue pair on id. The completion queues must have an entry for
// each work request of their side.
func NewQP(id *ID, pd *PD, send, recv *CQ, o QPOptions) (*QP, error) {
	co := C.cf_qp_opts{
		send_depth: C.uint32_t(o.SendDepth), recv_depth: C.uint32_t(o.RecvDepth), slots: C.uint32_t(o.Slots),
		max_inline: C.uint32_t(o.MaxInline), max_spinners: C.uint32_t(o.MaxSpinners),
		rlkey: C.uint32_t(o.RecvKey), rbase: C.uint64_t(o.RecvBase), rsize: C.uint32_t(o.RecvSize),
	}
	p, err := C.cf_qp_create(id.ptr, pd.ptr, send.ptr, recv.ptr, &co)
	if p == nil {
		return nil, verbErr("rdma_create_qp", err)
	}
	t := C.cf_qp_table(p)
	q := &QP{
		ptr: p, id: id,
		slots:    unsafe.Slice((*Slot)(unsafe.Pointer(t.slots)), o.Slots),
		sleepers: (*int32)(unsafe.Pointer(C.cf_qp_sleepers(p))),
	}
	q.object = live(func() error {
		q.Destroy()
		C.cf_qp_free(p)
		return nil
	}, &id.object, &pd.object, &send.object, &recv.object)
	return q, nil
}

// MaxInline is the longest WRITE or SEND, in bytes, that goes inline.
func (q *QP) MaxInline() int { return int(C.cf_qp_max_inline(q.ptr)) }

// SetRNRTimer sets how long a peer waits when this side has no receive buffer: the code of
// IBTA vol. 1, table 45 (1: 10 µs … 31: 492 ms; 0: 655 ms).
func (q *QP) SetRNRTimer(code int) error {
	return verbError("ibv_modify_qp(min_rnr_timer)", int(C.cf_qp_set_rnr_timer(q.ptr, C.int(code))))
}

// Error moves the queue pair to the error state: everything in flight is flushed.
func (q *QP) Error() error { return verbError("ibv_modify_qp(ERR)", int(C.cf_qp_error(q.ptr))) }

// Destroy destroys the queue pair; afterwards the device touches no memory for
// it. No other method may be under way or follow, but Slot and Close.
func (q *QP) Destroy() {
	if !q.dead {
		q.dead = true
		C.cf_qp_destroy(q.ptr)
	}
}

// Slot is the state of a batch; read it only once the batch is the reader's to finish.
func (q *QP) Slot(i uint32) *Slot { return &q.slots[i] }

// Post posts the Call's list and waits for it as the Call says.
func (q *QP) Post(c *Call) { C.cf_post(q.ptr, ccall(c)) }

// Wait waits, as the Call says, for a batch posted before.
func (q *QP) Wait(c *Call) { C.cf_wait(q.ptr, ccall(c)) }

// Reap polls until the queue is empty. With Arm the caller becomes a sleeper first;
// without it the queue is armed again if there are sleepers.
func (q *QP) Reap(c *Call) { C.cf_reap(q.ptr, ccall(c)) }

// Awake undoes Call.Armed.
func (q *QP) Awake() { atomic.AddInt32(q.sleepers, -1) }

// Sleepers is the number of callers that count on the completion channel.
func (q *QP) Sleepers() int { return int(atomic.LoadInt32(q.sleepers)) }

// NewRecvCall makes a RecvCall outside the Go heap.
func NewRecvCall() *RecvCall {
	p := C.cf_rcall_new()
	if p == nil {
		panic("verbs: out of C memory")
	}
	return (*RecvCall)(unsafe.Pointer(p))
}

// Free gives the memory back.
func (r *RecvCall) Free() { C.cf_rcall_free((*C.cf_rcall)(unsafe.Pointer(r))) }

// RecvPost posts the N buffers listed in Post.
func (q *QP) RecvPost(r *RecvCall) { C.cf_recv_post(q.ptr, (*C.cf_rcall)(unsafe.Pointer(r))) }

// RecvPoll takes what has arrived, and arms the queue as the RecvCall says.
func (q *QP) RecvPoll(r *RecvCall) { C.cf_recv_poll(q.ptr, (*C.cf_rcall)(unsafe.Pointer(r))) }
