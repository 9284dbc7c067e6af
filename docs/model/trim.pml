/* Trim. TRIM=ONE: the position alone. TRIM=PREFIX: all below some higher one; the unit notes
 * that durably, and what is not settled yet becomes TRIMMED when it is (R1).
 *
 * Rules to switch off:
 *   NO_TRIM_DECIDED     replicas are trimmed although later ones have not got the entry yet
 *   NO_TRIM_ORDER       replicas are trimmed tail first
 *   NO_TRIM_RECONCILED  a base member that has the value keeps it, though another has trimmed
 *   NO_TRIM_COPIED      a prefix is not told to the new chain
 */
#define ONE    1
#define PREFIX 2
#ifndef TRIM
#define TRIM 0
#endif

#if TRIM==PREFIX
bit below[UNITS];   /* durable: the position lies below the unit's trimmed prefix */
#define TRIMMED_BELOW(u) below[u]
#define TRIM_SETTLED(u) if :: below[u] -> word[u]=TRIMMED :: else fi
#ifdef NO_TRIM_COPIED
#define TRIM_RECONCILED(u) if :: IN_BASE(u) -> skip :: else -> below[u]=0 fi;
#else
#define TRIM_RECONCILED(u) \
	below[u]=trimmedBelow; \
	if :: below[u] && word[u]!=EMPTY && durable[u] -> word[u]=TRIMMED :: else fi;
#endif
#else
#define TRIMMED_BELOW(u) 0
#define TRIM_SETTLED(u)
#define TRIM_RECONCILED(u)
#endif

#ifdef NO_TRIM_RECONCILED
#define TRIM_COMPLETES 0
#else
#define TRIM_COMPLETES 1
#endif
#ifdef NO_TRIM_ORDER
#define TRIM_NTH(e,i) UNIT(e,length[e]-1-(i))
#else
#define TRIM_NTH(e,i) UNIT(e,i)
#endif

#if TRIM
#define TRIM_IN(E) :: atomic { HEAD_UP(E) -> e=E; i=0 }
proctype trim() {
	byte e, i;
begin:
	if
	EACH_EPOCH(TRIM_IN)
	fi;
#if TRIM==ONE && !defined(NO_TRIM_DECIDED)
	do	/* decided first: durable at all replicas (somebody fills) */
	:: atomic { i<length[e] && SERVES(UNIT(e,i),e) && word[UNIT(e,i)]!=EMPTY && durable[UNIT(e,i)] -> i++ }
	:: atomic { i==length[e] -> i=0; break }
	:: atomic { i<length[e] && !SERVES(UNIT(e,i),e) -> goto again }
	od;
#endif
	do	/* then trimmed, head first */
#if TRIM==ONE
	:: atomic { i<length[e] && SERVES(TRIM_NTH(e,i),e) && word[TRIM_NTH(e,i)]!=EMPTY && durable[TRIM_NTH(e,i)] ->
		word[TRIM_NTH(e,i)]=TRIMMED;
#else
	:: atomic { i<length[e] && SERVES(TRIM_NTH(e,i),e) ->
		below[TRIM_NTH(e,i)]=1;
		if :: word[TRIM_NTH(e,i)]!=EMPTY && durable[TRIM_NTH(e,i)] -> word[TRIM_NTH(e,i)]=TRIMMED :: else fi;
#endif
		SAY(("@ trim at unit %d in epoch %d\n",TRIM_NTH(e,i),e))
		i++ }
	:: atomic { i==length[e] -> sawTrim(e); SAY(("@ trim ACKNOWLEDGED in epoch %d\n",e)) goto end }
	:: atomic { i<length[e] && !SERVES(TRIM_NTH(e,i),e) -> goto again }
	od;
again:
	atomic { e=0; i=0; goto begin };
end:
	atomic { e=0; i=0 }
}
#endif
