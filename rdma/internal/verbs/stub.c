//go:build cgo

// What Go calls where the headers of libibverbs were missing at build time. Only
// cf_load is ever reached: it fails, and everything else comes after it.
#include "cf_lib.h"

#ifndef CF_HAVE_VERBS
#include <errno.h>
#include <stdio.h>

int cf_load(char *msg, size_t n)
{
	snprintf(msg, n, "built without the headers of libibverbs and librdmacm");
	return ENOSYS;
}

#define CF_INT(decl) int decl { return ENOSYS; }
#define CF_NUM(type, decl) type decl { return 0; }
#define CF_PTR(type, decl) type decl { errno = ENOSYS; return NULL; }
#define CF_VOID(decl) void decl { }

CF_PTR(void *, cf_device_list(int *n))
CF_PTR(const char *, cf_device_name(void *list, int i))
CF_VOID(cf_device_list_free(void *list))
CF_PTR(void *, cf_device_open(void *list, int i))
CF_INT(cf_device_close(void *ctx))
CF_INT(cf_device_query(void *ctx, cf_device_attr *out))
CF_INT(cf_port_query(void *ctx, int port, cf_port_attr *out))
CF_INT(cf_async_fd(void *ctx))
CF_INT(cf_async_get(void *ctx, int *type))
CF_INT(cf_gid_table(void *ctx, cf_gid *out, int max))
CF_PTR(void *, cf_pd_alloc(void *ctx))
CF_INT(cf_pd_free(void *pd))
CF_PTR(void *, cf_mr_reg(void *pd, uint64_t addr, size_t len, int access, uint32_t *lkey, uint32_t *rkey))
CF_INT(cf_mr_dereg(void *mr))
CF_PTR(void *, cf_channel_create(void *ctx, int *fd))
CF_INT(cf_channel_destroy(void *ch))
CF_INT(cf_channel_drain(void *ch))
CF_PTR(void *, cf_cq_create(void *ctx, int depth, void *ch))
CF_INT(cf_cq_destroy(void *cq))
CF_PTR(cf_qp *, cf_qp_create(void *id, void *pd, void *scq, void *rcq, const cf_qp_opts *o))
CF_PTR(cf_table *, cf_qp_table(cf_qp *q))
CF_PTR(int32_t *, cf_qp_sleepers(cf_qp *q))
CF_NUM(uint32_t, cf_qp_max_inline(cf_qp *q))
CF_INT(cf_qp_set_rnr_timer(cf_qp *q, int code))
CF_INT(cf_qp_error(cf_qp *q))
CF_INT(cf_qp_destroy(cf_qp *q))
CF_VOID(cf_qp_free(cf_qp *q))
CF_VOID(cf_post(cf_qp *q, cf_call *c))
CF_VOID(cf_wait(cf_qp *q, cf_call *c))
CF_VOID(cf_reap(cf_qp *q, cf_call *c))
CF_PTR(cf_rcall *, cf_rcall_new(void))
CF_VOID(cf_rcall_free(cf_rcall *r))
CF_VOID(cf_recv_post(cf_qp *q, cf_rcall *r))
CF_VOID(cf_recv_poll(cf_qp *q, cf_rcall *r))
CF_PTR(void *, cf_cm_channel_create(int *fd))
CF_VOID(cf_cm_channel_destroy(void *ch))
CF_INT(cf_cm_get(void *ch, cf_event *out))
CF_PTR(const char *, cf_cm_event_name(int type))
CF_PTR(void *, cf_id_create(void *ch))
CF_INT(cf_id_destroy(void *id))
CF_INT(cf_id_migrate(void *id, void *ch))
CF_INT(cf_id_bind(void *id, const cf_addr *a))
CF_INT(cf_id_listen(void *id, int backlog))
CF_INT(cf_id_resolve_addr(void *id, const cf_addr *src, const cf_addr *dst, int ms))
CF_INT(cf_id_resolve_route(void *id, int ms))
CF_INT(cf_id_ack_timeout(void *id, uint8_t code))
CF_INT(cf_id_connect(void *id, const cf_param *p))
CF_INT(cf_id_accept(void *id, const cf_param *p))
CF_INT(cf_id_reject(void *id, const uint8_t *priv, uint8_t n))
CF_INT(cf_id_disconnect(void *id))
CF_VOID(cf_id_addrs(void *id, cf_addr *local, cf_addr *peer))
CF_PTR(void *, cf_id_verbs(void *id))
CF_PTR(const char *, cf_id_device(void *id))
#endif
