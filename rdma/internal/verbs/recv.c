//go:build cgo

#include "cf_lib.h"

#ifdef CF_HAVE_VERBS

#include "cf_qp.h"
#include <stdlib.h>

cf_rcall *cf_rcall_new(void)
{
	return calloc(1, sizeof(cf_rcall));
}

void cf_rcall_free(cf_rcall *r)
{
	free(r);
}

void cf_recv_post(cf_qp *q, cf_rcall *r)
{
	const cf_qp_opts *o = &q->o;
	struct ibv_recv_wr wr[CF_RBATCH], *bad;
	struct ibv_sge sge[CF_RBATCH];

	for (uint32_t i = 0; i < r->n; i++) {
		sge[i] = (struct ibv_sge){ .addr = o->rbase + (uint64_t)r->post[i] * o->rsize, .length = o->rsize, .lkey = o->rlkey };
		wr[i] = (struct ibv_recv_wr){ .wr_id = r->post[i], .next = i + 1 < r->n ? &wr[i + 1] : NULL, .sg_list = &sge[i], .num_sge = 1 };
	}
	r->err = r->n ? cf_rc(ibv_post_recv(q->qp, wr, &bad)) : 0;
}

// status is that of a completion. A WRITE with immediate data takes a receive buffer, too, but puts nothing there, and says how
// much it wrote elsewhere: no message, and its length says nothing of the buffer.
static uint32_t status(const cf_qp *q, const struct ibv_wc *wc)
{
	if (wc->status == IBV_WC_SUCCESS && (wc->opcode != IBV_WC_RECV || wc->byte_len > q->o.rsize))
		return CF_NO_MESSAGE;
	return wc->status;
}

static uint32_t take(cf_qp *q, cf_rcall *r)
{
	struct ibv_wc wc[CF_RBATCH];
	int n = ibv_poll_cq(q->rcq, CF_RBATCH, wc);

	if (n < 0) {
		r->err = EIO;
		return 0;
	}
	for (int i = 0; i < n; i++)
		r->msg[i] = (cf_msg){ .index = wc[i].wr_id, .len = wc[i].byte_len, .status = status(q, &wc[i]), .vendor = wc[i].vendor_err };
	return n;
}

void cf_recv_poll(cf_qp *q, cf_rcall *r)
{
	r->err = 0;
	r->n = take(q, r);
	if (r->n || r->err || !r->arm)
		return;
	// Ask for an event, then look once more: what came in between raises none.
	if ((r->err = cf_rc(ibv_req_notify_cq(q->rcq, 0))) == 0)
		r->n = take(q, r);
}
#endif
