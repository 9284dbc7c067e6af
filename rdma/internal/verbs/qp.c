//go:build cgo

#include "cf_lib.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef CF_HAVE_VERBS

#include "cf_qp.h"

cf_qp *cf_qp_create(void *cmid, void *pd, void *scq, void *rcq, const cf_qp_opts *o)
{
	struct rdma_cm_id *id = cmid;
	struct ibv_qp_init_attr a = {
		.send_cq = scq, .recv_cq = rcq, .qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = o->send_depth, .max_recv_wr = o->recv_depth,
			 .max_send_sge = 1, .max_recv_sge = 1, .max_inline_data = o->max_inline },
	};
	cf_qp *q = calloc(1, sizeof(*q));
	int e;

	if (!q)
		return NULL;
	if ((e = cf_table_init(&q->table, o->slots)))
		goto fail;
	if ((e = cf_rc(cf_lib.p_rdma_create_qp(id, pd, &a))))
		goto fail;
	pthread_mutex_init(&q->poll, NULL);
	q->id = id;
	q->qp = id->qp;
	q->scq = scq;
	q->rcq = rcq;
	q->o = *o;
	q->o.max_inline = a.cap.max_inline_data;
	return q;
fail:
	cf_table_free(&q->table);
	free(q);
	errno = e;
	return NULL;
}

cf_table *cf_qp_table(cf_qp *q)
{
	return &q->table;
}

int32_t *cf_qp_sleepers(cf_qp *q)
{
	return &q->sleepers;
}

uint32_t cf_qp_max_inline(cf_qp *q)
{
	return q->o.max_inline;
}

int cf_qp_set_rnr_timer(cf_qp *q, int code)
{
	struct ibv_qp_attr a = { .min_rnr_timer = code };

	return cf_rc(cf_lib.p_ibv_modify_qp(q->qp, &a, IBV_QP_MIN_RNR_TIMER));
}

int cf_qp_error(cf_qp *q)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_ERR };

	return cf_rc(cf_lib.p_ibv_modify_qp(q->qp, &a, IBV_QP_STATE));
}

int cf_qp_destroy(cf_qp *q)
{
	cf_lib.p_rdma_destroy_qp(q->id);
	q->qp = NULL;
	return 0;
}

void cf_qp_free(cf_qp *q)
{
	pthread_mutex_destroy(&q->poll);
	cf_table_free(&q->table);
	free(q);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

// poll_locked reaps up to 16 completions into the table, under the poll mutex. It gives their number, 0 for an empty
// queue, -1 if the list of woken slots is full.
static int poll_locked(cf_qp *q, cf_call *c)
{
	struct ibv_wc wc[16];
	int room = CF_WOKEN - (int)c->nwoken;
	int n;

	if (room <= 0)
		return -1;
	n = ibv_poll_cq(q->scq, room < 16 ? room : 16, wc);
	for (int i = 0; i < n; i++)
		cf_table_complete(&q->table, c, wc[i].wr_id, wc[i].status, wc[i].vendor_err);
	if (n < 0) { // the queue itself is broken: nothing more will come of it
		c->err = EIO;
		n = 0;
	}
	return n;
}

// drain polls until the queue is empty; 0 if the list of woken slots filled up first.
static int drain(cf_qp *q, cf_call *c)
{
	int n;

	pthread_mutex_lock(&q->poll);
	do {
		n = poll_locked(q, c);
	} while (n > 0);
	pthread_mutex_unlock(&q->poll);
	return n == 0;
}

// spin polls for the caller's batch, which is SPINNING, until it is done, others
// wait to be told, or the time is over. Afterwards the batch is done and the
// caller's, or POSTED again. One thread polls for all: the others watch their batch's state.
static void spin(cf_qp *q, cf_call *c)
{
	int64_t end = 0; // set after the first few polls: the clock costs as much as a poll
	int polls = 0;   // whether this thread holds the poll mutex

	for (unsigned i = 1;; i++) {
		int n = 0;

		if (cf_table_done(&q->table, c)) {
			c->done = 1;
			break;
		}
		if (polls || (polls = pthread_mutex_trylock(&q->poll) == 0))
			n = poll_locked(q, c);
		else
			relax(); // who polls itself needs no pause
		if (n <= 0 && c->nwoken > 0) {
			if (end)
				c->spin_ns = end - now_ns(); // what is left for the next call
			break;
		}
		if (i % 8 == 0) {
			int64_t t = now_ns();

			if (!end)
				end = t + c->spin_ns;
			if (t >= end) {
				c->spin_ns = 0;
				break;
			}
		}
	}
	if (polls)
		pthread_mutex_unlock(&q->poll);
	if (!c->done && !cf_table_unspin(&q->table, c))
		c->done = 1;
}

// may_spin admits a bounded number of threads: beyond that they only take the
// processor away from the one that reaps (and from ksoftirqd, with Soft-RoCE).
static int may_spin(cf_qp *q, cf_call *c)
{
	if (c->spin_ns <= 0)
		return 0;
	if (__atomic_add_fetch(&q->spinners, 1, __ATOMIC_RELAXED) <= q->o.max_spinners)
		return 1;
	__atomic_sub_fetch(&q->spinners, 1, __ATOMIC_RELAXED);
	return 0;
}

static void stop_spin(cf_qp *q)
{
	__atomic_sub_fetch(&q->spinners, 1, __ATOMIC_RELAXED);
}

// arm makes the caller a sleeper: count it, ask for an event, then look once more.
// In that order no completion is lost: one that came before the request for an event is
// found by the look, a later one raises the event, and the reaper, whom that
// wakes, asks for the next event as long as sleepers are counted.
static void arm(cf_qp *q, cf_call *c)
{
	__atomic_add_fetch(&q->sleepers, 1, __ATOMIC_SEQ_CST);
	c->armed = 1;
	if (ibv_req_notify_cq(q->scq, 0))
		c->err = EIO;
	c->more = !drain(q, c);
}

static void set_atomic(struct ibv_send_wr *w, const cf_wr *r)
{
	w->wr.atomic.remote_addr = r->remote;
	w->wr.atomic.rkey = r->rkey;
	w->wr.atomic.compare_add = r->compare;
	w->wr.atomic.swap = r->swap;
}

static void set_rdma(struct ibv_send_wr *w, const cf_wr *r)
{
	w->wr.rdma.remote_addr = r->remote;
	w->wr.rdma.rkey = r->rkey;
}

// build turns the list into work requests; 0, or the errno for what cannot be posted.
static int build(cf_qp *q, const cf_call *c, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
	for (uint32_t i = 0; i < c->n; i++) {
		const cf_wr *r = &c->wr[i];
		struct ibv_send_wr *w = &wr[i];

		sge[i].addr = r->inl ? (uint64_t)(uintptr_t)c->msg[i] : r->local;
		sge[i].length = r->length;
		sge[i].lkey = r->lkey;
		w->wr_id = cf_wr_id(c->slot, i, c->gen);
		w->next = i + 1 < c->n ? w + 1 : NULL;
		w->sg_list = &sge[i];
		w->num_sge = r->length > 0;
		w->send_flags = 0;
		switch (r->op) { // rdma.Kind
		case 1:
			w->opcode = IBV_WR_RDMA_WRITE;
			set_rdma(w, r);
			break;
		case 2:
			w->opcode = IBV_WR_RDMA_READ;
			set_rdma(w, r);
			break;
		case 3:
			w->opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
			set_atomic(w, r);
			break;
		case 4:
			w->opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
			set_atomic(w, r);
			break;
		case 5:
			w->opcode = IBV_WR_SEND;
			break;
		case CF_WRITE_IMM:
			w->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
			w->imm_data = 0;
			set_rdma(w, r);
			break;
		default:
			return EINVAL;
		}
		if ((r->op == 1 || r->op == 5) && r->length && r->length <= q->o.max_inline)
			w->send_flags |= IBV_SEND_INLINE;
	}
	// One completion tells of the whole list; errors complete each request regardless.
	wr[c->n - 1].send_flags |= IBV_SEND_SIGNALED;
	return 0;
}

static void clear(cf_call *c)
{
	c->err = 0;
	c->posted = c->done = c->gone = c->armed = c->more = c->nwoken = 0;
}

void cf_post(cf_qp *q, cf_call *c)
{
	struct ibv_send_wr wr[CF_BATCH], *bad = NULL;
	struct ibv_sge sge[CF_BATCH];
	int spinning;

	clear(c);
	if ((c->err = build(q, c, wr, sge)))
		return;
	spinning = may_spin(q, c);
	cf_table_open(&q->table, c, spinning);
	c->err = cf_rc(ibv_post_send(q->qp, wr, &bad));
	c->posted = c->err ? (uint32_t)(bad ? bad - wr : 0) : c->n;
	if (c->err) {
		if (spinning) {
			cf_table_unspin(&q->table, c);
			stop_spin(q);
		}
		return;
	}
	if (spinning) {
		spin(q, c);
		stop_spin(q);
	}
	if (c->arm && !c->done && !c->nwoken)
		arm(q, c);
}

void cf_wait(cf_qp *q, cf_call *c)
{
	clear(c);
	if (may_spin(q, c)) {
		if (cf_table_spin(&q->table, c))
			spin(q, c);
		else
			c->gone = 1;
		stop_spin(q);
	}
	if (c->arm && !c->done && !c->gone && !c->nwoken)
		arm(q, c);
}

void cf_reap(cf_qp *q, cf_call *c)
{
	clear(c);
	if (c->arm) {
		arm(q, c);
		return;
	}
	c->more = !drain(q, c);
	if (c->more || __atomic_load_n(&q->sleepers, __ATOMIC_SEQ_CST) == 0)
		return;
	if (ibv_req_notify_cq(q->scq, 0))
		c->err = EIO;
	c->more = !drain(q, c);
}
#endif
