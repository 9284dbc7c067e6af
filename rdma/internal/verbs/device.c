//go:build cgo

#include "cf_lib.h"
#include <fcntl.h>
#include <string.h>

#ifdef CF_HAVE_VERBS

void *cf_device_list(int *n)
{
	return cf_lib.p_ibv_get_device_list(n);
}

const char *cf_device_name(void *list, int i)
{
	return cf_lib.p_ibv_get_device_name(((struct ibv_device **)list)[i]);
}

void cf_device_list_free(void *list)
{
	cf_lib.p_ibv_free_device_list(list);
}

void *cf_device_open(void *list, int i)
{
	return cf_lib.p_ibv_open_device(((struct ibv_device **)list)[i]);
}

int cf_device_close(void *ctx)
{
	return cf_rc(cf_lib.p_ibv_close_device(ctx));
}

int cf_async_fd(void *ctx)
{
	int fd = ((struct ibv_context *)ctx)->async_fd;

	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	return fd;
}

int cf_async_get(void *ctx, int *type)
{
	struct ibv_async_event e;
	int rc = cf_rc(cf_lib.p_ibv_get_async_event(ctx, &e));

	if (rc)
		return rc;
	*type = e.event_type;
	// Destroying an object waits until its events are acknowledged (ibv_get_async_event(3)): do it before anyone can.
	cf_lib.p_ibv_ack_async_event(&e);
	return 0;
}

int cf_device_query(void *ctx, cf_device_attr *out)
{
	struct ibv_device_attr a;
	int rc = cf_rc(cf_lib.p_ibv_query_device(ctx, &a));

	if (rc)
		return rc;
	memset(out, 0, sizeof(*out));
	out->node_guid = a.node_guid;
	out->max_mr_size = a.max_mr_size;
	out->atomic_cap = a.atomic_cap;
	out->max_qp_wr = a.max_qp_wr;
	out->max_cqe = a.max_cqe;
	out->max_qp_rd_atom = a.max_qp_rd_atom;
	out->max_qp_init_rd_atom = a.max_qp_init_rd_atom;
	out->ports = a.phys_port_cnt;
	memcpy(out->fw, a.fw_ver, sizeof(out->fw));
	out->fw[sizeof(out->fw) - 1] = 0;
	return 0;
}

int cf_port_query(void *ctx, int port, cf_port_attr *out)
{
	struct ibv_port_attr a;
	struct verbs_context *v = verbs_get_ctx_op((struct ibv_context *)ctx, query_port);
	int rc;

	// The exported symbol fills only the short, old form of the struct; the
	// header's inline wrapper, which cannot be used without linking the library,
	// asks the provider for the whole one. Do the same.
	memset(&a, 0, sizeof(a));
	if (v)
		rc = v->query_port(ctx, port, &a, sizeof(a));
	else
		rc = cf_lib.p_ibv_query_port(ctx, port, (void *)&a);
	if (rc)
		return cf_rc(rc);
	out->state = a.state;
	out->link_layer = a.link_layer;
	out->active_mtu = 128 << a.active_mtu; // IBV_MTU_256 is 1
	out->max_mtu = 128 << a.max_mtu;
	out->gid_tbl_len = a.gid_tbl_len;
	out->max_msg_sz = a.max_msg_sz;
	return 0;
}

int cf_gid_table(void *ctx, cf_gid *out, int max)
{
	struct ibv_gid_entry e[256];
	ssize_t n;

	if (max > 256)
		max = 256;
	n = cf_lib.p__ibv_query_gid_table(ctx, e, max, 0, sizeof(e[0]));
	for (ssize_t i = 0; i < n; i++) {
		memcpy(out[i].gid, e[i].gid.raw, 16);
		out[i].index = e[i].gid_index;
		out[i].port = e[i].port_num;
		out[i].type = e[i].gid_type;
		out[i].ifindex = e[i].ndev_ifindex;
	}
	return (int)n;
}
#endif
