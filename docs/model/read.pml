/* Readers (R11, R12). Those of one step are branches of the environment (READ_STEP). */

#define NEWS(u)  (word[u]!=EMPTY && word[u]!=CORRUPT && (word[u]!=seen || trimSeen) && !(word[u]==TRIMMED && trimSeen))

#if READ==READ_TAIL
#define READ_STEP(E) \
	:: atomic { TAIL_UP(E) && NEWS(TAIL(E)) && durable[TAIL(E)] -> observe(word[TAIL(E)]) }
#elif READ==READ_WORD
#define READ_STEP(E) \
	:: atomic { TAIL_UP(E) && NEWS(TAIL(E)) -> observe(word[TAIL(E)]) }
#elif READ==READ_JUNK
#define READ_STEP(E) \
	:: atomic { TAIL_UP(E) && NEWS(TAIL(E)) && (durable[TAIL(E)] || word[TAIL(E)]==JUNK) -> observe(word[TAIL(E)]) }
#elif READ==READ_ANY
#define READ_STEP(E) \
	:: atomic { HEAD_UP(E) && NEWS(HEAD(E)) && durable[HEAD(E)] -> observe(word[HEAD(E)]) } \
	:: atomic { TAIL_UP(E) && NEWS(TAIL(E)) && durable[TAIL(E)] -> observe(word[TAIL(E)]) }
#else
#define READ_STEP(E)
#endif

#if READ==READ_ALL
/* all replicas, one after the other, show the same entry, durable */
#define READ_FIRST(E) \
	:: atomic { HEAD_UP(E) && word[HEAD(E)]!=EMPTY && durable[HEAD(E)] -> e=E; w=word[HEAD(E)]; i=1 }
proctype reader() {
	byte e, i, w;
idle:
	if
	EACH_EPOCH(READ_FIRST)
	fi;
	do
	:: atomic { i<length[e] && SERVES(UNIT(e,i),e) && word[UNIT(e,i)]!=EMPTY && durable[UNIT(e,i)] ->
		assert(word[UNIT(e,i)]==w); i++ }
	:: atomic { i==length[e] -> observe(w); e=0; i=0; w=0; goto idle }
	:: atomic { i<length[e] -> e=0; i=0; w=0; goto idle }
	od
}
#endif

#if READ==READ_ANY_TAIL || READ==READ_OTHER
/* the head's copy, durable there, and the tail's word, in either order, in one epoch */
#if READ==READ_OTHER
#define TAIL_SAYS(e) (word[TAIL(e)]!=EMPTY && durable[TAIL(e)])
#else
#define TAIL_SAYS(e) (word[TAIL(e)]!=EMPTY)
#endif
#define READ_TAIL_FIRST(E) \
	:: atomic { TAIL_UP(E) && TAIL_SAYS(E) -> e=E; w=word[TAIL(E)]; i=1 }
#define READ_HEAD_FIRST(E) \
	:: atomic { HEAD_UP(E) && word[HEAD(E)]!=EMPTY && durable[HEAD(E)] -> e=E; w=word[HEAD(E)]; i=2 }
proctype reader() {
	byte e, i, w;
idle:
	if
	EACH_EPOCH(READ_TAIL_FIRST)
	EACH_EPOCH(READ_HEAD_FIRST)
	fi;
	do
	:: atomic { i==1 && SERVES(HEAD(e),e) && word[HEAD(e)]==w && durable[HEAD(e)] ->
		observe(w); e=0; i=0; w=0; goto idle }
	:: atomic { i==2 && SERVES(TAIL(e),e) && TAIL_SAYS(e) && word[TAIL(e)]==w -> observe(w); e=0; i=0; w=0; goto idle }
	:: atomic { true -> e=0; i=0; w=0; goto idle }
	od
}
#endif

#ifdef UNWRITTEN
/* A read that starts after an acknowledgement must not answer "unwritten" (S7). R12: the tail
 * is empty, and afterwards every other replica still shows the epoch. */
#define TAIL_EMPTY(E) \
	:: atomic { TAIL_UP(E) && word[TAIL(E)]==EMPTY -> e=E; i=0 }
proctype unwritten() {
	byte e, i;
	bit after;
	after = (acked!=EMPTY);
	if
	EACH_EPOCH(TAIL_EMPTY)
	fi;
#ifndef NO_R12
	do
	:: atomic { i<length[e] && SERVES(UNIT(e,i),e) -> i++ }
	:: i==length[e] -> break
	od;
#endif
	SAY(("@ READ that began after an acknowledgement (%d) answers UNWRITTEN in epoch %d\n",after,e))
	assert(!after)                                    /* S7 */
}
#endif
