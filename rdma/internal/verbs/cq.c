//go:build cgo

#include "cf_lib.h"
#include <fcntl.h>

#ifdef CF_HAVE_VERBS

void *cf_channel_create(void *ctx, int *fd)
{
	struct ibv_comp_channel *ch = cf_lib.p_ibv_create_comp_channel(ctx);

	if (!ch)
		return NULL;
	*fd = ch->fd;
	if (fcntl(ch->fd, F_SETFL, fcntl(ch->fd, F_GETFL) | O_NONBLOCK) < 0) {
		int e = errno;

		cf_lib.p_ibv_destroy_comp_channel(ch);
		errno = e;
		return NULL;
	}
	return ch;
}

int cf_channel_destroy(void *ch)
{
	return cf_rc(cf_lib.p_ibv_destroy_comp_channel(ch));
}

int cf_channel_drain(void *ch)
{
	struct ibv_cq *cq;
	void *arg;
	int n = 0;

	// ibv_destroy_cq waits for events to be acknowledged: do it here and now.
	while (cf_lib.p_ibv_get_cq_event(ch, &cq, &arg) == 0) {
		cf_lib.p_ibv_ack_cq_events(cq, 1);
		n++;
	}
	return n;
}

void *cf_cq_create(void *ctx, int depth, void *ch)
{
	return cf_lib.p_ibv_create_cq(ctx, depth, NULL, ch, 0);
}

int cf_cq_destroy(void *cq)
{
	return cf_rc(cf_lib.p_ibv_destroy_cq(cq));
}
#endif
