//go:build cgo

#include "cf_lib.h"

#ifdef CF_HAVE_VERBS

_Static_assert(CF_ACCESS_LOCAL_WRITE == IBV_ACCESS_LOCAL_WRITE && CF_ACCESS_REMOTE_WRITE == IBV_ACCESS_REMOTE_WRITE &&
	CF_ACCESS_REMOTE_READ == IBV_ACCESS_REMOTE_READ && CF_ACCESS_REMOTE_ATOMIC == IBV_ACCESS_REMOTE_ATOMIC, "access flags");

void *cf_pd_alloc(void *ctx)
{
	return cf_lib.p_ibv_alloc_pd(ctx);
}

int cf_pd_free(void *pd)
{
	return cf_rc(cf_lib.p_ibv_dealloc_pd(pd));
}

void *cf_mr_reg(void *pd, uint64_t addr, size_t len, int access, uint32_t *lkey, uint32_t *rkey)
{
	// The flags of the optional range, relaxed ordering among them, would need
	// ibv_reg_mr_iova2. None is ever asked for (rule R7), so the plain verb serves.
	struct ibv_mr *mr = cf_lib.p_ibv_reg_mr(pd, (void *)(uintptr_t)addr, len, access & 15);

	if (mr) {
		*lkey = mr->lkey;
		*rkey = mr->rkey;
	}
	return mr;
}

int cf_mr_dereg(void *mr)
{
	return cf_rc(cf_lib.p_ibv_dereg_mr(mr));
}
#endif
