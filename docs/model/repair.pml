/* Repair of a copy that does not verify any more. A durable copy turns CORRUPT at rest. Somebody reads
 * the entry at another member of the chain, in epoch e, and hands it to the unit, in epoch e.
 *
 * Rules to switch off:
 *   NO_REPAIR_EPOCH    the unit takes it in whatever epoch it serves
 *   NO_REPAIR_SEALS    for R16 a member counts whose copy is corrupt
 */
#ifndef ROT
#define ROT 1
#endif

#ifdef REPAIR
byte rots;
#define ROTS(u) \
	:: atomic { rots<ROT && phase[u]!=LOST && word[u]!=EMPTY && word[u]!=CORRUPT && durable[u] && \
		(!IN_NEWEST(u) || OTHER_UNIT(u,HEALTHY)) -> rots++; \
		SAY(("@ unit %d: its copy of %d is CORRUPT\n",u,word[u])) \
		word[u]=CORRUPT }
#ifdef NO_REPAIR_SEALS
#define SOUND(u) (true)
#else
#define SOUND(u) (word[u]!=CORRUPT)
#endif

#ifdef NO_REPAIR_EPOCH
#define TAKES(u) (phase[u]==OPEN)
#else
#define TAKES(u) ((members[e] & BIT(u)) && SERVES(u,e))
#endif
#define FETCH_NTH(E,i) \
	:: atomic { verdict[E]==ACTIVE && i<length[E] && SERVES(UNIT(E,i),E) && word[UNIT(E,i)]!=EMPTY && word[UNIT(E,i)]!=CORRUPT -> \
		e=E; w=word[UNIT(E,i)]; \
		SAY(("@ repair: reads %d at unit %d, in epoch %d\n",w,UNIT(E,i),E)) }
#define FETCH(E) FETCH_NTH(E,0) FETCH_NTH(E,1)
#define HAND(u) \
	:: atomic { TAKES(u) && word[u]==CORRUPT -> word[u]=w; durable[u]=1; \
		SAY(("@ repair: unit %d takes %d\n",u,w)) goto end }
proctype repair() {
	byte e, w;
	if
	EACH_EPOCH(FETCH)
	fi;
	if
	EACH_UNIT(HAND)
	fi;
end:	atomic { e=0; w=0 }
}
/* R11: a corrupt tail, another replica's copy, and the same tail once more. */
#define ELSEWHERE(E) \
	:: atomic { TAIL_UP(E) && word[TAIL(E)]==CORRUPT && length[E]>1 && SERVES(HEAD(E),E) && durable[HEAD(E)] && NEWS(HEAD(E)) -> \
		e=E; w=word[HEAD(E)] }
proctype readElsewhere() {
	byte e, w;
idle:
	if
	EACH_EPOCH(ELSEWHERE)
	fi;
	if
	:: atomic { SERVES(TAIL(e),e) && word[TAIL(e)]==CORRUPT -> observe(w,e) }
	:: true
	fi;
	atomic { e=0; w=0; goto idle }
}
#else
#define ROTS(u)
#define SOUND(u) (true)
#endif
