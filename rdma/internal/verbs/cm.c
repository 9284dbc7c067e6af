//go:build cgo

#include "cf_lib.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <string.h>

#ifdef CF_HAVE_VERBS

static void to_sockaddr(struct sockaddr_storage *ss, const cf_addr *a)
{
	memset(ss, 0, sizeof(*ss));
	if (a->v4) {
		struct sockaddr_in *s = (void *)ss;

		s->sin_family = AF_INET;
		s->sin_port = htons(a->port);
		memcpy(&s->sin_addr, a->ip, 4);
	} else {
		struct sockaddr_in6 *s = (void *)ss;

		s->sin6_family = AF_INET6;
		s->sin6_port = htons(a->port);
		s->sin6_scope_id = a->scope;
		memcpy(&s->sin6_addr, a->ip, 16);
	}
}

static void from_sockaddr(cf_addr *a, const struct sockaddr *sa)
{
	memset(a, 0, sizeof(*a));
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *s = (const void *)sa;

		a->v4 = 1;
		a->port = ntohs(s->sin_port);
		memcpy(a->ip, &s->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *s = (const void *)sa;

		a->port = ntohs(s->sin6_port);
		a->scope = s->sin6_scope_id;
		memcpy(a->ip, &s->sin6_addr, 16);
	}
}

void *cf_cm_channel_create(int *fd)
{
	struct rdma_event_channel *ch = cf_lib.p_rdma_create_event_channel();

	if (!ch)
		return NULL;
	*fd = ch->fd;
	if (fcntl(ch->fd, F_SETFL, fcntl(ch->fd, F_GETFL) | O_NONBLOCK) < 0) {
		int e = errno;

		cf_lib.p_rdma_destroy_event_channel(ch);
		errno = e;
		return NULL;
	}
	return ch;
}

void cf_cm_channel_destroy(void *ch)
{
	cf_lib.p_rdma_destroy_event_channel(ch);
}

int cf_cm_get(void *ch, cf_event *out)
{
	struct rdma_cm_event *e;
	int rc = cf_rc(cf_lib.p_rdma_get_cm_event(ch, &e));

	if (rc)
		return rc;
	memset(out, 0, sizeof(*out));
	out->type = e->event;
	out->status = e->status;
	out->id = e->id;
	out->listen = e->listen_id;
	out->responder = e->param.conn.responder_resources;
	out->initiator = e->param.conn.initiator_depth;
	out->retry = e->param.conn.retry_count;
	out->rnr_retry = e->param.conn.rnr_retry_count;
	if (e->param.conn.private_data && e->param.conn.private_data_len) {
		out->plen = e->param.conn.private_data_len;
		if (out->plen > sizeof(out->priv))
			out->plen = sizeof(out->priv);
		memcpy(out->priv, e->param.conn.private_data, out->plen);
	}
	// rdma_destroy_id waits until an id's events are acknowledged: do it before anyone can.
	return cf_rc(cf_lib.p_rdma_ack_cm_event(e));
}

const char *cf_cm_event_name(int type)
{
	return cf_lib.p_rdma_event_str(type);
}

void *cf_id_create(void *ch)
{
	struct rdma_cm_id *id;

	return cf_lib.p_rdma_create_id(ch, &id, NULL, RDMA_PS_TCP) ? NULL : id;
}

int cf_id_destroy(void *id)
{
	return cf_rc(cf_lib.p_rdma_destroy_id(id));
}

int cf_id_migrate(void *id, void *ch)
{
	return cf_rc(cf_lib.p_rdma_migrate_id(id, ch));
}

int cf_id_bind(void *id, const cf_addr *a)
{
	struct sockaddr_storage ss;

	to_sockaddr(&ss, a);
	return cf_rc(cf_lib.p_rdma_bind_addr(id, (struct sockaddr *)&ss));
}

int cf_id_listen(void *id, int backlog)
{
	return cf_rc(cf_lib.p_rdma_listen(id, backlog));
}

int cf_id_resolve_addr(void *id, const cf_addr *src, const cf_addr *dst, int ms)
{
	struct sockaddr_storage s, d;

	to_sockaddr(&s, src);
	to_sockaddr(&d, dst);
	return cf_rc(cf_lib.p_rdma_resolve_addr(id, (struct sockaddr *)&s, (struct sockaddr *)&d, ms));
}

int cf_id_resolve_route(void *id, int ms)
{
	return cf_rc(cf_lib.p_rdma_resolve_route(id, ms));
}

int cf_id_ack_timeout(void *id, uint8_t code)
{
	return cf_rc(cf_lib.p_rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &code, sizeof(code)));
}

static void to_param(struct rdma_conn_param *out, const cf_param *p)
{
	memset(out, 0, sizeof(*out));
	out->private_data = p->plen ? p->priv : NULL;
	out->private_data_len = p->plen;
	out->responder_resources = p->responder;
	out->initiator_depth = p->initiator;
	out->retry_count = p->retry;
	out->rnr_retry_count = p->rnr_retry;
}

int cf_id_connect(void *id, const cf_param *p)
{
	struct rdma_conn_param c;

	to_param(&c, p);
	return cf_rc(cf_lib.p_rdma_connect(id, &c));
}

int cf_id_accept(void *id, const cf_param *p)
{
	struct rdma_conn_param c;

	to_param(&c, p);
	return cf_rc(cf_lib.p_rdma_accept(id, &c));
}

int cf_id_reject(void *id, const uint8_t *priv, uint8_t n)
{
	return cf_rc(cf_lib.p_rdma_reject(id, priv, n));
}

int cf_id_disconnect(void *id)
{
	return cf_rc(cf_lib.p_rdma_disconnect(id));
}

void cf_id_addrs(void *cmid, cf_addr *local, cf_addr *peer)
{
	struct rdma_cm_id *id = cmid;

	from_sockaddr(local, &id->route.addr.src_addr);
	from_sockaddr(peer, &id->route.addr.dst_addr);
}

void *cf_id_verbs(void *id)
{
	return ((struct rdma_cm_id *)id)->verbs;
}

const char *cf_id_device(void *cmid)
{
	struct rdma_cm_id *id = cmid;

	return id->verbs ? cf_lib.p_ibv_get_device_name(id->verbs->device) : "";
}
#endif
