/* append(v): a client that holds the position's token (R2, R8, R9). */

#ifdef NO_R2
#define NTH(e,i) UNIT(e, backwards*(length[e]-1-(i))+(1-backwards)*(i))
#else
#define NTH(e,i) UNIT(e,i)
#endif

#ifdef NO_R8
#define MAY_CAS(E) (true)
#else
#define MAY_CAS(E) (token==NONE)
#endif

/* The CAS at the head, its completion received ... */
#define BEGIN(E) \
	:: atomic { MAY_CAS(E) && verdict[E]==ACTIVE && SERVES(NTH(E,0),E) -> token=E; e=E; \
		cas(NTH(E,0),v,now); i=1; \
		SAY(("@ append %d: CAS at unit %d in epoch %d: %d stands there\n",v,NTH(E,0),E,now)) \
		if \
		:: now!=v -> sayLost(v); goto done \
		:: else \
		fi }
/* ... or lost: it may have landed, may land later, or never. */
#define BEGIN_UNKNOWN(E) \
	:: atomic { MAY_CAS(E) && late[v]==0 && HEAD_UP(E) -> token=E; e=E; late[v]=E+1; \
		SAY(("@ append %d: CAS at unit %d in epoch %d posted, no completion\n",v,HEAD(E),E)) goto settle }

/* R9, same epoch: decide the head's word with a CAS EMPTY -> JUNK. */
#ifdef NO_R9_FILL
#define DECIDE_HEAD(u) now=word[u]
#else
#define DECIDE_HEAD(u) cas(u,JUNK,now)
#endif
/* R9, newer epoch: only look. TRIMMED: it may have been v, so nothing is said. */
#define LOOK(E) \
	:: atomic { E>token && HEAD_UP(E) -> e=E; now=word[HEAD(E)]; goto judge }

proctype append(byte v) {
	byte e, i, now, token=NONE;
#ifdef NO_R2
	bit backwards;
	if :: backwards=0 :: backwards=1 fi;
#endif
begin:
	if
	EACH_EPOCH(BEGIN)
#if !defined(DIES) && !defined(NO_R8)
	EACH_EPOCH(BEGIN_UNKNOWN)
#endif
	fi;
#ifdef DIES
	goto done;
#endif
down:	/* down the chain, each replica only after the one before (R2) */
	do
	:: atomic { i<length[e] && SERVES(NTH(e,i),e) ->
		cas(NTH(e,i),v,now);
		SAY(("@ append %d: CAS at unit %d in epoch %d: %d stands there\n",v,NTH(e,i),e,now))
#ifdef NO_R2
		if :: now!=v -> sayLost(v); goto done :: else fi;
#else
		ALARM(now==v || now==TRIMMED || now==CORRUPT)
		if :: now!=v && now!=TRIMMED -> goto done :: else fi;
#endif
		i++ }
	:: atomic { i==length[e] -> i=0; break }
#ifdef NO_R9_HEAD
	:: atomic { i<length[e] && newest>e && i<length[newest] -> e=newest }
#endif
#ifdef NO_R9_LOST
	:: atomic { i<length[e] && !SERVES(UNIT(e,i),e) -> sayLost(v); goto done }
#else
	:: atomic { newest>e || (i<length[e] && !SERVES(NTH(e,i),e)) -> i=0; goto settle }
#endif
	od;
	do	/* wait until it is durable */
#if ACK==ACK_ALL && defined(NO_R3)
	:: atomic { i<length[e] && SERVES(UNIT(e,i),e) && word[UNIT(e,i)]!=EMPTY -> i++ }
#elif ACK==ACK_ALL
	:: atomic { i<length[e] && SERVES(UNIT(e,i),e) && word[UNIT(e,i)]!=EMPTY && durable[UNIT(e,i)] -> i++ }
#elif ACK==ACK_TAIL
	:: atomic { i<length[e] && SERVES(TAIL(e),e) && word[TAIL(e)]!=EMPTY && durable[TAIL(e)] -> i=length[e] }
#else
	:: atomic { i<length[e] -> i=length[e] }
#endif
	:: atomic { i==length[e] ->
		SAY(("@ append %d: ACKNOWLEDGED in epoch %d\n",v,e))
		assert(seen==EMPTY || seen==v);        /* S1, S2 */
		assert(acked==EMPTY || acked==v);
		acked=v; goto done }
	:: atomic { i<length[e] && (newest>e || !SERVES(UNIT(e,i),e)) -> i=0; goto settle }
	od;
settle:	/* the outcome is unknown (R9) */
#ifdef NO_R8
	atomic { i=0; goto begin };
#endif
	if
	:: atomic { HEAD_UP(token) -> e=token; DECIDE_HEAD(HEAD(e));
		SAY(("@ append %d: decides the head, unit %d, in epoch %d: %d stands there\n",v,HEAD(e),e,now)) }
	EACH_EPOCH(LOOK)
	fi;
judge:
	atomic {
		SAY(("@ append %d: finds %d at the head of epoch %d\n",v,now,e))
		if
		:: now==v -> i=1; goto down
		:: now==TRIMMED || now==CORRUPT -> skip
		:: else -> sayLost(v)
		fi
	};
done:	atomic { e=0; i=0; now=0; token=0 }
}
