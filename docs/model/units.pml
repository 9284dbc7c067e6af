/* What happens by itself: units flush, open, restart and vanish; CASes whose completion was lost
 * land; readers of one step read. */

/* Nothing is ever flushed under memory: the weakest unit. (A clean stop is about flushing.) */
#if defined(MEMORY) && !defined(STOP)
#define NEVER_DURABLE
#endif
#if defined(NEVER_DURABLE) || defined(NO_R17_FLUSH)
#define RECONCILED_DURABLE 0
#else
#define RECONCILED_DURABLE 1
#endif

#ifdef NEVER_DURABLE
#define FLUSH(u)
#else
#define FLUSH(u) \
	:: atomic { phase[u]!=LOST && word[u]!=EMPTY && !durable[u] -> durable[u]=1; \
		SAY(("@ unit %d: %d is durable\n",u,word[u])) \
		TRIM_SETTLED(u) }
#endif

/* The unit's side of seal(n) (R14, R15): the base that it names says what "intact" means. */
inline accept(u, n) {
	if
	:: IS_INTACT(u,base[n]) -> served[u]=base[n]
	:: else -> served[u]=NONE
	fi;
	prepared[u]=NONE; promise[u]=n; phase[u]=SEALED; STOP_OVER(u) dropLate(u)
}

/* R18. Anybody may give the order; the unit looks whether it may. */
#ifdef NO_R18_VERDICT
#define ORDERED(u) (prepared[u]==promise[u])
#elif defined(NO_R18_RECONCILED)
#define ORDERED(u) (verdict[promise[u]]==ACTIVE)
#else
#define ORDERED(u) (prepared[u]==promise[u] && verdict[promise[u]]==ACTIVE)
#endif
#define OPENS(u) \
	:: atomic { phase[u]==SEALED && promise[u]>0 && ORDERED(u) -> \
		SAY(("@ unit %d opens epoch %d\n",u,promise[u])) \
		phase[u]=OPEN; served[u]=promise[u]; prepared[u]=NONE; STOP_OVER(u) STOP_ERASE(u) }

/* R19: a unit that restarts keeps what is durable, and its promise (R14). */
#ifdef NO_R19_CLOSED
#define RESTART_PHASE(u) phase[u]
#elif defined(NO_R19_SEALED)
#define RESTART_PHASE(u) SEALED
#else
#define RESTART_PHASE(u) CLOSED
#endif
#ifdef NO_R14
#define RESTART_PROMISE(u) promise[u]=0
#else
#define RESTART_PROMISE(u) skip
#endif
inline restart(u) {
	if :: !durable[u] -> word[u]=EMPTY :: else fi;
	served[u]=STOP_MARKED(u); prepared[u]=NONE; phase[u]=RESTART_PHASE(u); RESTART_PROMISE(u);
	STOP_OVER(u)
	dropLate(u)
}
#define RESTARTS(u) \
	:: atomic { failures<FAILURES && (phase[u]<CLOSED || STOP_CRASH(u)) && MAY_RESTART(u) -> failures++; \
		SAY(("@ unit %d RESTARTS: word %d, durable %d\n",u,word[u],durable[u])) \
		restart(u) }
#define VANISHES(u) \
	:: atomic { failures<FAILURES && phase[u]!=LOST && MAY_VANISH(u) -> failures++; \
		SAY(("@ unit %d is LOST for good: word %d, durable %d\n",u,word[u],durable[u])) \
		word[u]=EMPTY; durable[u]=0; served[u]=NONE; prepared[u]=NONE; phase[u]=LOST; promise[u]=0; STOP_GONE(u) dropLate(u) }

#define LANDS(v) \
	:: atomic { late[v]!=0 && SERVES(HEAD(late[v]-1),late[v]-1) -> \
		if :: word[HEAD(late[v]-1)]==EMPTY -> word[HEAD(late[v]-1)]=v; durable[HEAD(late[v]-1)]=0; \
			SAY(("@ the CAS of append %d lands at unit %d\n",v,HEAD(late[v]-1))) :: else fi; \
		late[v]=0 }

/* A rival that will lose the race for the record of n has sent seals, too. */
#if RIVALS
#define STRAY_SEAL(u,n) \
	:: atomic { base[n]!=NONE && promise[u]<n && phase[u]!=LOST -> \
		SAY(("@ a rival seals unit %d at epoch %d\n",u,n)) \
		accept(u,n) }
#define STRAY(u) STRAY_SEAL(u,1) STRAY_SEAL(u,EPOCHS)
#else
#define STRAY(u)
#endif

proctype environment() {
	do
	EACH_UNIT(FLUSH)
	EACH_UNIT(OPENS)
	EACH_UNIT(STOP_STEPS)
	EACH_UNIT(ROTS)
	EACH_UNIT(STRAY)
#if FAILURES>0
	EACH_UNIT(RESTARTS)
	EACH_UNIT(VANISHES)
#endif
	LANDS(X)
	LANDS(Y)
	EACH_EPOCH(READ_STEP)
#ifdef REACH
	:: (GOAL) -> assert(false)
#endif
	od
}
