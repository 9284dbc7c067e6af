/* Which failures may still happen: the promise of docs/protocol.md holds as long as the chain of
 * the newest epoch keeps to ASSUME at every instant, so anything else is not explored. */

/* a corrupt copy is a failure of its unit, too; a unit that stopped cleanly is none */
#define HEALTHY(u)  (IN_NEWEST(u) && IS_INTACT(u,newest) && word[u]!=CORRUPT)
#define MISSING(u)  (IN_NEWEST(u) && (phase[u]==LOST || word[u]==CORRUPT))
#define LEFT(u)     (IN_NEWEST(u) && phase[u]!=LOST)

#if ASSUME==INTACT
#define MAY_RESTART(u) (!IN_NEWEST(u) || OTHER_UNIT(u,HEALTHY))
#define MAY_VANISH(u)  (!IN_NEWEST(u) || OTHER_UNIT(u,HEALTHY))
#elif ASSUME==POWER
#define MAY_RESTART(u) (true)
#define MAY_VANISH(u)  (!IN_NEWEST(u))
#elif ASSUME==EITHER
#define MAY_RESTART(u) (!IN_NEWEST(u) || OTHER_UNIT(u,HEALTHY) || !SOME_UNIT(MISSING))
#define MAY_VANISH(u)  (!IN_NEWEST(u) || OTHER_UNIT(u,HEALTHY))
#else
#define MAY_RESTART(u) (true)
#define MAY_VANISH(u)  (!IN_NEWEST(u) || OTHER_UNIT(u,LEFT))
#endif

/* the same for the chain of epoch n, which is about to become ACTIVE */
#define HEALTHY_N(u) ((members[n] & BIT(u)) && prepared[u]==n)
#define MISSING_N(u) ((members[n] & BIT(u)) && phase[u]==LOST)
#define LEFT_N(u)    ((members[n] & BIT(u)) && phase[u]!=LOST)
#if ASSUME==INTACT
#define MAY_ACTIVATE SOME_UNIT(HEALTHY_N)
#elif ASSUME==POWER
#define MAY_ACTIVATE (!SOME_UNIT(MISSING_N))
#elif ASSUME==EITHER
#define MAY_ACTIVATE (SOME_UNIT(HEALTHY_N) || !SOME_UNIT(MISSING_N))
#else
#define MAY_ACTIVATE SOME_UNIT(LEFT_N)
#endif
