//go:build cgo

// Which batch a completion belongs to, and who tells its owner.
//
// A slot goes FREE → POSTED or SPINNING → DONE → FREE. Whoever reaps the
// completion of the last operation makes it DONE, by an exchange:
//
//   it was SPINNING   a thread polls for just this batch; it will see DONE and finish it
//   it was POSTED     nobody looks: it goes on the reaper's list of woken slots, and
//                     the reaper finishes it
//
// A spinner that gives up goes back to POSTED by compare-and-swap; if that fails
// the batch was completed in between, and is the spinner's to finish. So each
// batch is finished exactly once, whatever the interleaving. The state carries
// the slot's generation: a late look at a slot in its next life fails.
#include "cf.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t word(const cf_call *c, int st)
{
	return (uint64_t)c->gen << 2 | st;
}

cf_call *cf_call_new(void)
{
	return calloc(1, sizeof(cf_call));
}

void cf_call_free(cf_call *c)
{
	free(c);
}

int cf_table_init(cf_table *t, uint32_t n)
{
	memset(t, 0, sizeof(*t));
	if (n == 0 || n > 1 << 16)
		return EINVAL;
	t->slots = calloc(n, sizeof(cf_slot));
	t->n = n;
	return t->slots ? 0 : ENOMEM;
}

void cf_table_free(cf_table *t)
{
	free(t->slots);
	t->slots = NULL;
}

cf_table *cf_table_new(uint32_t n)
{
	cf_table *t = malloc(sizeof(*t));

	if (t && (errno = cf_table_init(t, n))) {
		free(t);
		t = NULL;
	}
	return t;
}

void cf_table_delete(cf_table *t)
{
	cf_table_free(t);
	free(t);
}

uint64_t cf_wr_id(uint32_t slot, uint32_t op, uint32_t gen)
{
	return (uint64_t)gen << 32 | op << 16 | slot;
}

void cf_table_open(cf_table *t, cf_call *c, int spinning)
{
	cf_slot *s = &t->slots[c->slot];

	s->last = c->n - 1;
	s->err_op = s->status = s->vendor = 0;
	__atomic_store_n(&s->state, word(c, spinning ? CF_SPINNING : CF_POSTED), __ATOMIC_RELEASE);
}

int cf_table_spin(cf_table *t, cf_call *c)
{
	uint64_t old = word(c, CF_POSTED);

	return __atomic_compare_exchange_n(&t->slots[c->slot].state, &old, word(c, CF_SPINNING), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

int cf_table_unspin(cf_table *t, cf_call *c)
{
	uint64_t old = word(c, CF_SPINNING);

	return __atomic_compare_exchange_n(&t->slots[c->slot].state, &old, word(c, CF_POSTED), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

int cf_table_done(cf_table *t, cf_call *c)
{
	return __atomic_load_n(&t->slots[c->slot].state, __ATOMIC_ACQUIRE) == word(c, CF_DONE);
}

// cf_table_complete is called by one thread at a time, in the order of the
// completion queue: a slot's first error is the one that counts, and must be
// noted before the last completion ends the batch.
void cf_table_complete(cf_table *t, cf_call *c, uint64_t wr_id, uint32_t status, uint32_t vendor)
{
	uint32_t slot = wr_id & 0xffff, op = wr_id >> 16 & 0xffff, gen = wr_id >> 32;
	uint64_t old, st;
	cf_slot *s;

	if (slot >= t->n) {
		t->stray++;
		return;
	}
	s = &t->slots[slot];
	st = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
	if (st >> 2 != gen || (st & 3) == CF_FREE || (st & 3) == CF_DONE) {
		t->stray++;
		return;
	}
	if (status && !s->status) {
		s->status = status;
		s->err_op = op;
		s->vendor = vendor;
	}
	if (op != s->last)
		return;
	old = __atomic_exchange_n(&s->state, (uint64_t)gen << 2 | CF_DONE, __ATOMIC_ACQ_REL);
	if ((old & 3) != CF_SPINNING)
		c->woken[c->nwoken++] = slot;
}
