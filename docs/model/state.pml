/* The state that processes share, and the words to talk about it. */

/* What an index word holds. Epoch and generation of EMPTY are not in the word here:
 * that a CAS of another epoch fails by value is "open in epoch e", below. */
#define EMPTY   0
#define X       1   /* the entry of writer X */
#define Y       2   /* the entry of writer Y */
#define JUNK    3
#define TRIMMED 4
#define CORRUPT 5
#define NONE    7   /* no epoch, no unit, no value */

/* Phases of a unit */
#define OPEN    0   /* serves clients in the epoch that it promised */
#define SEALED  1   /* serves only the reconfigurer of the epoch that it promised */
#define CLOSED  2   /* restarted: accepts seal(n) with n above its promise, nothing else */
#define LOST    3   /* for good */

/* ---- units ---- */
byte word[UNITS];
bit  durable[UNITS];     /* the word (and its page) is on flash */
byte phase[UNITS];
byte promise[UNITS];     /* R14: survives a restart */
byte served[UNITS];      /* volatile: intact since this epoch was opened, or NONE */
byte prepared[UNITS];    /* volatile: reconciled for this epoch, not opened yet, or NONE */

/* ---- layout store: write-once for each epoch ---- */
#define UNDECIDED 0
#define ACTIVE    1
#define ABORTED   2
byte owner[EPOCHS+1];        /* 0: no layout record yet */
byte verdict[EPOCHS+1];
byte member[(EPOCHS+1)*CHAIN];  /* the chain, head first */
byte length[EPOCHS+1];
byte members[EPOCHS+1];      /* the same as a set of bits */
byte base[EPOCHS+1];         /* latest ACTIVE below; NONE until somebody picks the epoch.
                              * All between are ABORTED then, so it is the same for all who pick it */

/* ---- what clients have been told ---- */
byte newest;             /* highest ACTIVE epoch */
byte failures;           /* so far */
byte seen;               /* first entry (value or junk) that a read returned */
byte acked;              /* entry that was acknowledged */
bit  gone[3];            /* append(v) was reported lost */
byte trimSeen;           /* 1 + the first epoch in which a read answered "trimmed", or a trim was
                          * acknowledged; 0: none */

/* ---- CASes at the head whose completion was lost: they may land at any time ---- */
byte late[3];            /* epoch of the CAS + 1; 0: none */

#ifdef TRACE
#define SAY(args) printf args ;
#else
#define SAY(args)
#endif

#define BIT(u)       (1<<(u))
#define UNIT(e,i)    member[(e)*CHAIN+(i)]
#define HEAD(e)      UNIT(e,0)
#define TAIL(e)      UNIT(e,length[e]-1)
/* An operation of epoch e reaches unit u. A paused unit that a newer epoch has left
 * behind is still open in its own. */
#define SERVES(u,e)  (phase[u]==OPEN && promise[u]==(e))
#define HEAD_UP(e)   (verdict[e]==ACTIVE && SERVES(HEAD(e),e))
#define TAIL_UP(e)   (verdict[e]==ACTIVE && SERVES(TAIL(e),e))
/* R16; a unit that was reconciled for e and only missed the order to open counts */
#define IS_INTACT(u,e) (served[u]==(e) || prepared[u]==(e))
#define IN_NEWEST(u) ((members[newest] & BIT(u))!=0)

/* One more branch of a do or if for each epoch, for each unit */
#if EPOCHS==0
#define EACH_EPOCH(M) M(0)
#elif EPOCHS==1
#define EACH_EPOCH(M) M(0) M(1)
#elif EPOCHS==2
#define EACH_EPOCH(M) M(0) M(1) M(2)
#else
#define EACH_EPOCH(M) M(0) M(1) M(2) M(3)
#endif
#if UNITS==2
#define EACH_UNIT(M)     M(0) M(1)
#define SOME_UNIT(P)     (P(0)||P(1))
#define OTHER_UNIT(u,P)  (((u)!=0 && P(0))||((u)!=1 && P(1)))
#else
#define EACH_UNIT(M)     M(0) M(1) M(2)
#define SOME_UNIT(P)     (P(0)||P(1)||P(2))
#define OTHER_UNIT(u,P)  (((u)!=0 && P(0))||((u)!=1 && P(1))||((u)!=2 && P(2)))
#endif

/* Late CASes at unit u come to nothing: it was sealed or is gone, and the connection died with the
 * registration at the latest (R15); or the word is not EMPTY any more, and will not be in this epoch. */
inline dropLate(u) {
	if :: late[X]!=0 && HEAD(late[X]-1)==u -> late[X]=0 :: else fi;
	if :: late[Y]!=0 && HEAD(late[Y]-1)==u -> late[Y]=0 :: else fi
}

/* ---- one-sided compare-and-swap EMPTY -> v at unit u; now is what stands there after ---- */
inline cas(u, v, now) {
	if
	:: word[u]==EMPTY -> word[u]=v; durable[u]=0; now=v; dropLate(u)
	:: else -> now=word[u]
	fi
}

/* ---- alarms: what the code stops at, if a rule was broken ---- */
#ifdef NO_MISMATCH
#define ALARM(ok)
#else
#define ALARM(ok) assert(ok);
#endif

inline sawTrim(e) {
	if :: trimSeen==0 || (e)+1<trimSeen -> trimSeen=(e)+1 :: else fi
}

/* ---- S1 to S5: a read in epoch e returns w to an application ---- */
inline observe(w, e) {
	SAY(("@ READ returns %d\n", w))
	if
	:: w==TRIMMED -> sawTrim(e)
	:: else ->
		assert(trimSeen==0 || (e)+1<trimSeen); /* S5: trimmed stays trimmed */
		assert(seen==EMPTY || seen==w);        /* S1: what was read stays */
		assert(acked==EMPTY || acked==w);      /* S2: what was acknowledged stays */
		assert(w==JUNK || !gone[w]);           /* S4: "lost" is final */
		seen=w
	fi
}

/* ---- the same, when an epoch becomes ACTIVE with w at the position ---- */
inline survives(w, below) {
	assert(seen==EMPTY  || w==seen  || w==TRIMMED);   /* S1 */
	assert(acked==EMPTY || w==acked || w==TRIMMED);   /* S2 */
	assert(!trimSeen || w==TRIMMED || below)          /* S5 */
}

/* append(v) tells its application "lost" */
inline sayLost(v) {
	SAY(("@ append %d: LOST\n", v))
	gone[v]=1;
	assert(seen!=v && acked!=v)                       /* S4 */
}
