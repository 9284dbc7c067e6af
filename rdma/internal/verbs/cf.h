// The C side of package verbs: what Go may call. No type of libibverbs appears
// here, so that the package builds where its headers are missing.
//
// Functions that give an int give 0 or an errno; those that give a pointer give
// NULL and set errno.
#ifndef CORFU_VERBS_H
#define CORFU_VERBS_H

#include <stdint.h>
#include <stddef.h>

#define CF_BATCH 64   // operations of one list: rdma.MaxBatch
#define CF_INLINE 64  // bytes of an inline message: rdma.MaxInline
#define CF_WOKEN 64   // batches that one call hands back to be completed
#define CF_RBATCH 64  // messages that one call receives
#define CF_NO_MESSAGE (1 << 16 | 1) // StatusNoMessage

// ---- load.c

// cf_load opens the libraries once; msg gets a reason of at most n bytes on failure.
int cf_load(char *msg, size_t n);

// ---- device.c

typedef struct cf_device_attr {
	uint64_t node_guid;
	uint64_t max_mr_size;
	int32_t atomic_cap;
	int32_t max_qp_wr, max_cqe, max_qp_rd_atom, max_qp_init_rd_atom;
	int32_t ports;
	char fw[64];
} cf_device_attr;

typedef struct cf_port_attr {
	int32_t state, link_layer, active_mtu, max_mtu, gid_tbl_len;
	uint32_t max_msg_sz;
} cf_port_attr;

typedef struct cf_gid {
	uint8_t gid[16];
	uint32_t index, port, type, ifindex;
} cf_gid;

void *cf_device_list(int *n);
const char *cf_device_name(void *list, int i);
void cf_device_list_free(void *list);
void *cf_device_open(void *list, int i);
int cf_device_close(void *ctx);
int cf_device_query(void *ctx, cf_device_attr *out);
int cf_port_query(void *ctx, int port, cf_port_attr *out);
// cf_gid_table gives the number of entries, or minus an errno.
int cf_gid_table(void *ctx, cf_gid *out, int max);

// ---- mr.c

#define CF_ACCESS_LOCAL_WRITE 1
#define CF_ACCESS_REMOTE_WRITE 2
#define CF_ACCESS_REMOTE_READ 4
#define CF_ACCESS_REMOTE_ATOMIC 8

void *cf_pd_alloc(void *ctx);
int cf_pd_free(void *pd);
void *cf_mr_reg(void *pd, uint64_t addr, size_t len, int access, uint32_t *lkey, uint32_t *rkey);
int cf_mr_dereg(void *mr);

// ---- cq.c

void *cf_channel_create(void *ctx, int *fd);
int cf_channel_destroy(void *ch);
// cf_channel_drain takes and acknowledges the events that wait, and gives their number.
int cf_channel_drain(void *ch);
void *cf_cq_create(void *ctx, int depth, void *ch);
int cf_cq_destroy(void *cq);

// ---- table.c: which batch a completion belongs to, and who tells its owner

enum { CF_FREE, CF_POSTED, CF_SPINNING, CF_DONE };

// cf_slot is one batch in flight. state = generation << 2 | one of the above.
typedef struct cf_slot {
	uint64_t state;
	uint32_t last;   // index of the last operation, whose completion ends the batch
	uint32_t err_op; // the first operation that failed
	uint32_t status; // its ibv_wc_status, 0 while all is well
	uint32_t vendor; // its vendor error
	uint8_t pad[40];
} cf_slot;

typedef struct cf_table {
	cf_slot *slots;
	uint32_t n, pad;
	uint64_t stray;  // completions that belonged to nobody
} cf_table;

#define CF_WRITE_IMM 6 // WRITE with immediate data. Nobody sends that but tests, as a hostile peer

// cf_wr is one operation as Go hands it over.
typedef struct cf_wr {
	uint64_t local, remote, compare, swap;
	uint32_t length, lkey, rkey;
	uint16_t op; // rdma.Kind, or CF_WRITE_IMM
	uint16_t inl;
} cf_wr;

// cf_call is what one call takes and gives. It lies outside the Go heap.
typedef struct cf_call {
	uint32_t slot, gen, n;
	uint32_t arm;    // if not done after the spin: count as a sleeper and arm the CQ
	int64_t spin_ns; // <= 0: do not spin. Changed to what is left of it
	// results
	int32_t err;     // errno of ibv_post_send; with posted == n: the completion queue is broken
	uint32_t posted; // operations that it took
	uint32_t done;   // the caller's batch is complete, and the caller finishes it
	uint32_t gone;   // the caller's batch was handed to another thread to finish
	uint32_t armed;  // counted as a sleeper
	uint32_t more;   // the CQ was not seen empty: deliver, then call again
	uint32_t nwoken;
	uint32_t pad;
	uint32_t woken[CF_WOKEN]; // slots that the caller must finish for others
	cf_wr wr[CF_BATCH];
	uint8_t msg[CF_BATCH][CF_INLINE];
} cf_call;

cf_call *cf_call_new(void);
void cf_call_free(cf_call *c);
int cf_table_init(cf_table *t, uint32_t n);
void cf_table_free(cf_table *t);
cf_table *cf_table_new(uint32_t n);
void cf_table_delete(cf_table *t);
uint64_t cf_wr_id(uint32_t slot, uint32_t op, uint32_t gen);
void cf_table_open(cf_table *t, cf_call *c, int spinning);
// cf_table_spin makes a posted batch the caller's to finish; 0 if it is too late for that.
int cf_table_spin(cf_table *t, cf_call *c);
// cf_table_unspin gives that up; 0 if the batch was completed meanwhile: it is the caller's.
int cf_table_unspin(cf_table *t, cf_call *c);
int cf_table_done(cf_table *t, cf_call *c);
void cf_table_complete(cf_table *t, cf_call *c, uint64_t wr_id, uint32_t status, uint32_t vendor);

// ---- qp.c

typedef struct cf_msg {
	uint32_t index; // of the buffer
	uint32_t len;
	uint32_t status;
	uint32_t vendor;
} cf_msg;

typedef struct cf_rcall {
	uint32_t n;
	int32_t err;
	uint32_t arm, pad;
	cf_msg msg[CF_RBATCH];
	uint32_t post[CF_RBATCH];
} cf_rcall;

typedef struct cf_qp_opts {
	uint32_t send_depth, recv_depth, slots, max_inline;
	uint32_t max_spinners;
	uint32_t rlkey;    // receive buffers: key, first address, size of each
	uint64_t rbase;
	uint32_t rsize, pad;
} cf_qp_opts;

typedef struct cf_qp cf_qp;

cf_qp *cf_qp_create(void *id, void *pd, void *scq, void *rcq, const cf_qp_opts *o);
cf_table *cf_qp_table(cf_qp *q);
int32_t *cf_qp_sleepers(cf_qp *q);
uint32_t cf_qp_max_inline(cf_qp *q);
int cf_qp_set_rnr_timer(cf_qp *q, int code);
int cf_qp_error(cf_qp *q);
// cf_qp_destroy ends the queue pair; the table stays until cf_qp_free.
int cf_qp_destroy(cf_qp *q);
void cf_qp_free(cf_qp *q);
void cf_post(cf_qp *q, cf_call *c);
void cf_wait(cf_qp *q, cf_call *c);
void cf_reap(cf_qp *q, cf_call *c);
cf_rcall *cf_rcall_new(void);
void cf_rcall_free(cf_rcall *r);
void cf_recv_post(cf_qp *q, cf_rcall *r);
void cf_recv_poll(cf_qp *q, cf_rcall *r);

// ---- cm.c

typedef struct cf_addr {
	uint8_t ip[16];
	uint32_t scope;
	uint16_t port;
	uint8_t v4, pad;
} cf_addr;

typedef struct cf_event {
	int32_t type, status;
	void *id, *listen;
	uint8_t responder, initiator, retry, rnr_retry, plen, pad[3];
	uint8_t priv[196];
} cf_event;

typedef struct cf_param {
	uint8_t responder, initiator, retry, rnr_retry, plen;
	uint8_t priv[196];
} cf_param;

int cf_async_fd(void *ctx); // made non-blocking; below 0: a negative errno
int cf_async_get(void *ctx, int *type); // EAGAIN: there is none
void *cf_cm_channel_create(int *fd);
void cf_cm_channel_destroy(void *ch);
int cf_cm_get(void *ch, cf_event *out);
const char *cf_cm_event_name(int type);
void *cf_id_create(void *ch);
int cf_id_destroy(void *id);
int cf_id_migrate(void *id, void *ch);
int cf_id_bind(void *id, const cf_addr *a);
int cf_id_listen(void *id, int backlog);
int cf_id_resolve_addr(void *id, const cf_addr *src, const cf_addr *dst, int ms);
int cf_id_resolve_route(void *id, int ms);
int cf_id_ack_timeout(void *id, uint8_t code);
int cf_id_connect(void *id, const cf_param *p);
int cf_id_accept(void *id, const cf_param *p);
int cf_id_reject(void *id, const uint8_t *priv, uint8_t n);
int cf_id_disconnect(void *id);
void cf_id_addrs(void *id, cf_addr *local, cf_addr *peer);
void *cf_id_verbs(void *id);
const char *cf_id_device(void *id);

#endif
