/* Stores that lost their past (PAST), rules R21 to R27. Four failures:
 *
 *   F1  the store of a unit is empty, with another id: a volume that is not mounted, a new drive
 *   F2  the store of a unit goes back to an earlier state, its own or that of another unit, with
 *       the id of then: a restored directory, a snapshot, a cloned machine, swapped drives
 *   F3  the layout store goes back to an earlier state
 *   F4  the layout store goes back to nothing, and the log is founded over units that hold one
 *
 * What must hold beside S1 to S7: an epoch that becomes ACTIVE without an operator's word has all
 * that was acknowledged or read (ASSUME=ANYTHING); and
 *
 *   S8  no store that never went back is refused, as stranger or as stale
 *   S9  the log stops for "the layout store went back" only if it did
 *   W   no store is wiped that holds what was acknowledged or read, unless another store holds it
 *       durably or the unit is sent the same
 *
 * Size
 *   BACKS      how often stores of units go back, in all
 *   EMPTIES    1: a store may be empty (F1)
 *   SAVES      how often the durable state of a unit is put aside, at any time; its store may go
 *              back to that (F2)
 *   OLD        1: a state of one unit from before epoch 0 is at hand from the beginning (F2)
 *   CLONES     1: a store may also go back to what was put aside of another unit
 *   LBACKS     how often the layout store goes back, to epoch 0 (F3)
 *   FOUNDS     1: it goes back to nothing, and the log is founded anew (F4)
 *   RECORD     1: it goes back to after a record was written, and before its verdict
 *   STRAYS     1: a seal that was sent twice arrives once more, at any time
 *   ACCEPT     1: an operator says --accept-loss, once
 *   WINDOW     1: a store may also go back to a state that was put aside after its last note (R23)
 *   UNHEARD    of which members of the newest epoch the layout store must hear before it decides,
 *              once it went back. 0: any member whose store did not go back; 1: none; 2: the head;
 *              3: the tail; 4: head and tail. 5: of all members of the epoch that it takes for active
 *   ALL_HEARD  all members of the base are sealed, whatever R16 asks for
 *   NO_S1      only what was acknowledged has to stay, not what was read before it was acknowledged
 *
 * Rules to switch off
 *   PAST_NONE        no R21 and R22: R16 and R17 believe every store
 *   PAST_PROMISE     in place of R21 and R22 a member whose promise is below the base is a stranger
 *   NO_R21_ID        the layout record names no store ids
 *   R21_ID_LATE      the record names the store that the unit has when the record is written, not
 *                    the one that was sealed
 *   NO_R22           a member need not have noted that it was reconciled for the base, or later
 *   R22_EXACT        the note must name the base; a later epoch does not count
 *   R22_OPENED       the note is made when the unit opens the epoch, not when it is reconciled
 *   NO_R23           the layout store notes nothing, so that all of an epoch is in the window
 *   R23_NOT_COMPARED what the layout store noted of a member is not compared
 *   NO_R23_TRIMS     only entries are noted, not trims (as a watermark would)
 *   R23_ALWAYS       what was noted is compared also if the unit has been reconciled again since
 *   NO_R24           reconciling does not name the start of the unit that was sealed
 *   NO_R25           what units know to be ACTIVE is not compared with the layout store
 *   R25_PROMISE      a promise above the newest epoch of the layout store is taken for a proof
 *   R25_VERDICT      only an epoch that is known to have been ACTIVE is a proof; having been
 *                    reconciled for an epoch of which the layout store has no record is none
 *   R25_ATTEMPTS     the layout store writes down which epoch it attempts before it seals for it; a promise above all
 *                    that were attempted is a proof as well
 *   R25_OPENED       a unit knows an epoch to be ACTIVE once it opens it, and not when a seal names
 *                    it as base
 *   NO_R26           founding wipes whatever is there
 *   R26_SOME         founding waits for one of the listed units, not for all
 *   NO_R27           what was given up by --accept-loss is wiped like anything else
 */
#ifdef PAST
#ifndef BACKS
#define BACKS 1
#endif
#ifndef EMPTIES
#define EMPTIES 0
#endif
#ifndef SAVES
#define SAVES 0
#endif
#ifndef OLD
#define OLD 0
#endif
#ifndef CLONES
#define CLONES 0
#endif
#ifndef LBACKS
#define LBACKS 0
#endif
#ifndef FOUNDS
#define FOUNDS 0
#endif
#ifndef STRAYS
#define STRAYS 0
#endif
#ifndef ACCEPT
#define ACCEPT 0
#endif
#ifndef WINDOW
#define WINDOW 0
#endif
#ifndef RECORD
#define RECORD 0
#endif
#ifndef UNHEARD
#define UNHEARD 0
#endif

/* ---- durable at the unit, beside word and promise ---- */
byte id[UNITS];          /* R21: of the store; another one when it is formatted */
byte reconciled[UNITS];  /* R22, the note: 1 + the epoch for which it was reconciled last; 0: none.
                          * Written when all of that epoch is durable, and before it is confirmed */
byte known[UNITS];       /* R25: 1 + the highest epoch that it knows to have been ACTIVE: it was
                          * told to open it, or a seal named it as base */
bit  behind0[UNITS];     /* its promise is below epoch 0 (PAST_PROMISE) */
/* ---- volatile at the unit ---- */
byte sealer[UNITS];      /* R24: the attempt that sealed this start of the unit, or NONE */
/* ---- layout store ---- */
byte storeId[(EPOCHS+1)*UNITS];   /* R21, in the record: the stores that were sealed */
byte notedFor[UNITS];    /* R23: what it heard last of the unit: its note (as in reconciled) ... */
byte notedRank[UNITS];   /* ... and what was durable there: 1 an entry, 2 a trim */
bit  forgot[EPOCHS+1];   /* it went back and forgot this epoch. Clients and units have not */
bit  lossy[EPOCHS+1];    /* R27, in the record: an operator gave something up */
/* ---- what was put aside ---- */
byte saved=NONE;         /* of this unit */
byte savedWord, savedId, savedReconciled, savedKnown, savedPromise, savedMark;
bit  savedBehind;
/* ---- so far ---- */
byte backs, saves, lbacks;
bit  went[UNITS];        /* its store went back, ever */
byte precious;           /* what was acknowledged or read when an operator gave it up */
#ifdef REACH
byte fell;               /* units that restarted */
bit  fellBetween;        /* a unit restarted between its confirmation and the verdict */
#define PAST_FELL(u) fell=fell|BIT(u); \
	if :: prepared[u]!=NONE && verdict[prepared[u]]==UNDECIDED -> fellBetween=1 :: else fi;
#else
#define PAST_FELL(u)
#endif

#define RANK(u)      ((word[u]==EMPTY || !durable[u]) -> 0 : ((word[u]==TRIMMED) -> 2 : 1))
#define SAVED_RANK   ((savedWord==EMPTY) -> 0 : ((savedWord==TRIMMED) -> 2 : 1))
#define STORE_ID(e,u) storeId[(e)*UNITS+(u)]
#define BLANK(u)     (word[u]==EMPTY && reconciled[u]==0 && known[u]==0)

/* ---- R21, R22: the store of u was a member of epoch b, and has not gone back behind that ---- */
#ifdef NO_R21_ID
#define SAME_STORE(u,b) (true)
#else
#define SAME_STORE(u,b) (id[u]==STORE_ID(b,u))
#endif
#ifdef NO_R22
#define WAS_RECONCILED(u,b) (true)
#elif defined(R22_EXACT)
#define WAS_RECONCILED(u,b) (reconciled[u]==(b)+1)
#elif defined(R22_OPENED)
#define WAS_RECONCILED(u,b) (known[u]>(b))
#else
#define WAS_RECONCILED(u,b) (reconciled[u]>(b))
#endif
#ifdef PAST_NONE
#define IS_MEMBER(u,b) (true)
#elif defined(PAST_PROMISE)
#define IS_MEMBER(u,b) (!behind0[u])
#else
#define IS_MEMBER(u,b) (SAME_STORE(u,b) && WAS_RECONCILED(u,b))
#endif
/* ---- R23: it was a member, and has less than the layout store noted ---- */
#if defined(NO_R23) || defined(R23_NOT_COMPARED) || defined(PAST_NONE) || defined(PAST_PROMISE)
#define IS_BEHIND(u,b) (false)
#elif defined(R23_ALWAYS)
#define IS_BEHIND(u,b) (RANK(u)<notedRank[u])
#else
#define IS_BEHIND(u,b) (notedFor[u]==reconciled[u] && RANK(u)<notedRank[u])
#endif

/* In an attempt, strangers are no members of the base (R21, R22). Stale units are, but count for
 * nothing in R16 (R23). */
#define TRUSTED(u) (((strangers | stale) & BIT(u))==0)
#define NO_STRANGER(u) ((strangers & BIT(u))==0)
inline judge_(u) {
	if
	:: (members[base[n]] & BIT(u)) && !founding ->
		if
		:: !IS_MEMBER(u,base[n]) -> strangers = strangers | BIT(u);
			assert(went[u])   /* S8 */
		:: IS_MEMBER(u,base[n]) && IS_BEHIND(u,base[n]) -> stale = stale | BIT(u);
			assert(went[u])   /* S8 */
		:: else
		fi;
		SAY(("@ epoch %d: unit %d: store %d, reconciled %d, known %d; stranger %d, stale %d\n",
			n,u,id[u],reconciled[u],known[u],(strangers>>u)&1,(stale>>u)&1))
	:: else
	fi;
#ifndef R21_ID_LATE
	STORE_ID(n,u)=id[u];
#endif
	sealer[u]=n
}
#ifdef R21_ID_LATE
#define PAST_RECORD(u) STORE_ID(n,u)=id[u];
#else
#define PAST_RECORD(u)
#endif

#define PAST_SEALED(u,n) behind0[u]=0; sealer[u]=NONE; \
	PAST_KNOW(u,n)
#ifdef R25_OPENED
#define PAST_KNOW(u,n)
#else
#define PAST_KNOW(u,n) if :: !founded && base[n]+1>known[u] -> known[u]=base[n]+1 :: else fi;
#endif
#define PAST_OPENED(u) known[u]=promise[u]+1;
#define PAST_RESTARTS(u) PAST_FELL(u) sealer[u]=NONE;
#ifdef NO_R24
#define SEALED_SO(u) (true)
#else
#define SEALED_SO(u) (sealer[u]==n)
#endif

/* ---- R25: the layout store writes down which epoch it attempts before anybody is asked to promise it ---- */
#ifdef R25_ATTEMPTS
byte attempted;
/* What was attempted before is compared: a leader hears the members, and then begins. */
#define ATTEMPTS(n) before=attempted; if :: attempted<(n) -> attempted=(n) :: else fi;
#define ATTEMPTS_VAR byte before;
/* Another one has begun a later epoch since: who is overtaken leads no more, and whatever it finds stops nobody. */
#define OVERTAKEN (attempted>n)
#define ATTEMPTS_END before=0;
#define FORGETS_ATTEMPTS(b) attempted=(b);
#define UNATTEMPTED(u) (promise[u]>before && promise[u]!=n)
#else
#define ATTEMPTS_VAR
#define OVERTAKEN (false)
#define ATTEMPTS_END
#define ATTEMPTS(n)
#define FORGETS_ATTEMPTS(b)
#define UNATTEMPTED(u) (false)
#endif
/* ---- R25: a unit that is heard proves that the layout store went back ---- */
bit founded;             /* FOUNDS: the layout store went back to nothing */
#ifdef NO_R25
#define PROOF(u) (false)
#elif defined(R25_PROMISE)
#define PROOF(u) (promise[u]>base[n] && promise[u]!=n)
#else
#define KNOWS(u) (known[u]!=0 && forgot[known[u]-1])
#ifdef R25_VERDICT
#define PROOF(u) KNOWS(u)
#else
#define PROOF(u) \
	(KNOWS(u) || UNATTEMPTED(u) || \
	(reconciled[u]!=0 && forgot[reconciled[u]-1] && !keptRecord[reconciled[u]-1]))
#endif
#endif
bit keptRecord[EPOCHS+1];   /* RECORD: the layout store kept the record, not the verdict */
#if UNHEARD==1
#define HEARD (true)
#elif UNHEARD==2
#define HEARD (founding || !forgot[newest] || (sealed & BIT(HEAD(newest)) && !went[HEAD(newest)]))
#elif UNHEARD==3
#define HEARD (founding || !forgot[newest] || (sealed & BIT(TAIL(newest)) && !went[TAIL(newest)]))
#elif UNHEARD==4
#define HEARD (founding || !forgot[newest] || \
	(sealed & BIT(TAIL(newest)) && !went[TAIL(newest)] && \
	sealed & BIT(HEAD(newest)) && !went[HEAD(newest)]))
#elif UNHEARD==5
#define HEARD (founding || !lbacks || (sealed & members[base[n]])==members[base[n]])
#else
#define HEARD_TRUE(u) ((sealed & members[newest] & BIT(u)) && !went[u])
#define HEARD (founding || !forgot[newest] || SOME_UNIT(HEARD_TRUE))
#endif
/* ---- R26: founding takes blank units only ---- */
#ifdef NO_R26
#define MAY_FOUND(u) (true)
#else
#define MAY_FOUND(u) (!founding || BLANK(u))
#endif
/* ---- R27: no epoch since the store was a member gave anything up ---- */
#ifdef NO_R27
#define MAY_WIPE(u) (true)
#else
#define MAY_WIPE(u) (BLANK(u) || !lossSince(u))
#endif
#if EPOCHS==1
#define lossSince(u) ((lossy[1] && reconciled[u]<2))
#elif EPOCHS==2
#define lossSince(u) ((lossy[1] && reconciled[u]<2) || (lossy[2] && reconciled[u]<3))
#else
#define lossSince(u) \
	((lossy[1] && reconciled[u]<2) || (lossy[2] && reconciled[u]<3) || (lossy[3] && reconciled[u]<4))
#endif
/* ---- W ---- */
#define HOLDS_IT(x) (word[x]==lost && durable[x])
inline wipes(u) {
	byte lost;
	lost = (durable[u] -> word[u] : EMPTY);
	SAY(("@ epoch %d: unit %d is wiped: it had %d\n",n,u,lost))
	assert(lost==EMPTY || (lost!=acked && lost!=seen && lost!=precious) || value==lost ||
		value==TRIMMED || OTHER_UNIT(u,HOLDS_IT));
	lost=0
}

/* ---- stores of units go back ---- */
byte hadId, hadRank;     /* of the store in whose place an empty one came, for LACKS_UNNOTED */
#ifdef NO_R23_TRIMS
bit lookedAt[UNITS];     /* the trim was there when the layout store looked */
#define LOOKED(u) || (lookedAt[u] && notedFor[u]==savedReconciled)
#else
#define LOOKED(u)
#endif
#define HAD(u) ((savedId==id[u]) -> RANK(u) : ((savedId==hadId) -> hadRank : 0))
/* What was put aside lacks something durable that the layout store has not noted, and shows the
 * note of the base: the window of R23, which WINDOW=0 leaves out. (It leaves out a little more.) */
#define LACKS_UNNOTED(u) (SAVED_RANK<HAD(u) && \
	!((notedFor[u]==savedReconciled && SAVED_RANK<notedRank[u]) LOOKED(u)) && \
	savedReconciled>newest && savedId==STORE_ID(newest,u))
inline wentBack(u) {
	backs++; went[u]=1; durable[u]=(word[u]!=EMPTY); served[u]=STOP_MARKED(u);
	prepared[u]=NONE; sealer[u]=NONE; phase[u]=CLOSED;
	STOP_OVER(u)
	dropLate(u)
}
#ifdef STOP
#define SAVE_MARK(u) savedMark=mark[u];
#define LOAD_MARK(u) mark[u]=savedMark; savedMark=0;
#define NO_MARK(u) mark[u]=0;
#else
#define SAVE_MARK(u)
#define LOAD_MARK(u)
#define NO_MARK(u)
#endif
#if EMPTIES
#define PAST_EMPTY(u) \
	:: atomic { backs<BACKS && phase[u]!=LOST && !BLANK(u) -> \
		SAY(("@ unit %d: its store is EMPTY: word was %d, durable %d\n",u,word[u],durable[u])) \
		hadId=id[u]; hadRank=RANK(u); word[u]=EMPTY; promise[u]=0; id[u]=id[u]+UNITS; \
		reconciled[u]=0; known[u]=0; behind0[u]=1; NO_MARK(u) \
		wentBack(u) }
#else
#define PAST_EMPTY(u)
#endif
#if SAVES
#define PAST_SAVE(u) \
	:: atomic { saves<SAVES && saved==NONE && backs<BACKS && phase[u]!=LOST && reconciled[u]!=0 -> \
		saves++; saved=u; savedWord=(durable[u] -> word[u] : EMPTY); savedId=id[u]; \
		savedReconciled=reconciled[u]; savedKnown=known[u]; \
		savedPromise=promise[u]; savedBehind=behind0[u]; SAVE_MARK(u) \
		SAY(("@ unit %d: its store is put aside: %d, reconciled %d, promise %d\n", \
			u,savedWord,savedReconciled,savedPromise)) }
#else
#define PAST_SAVE(u)
#endif
#if SAVES || OLD
#define PAST_BACK(u) \
	:: atomic { (saved==u || (CLONES && saved!=NONE)) && backs<BACKS && phase[u]!=LOST && \
		(WINDOW || !LACKS_UNNOTED(u)) -> \
		SAY(("@ unit %d: its store GOES BACK: from %d (durable %d) to %d, reconciled %d, promise %d\n", \
			u,word[u],durable[u],savedWord,savedReconciled,savedPromise)) \
		word[u]=savedWord; promise[u]=savedPromise; id[u]=savedId; \
		reconciled[u]=savedReconciled; known[u]=savedKnown; behind0[u]=savedBehind; LOAD_MARK(u) \
		saved=NONE; savedWord=0; savedId=0; savedReconciled=0; savedKnown=0; savedPromise=0; \
		savedBehind=0; \
		wentBack(u) }
#else
#define PAST_BACK(u)
#endif
/* R23: the layout store notes what a member has while an epoch is ACTIVE; here at any time */
#ifdef NO_R23_TRIMS
#define NOTED(u) if :: word[u]==TRIMMED -> lookedAt[u]=1; notedRank[u]=1 \
	:: else -> notedRank[u]=RANK(u) fi
#define NEWS_TO_NOTE(u) (word[u]==TRIMMED && !lookedAt[u])
#else
#define NOTED(u) notedRank[u]=RANK(u)
#define NEWS_TO_NOTE(u) (notedRank[u]<RANK(u))
#endif
#if SAVES && !defined(NO_R23)
#define PAST_NOTE(u) \
	:: atomic { saved==u && phase[u]==OPEN && RANK(u)>0 && \
		(notedFor[u]!=reconciled[u] || NEWS_TO_NOTE(u)) -> \
		SAY(("@ the layout store notes that unit %d has %d\n",u,word[u])) \
		notedFor[u]=reconciled[u]; NOTED(u) }
#else
#define PAST_NOTE(u)
#endif
#if STRAYS
#define STRAY_AGAIN(u,n) \
	:: atomic { base[n]!=NONE && promise[u]<n && phase[u]!=LOST && phase[u]==CLOSED -> \
		SAY(("@ unit %d: a seal of epoch %d arrives that was sent before\n",u,n)) \
		accept(u,n) }
#if EPOCHS==1
#define PAST_STRAY(u) STRAY_AGAIN(u,1)
#else
#define PAST_STRAY(u) STRAY_AGAIN(u,1) STRAY_AGAIN(u,2)
#endif
#else
#define PAST_STRAY(u)
#endif
#define PAST_STEPS(u) PAST_EMPTY(u) PAST_SAVE(u) PAST_BACK(u) PAST_NOTE(u) PAST_STRAY(u)

/* ---- the layout store goes back: an epoch that it forgot it does not decide either ---- */
#if EPOCHS==1
#define FORGET_ABOVE(b) if :: (b)<1 && base[1]!=NONE -> forgot[1]=1 :: else fi;
#elif EPOCHS==2
#define FORGET_ABOVE(b) if :: (b)<1 && base[1]!=NONE -> forgot[1]=1 :: else fi; \
	if :: (b)<2 && base[2]!=NONE -> forgot[2]=1 :: else fi;
#else
#define FORGET_ABOVE(b) if :: (b)<1 && base[1]!=NONE -> forgot[1]=1 :: else fi; \
	if :: (b)<2 && base[2]!=NONE -> forgot[2]=1 :: else fi; \
	if :: (b)<3 && base[3]!=NONE -> forgot[3]=1 :: else fi;
#endif
#if LBACKS && RECORD
#define LAYOUT_BACK \
	:: atomic { lbacks<LBACKS && newest>0 -> lbacks++; forgot[newest]=1; keptRecord[newest]=1; \
		SAY(("@ the LAYOUT STORE goes back: no verdict of epoch %d\n",newest)) \
		FORGETS_ATTEMPTS(newest) FORGET_ABOVE(newest) }
#elif LBACKS && !FOUNDS
#define LAYOUT_BACK \
	:: atomic { lbacks<LBACKS && newest>0 -> lbacks++; \
		SAY(("@ the LAYOUT STORE goes back to epoch 0\n")) \
		FORGETS_ATTEMPTS(0) FORGET_ABOVE(0) } 
#elif LBACKS
#define LAYOUT_BACK \
	:: atomic { lbacks<LBACKS -> lbacks++; founded=1; forgot[0]=1; \
		SAY(("@ the LAYOUT STORE goes back to nothing\n")) \
		FORGETS_ATTEMPTS(0) FORGET_ABOVE(0) }
#else
#define LAYOUT_BACK
#endif
#define REMEMBERS(e) (!forgot[e])
#define STOPS_AT_PROOF(u) \
	:: atomic { !(sealed & BIT(u)) && phase[u]!=LOST && PROOF(u) -> \
		SAY(("@ epoch %d: unit %d PROVES that the layout store went back\n",n,u)) \
		assert(lbacks>0 || OVERTAKEN);   /* S9 */ \
		goto giveUp }
#else
#define TRUSTED(u) (true)
#define NO_STRANGER(u) (true)
#define PAST_SEALED(u,n)
#define PAST_OPENED(u)
#define PAST_RESTARTS(u)
#define PAST_STEPS(u)
#define LAYOUT_BACK
#define SEALED_SO(u) (true)
#define REMEMBERS(e) (true)
#define PROOF(u) (false)
#define MAY_FOUND(u) (true)
#define MAY_WIPE(u) (true)
#define STOPS_AT_PROOF(u)
#define HEARD (true)
#endif
