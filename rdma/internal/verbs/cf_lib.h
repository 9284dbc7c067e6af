// The functions of libibverbs and librdmacm that are called by pointer. The fast
// ones (post, poll, arm) are inline in the headers and go through ctx->ops.
#ifndef CORFU_VERBS_LIB_H
#define CORFU_VERBS_LIB_H

#include "cf.h"

#if defined(__has_include)
#if __has_include(<infiniband/verbs.h>) && __has_include(<rdma/rdma_cma.h>)
#define CF_HAVE_VERBS 1
#endif
#endif

#ifdef CF_HAVE_VERBS
#include <errno.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#define CF_IBV(X) \
	X(ibv_get_device_list) X(ibv_free_device_list) X(ibv_get_device_name) \
	X(ibv_open_device) X(ibv_close_device) X(ibv_query_device) X(ibv_query_port) \
	X(ibv_alloc_pd) X(ibv_dealloc_pd) X(ibv_reg_mr) X(ibv_dereg_mr) \
	X(ibv_create_comp_channel) X(ibv_destroy_comp_channel) \
	X(ibv_create_cq) X(ibv_destroy_cq) X(ibv_get_cq_event) X(ibv_ack_cq_events) \
	X(ibv_get_async_event) X(ibv_ack_async_event) \
	X(ibv_modify_qp) X(_ibv_query_gid_table)

#define CF_CM(X) \
	X(rdma_create_event_channel) X(rdma_destroy_event_channel) X(rdma_get_cm_event) X(rdma_ack_cm_event) \
	X(rdma_event_str) X(rdma_create_id) X(rdma_destroy_id) X(rdma_migrate_id) X(rdma_bind_addr) \
	X(rdma_listen) X(rdma_resolve_addr) X(rdma_resolve_route) X(rdma_set_option) X(rdma_connect) \
	X(rdma_accept) X(rdma_reject) X(rdma_disconnect) X(rdma_create_qp) X(rdma_destroy_qp)

// Each pointer has the type of the function's own declaration; the prefix keeps
// the headers' function-like macros (ibv_reg_mr, ibv_query_port, …) away.
#define CF_FIELD(name) __typeof__(&name) p_##name;
struct cf_lib {
	CF_IBV(CF_FIELD)
	CF_CM(CF_FIELD)
};
extern struct cf_lib cf_lib;

// cf_rc makes an errno of what a verb returned: 0, an errno, its negative, or -1 with errno set.
static inline int cf_rc(int r)
{
	if (r == -1)
		return errno ? errno : EIO;
	return r < 0 ? -r : r;
}
#endif
#endif
