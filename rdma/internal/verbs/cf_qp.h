// A queue pair as qp.c and recv.c see it.
#ifndef CORFU_VERBS_QP_H
#define CORFU_VERBS_QP_H

#include "cf_lib.h"
#include <pthread.h>

struct cf_qp {
	cf_table table;
	struct rdma_cm_id *id;
	struct ibv_qp *qp;
	struct ibv_cq *scq, *rcq;
	pthread_mutex_t poll; // one thread reaps at a time: the table wants the queue's order
	int32_t sleepers;     // callers that count on the completion channel
	uint32_t spinners;
	cf_qp_opts o;
};

#endif
