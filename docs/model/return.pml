/* A unit that left its chain comes back. One address, a chain of two: B, the head, has left A, and
 * may return behind it. Its store may go back while it is away. It keeps what it has if its store is
 * whole, instead of being wiped and copied, and A, whose copy may be damaged, is repaired from it.
 *
 * It begins in epoch 0 with the entry V: acknowledged, so durable at both; or at B alone, and not
 * acknowledged; or trimmed at the head alone. Seals, the verdict and R24 are those of position.pml:
 * an attempt is sealed, reconciled and then ACTIVE or ABORTED, and a restart of B in between ends it.
 *
 * Rules to switch off:
 *   NO_RETURN_NOTE     a store with any note is whole
 *   NO_RETURN_EXACT    one with a note later than that of the epoch that it left is
 *   NO_RETURN_SETTLED  what no other member had as B left is kept, and repaired from, as well
 *   NO_RETURN_TRIMS    trims since B left are not told
 *   NO_RETURN_FITS     B keeps a trim that A does not show
 *   NO_RETURN_VERIFIED B is wiped, to join another chain, before A's copy was verified
 *   NO_LEFT_TRIMS      A is repaired from B, whatever it has trimmed since
 *   NO_LEFT_SETTLED    A is repaired from B with what was not settled as B left
 * REACH asks whether B can return, serve alone what it kept, and be read.
 */
#ifndef EPOCHS
#define EPOCHS 5
#endif
#define EMPTY   0
#define V       1  /* the entry of epoch 0 */
#define W       2  /* one that is written after B left, where A had nothing */
#define TRIMMED 3
#define BAD     4  /* a copy that does not verify */

#define LEFT   0
#define BEHIND 1   /* B is a member, and lacks the address */
#define FULL   2   /* B has it, and is the tail */

byte a, b;              /* what A and B hold at the address */
byte note;              /* B's note (R22): the epoch for which it was reconciled last */
bit kept;               /* B noted that it kept what it has */
byte oldB, oldNote;     /* a copy of B's store */
bit oldKept, copied, wentBack;
byte epoch, serving;    /* highest attempt, and the newest ACTIVE one */
byte place;             /* LEFT, BEHIND or FULL */
byte base;              /* the last epoch in which B was a member */
bit settled;            /* A had the entry durably as B left */
bit sealed, reconciled, keeps, other;
byte owed;              /* what was acknowledged: V, W; EMPTY: nothing */
bit trimNoted;          /* A keeps in mind that it trimmed the address */
bit seenTrimmed, lostA, damaged, returned;

#ifdef NO_RETURN_NOTE
#define WHOLE (true)
#elif defined(NO_RETURN_EXACT)
#define WHOLE (note>=base)
#else
#define WHOLE (note==base || (note>base && kept))
#endif
#ifdef NO_RETURN_SETTLED
#define SETTLED (true)
#else
#define SETTLED settled
#endif
#ifdef NO_RETURN_FITS
#define FITS (true)
#else
#define FITS (b!=TRIMMED || a==TRIMMED)
#endif
#ifdef NO_RETURN_VERIFIED
#define MAY_WIPE (true)
#else
#define MAY_WIPE (!settled || !WHOLE || a!=BAD)
#endif
#ifdef NO_LEFT_TRIMS
#define LEFT_TRIMS (true)
#else
#define LEFT_TRIMS (!trimNoted)
#endif
#ifdef NO_LEFT_SETTLED
#define LEFT_SETTLED (true)
#else
#define LEFT_SETTLED settled
#endif

#ifdef TRACE
#define SAY(x) printf x;
#else
#define SAY(x)
#endif

/* The tail says what it has. */
inline reads(w) {
	assert(!seenTrimmed || w==TRIMMED || w==BAD);
	assert(owed==EMPTY || w==owed || w==TRIMMED || w==BAD);
#ifdef REACH
	assert(!(lostA && returned && w==V));
#endif
	if :: w==TRIMMED -> seenTrimmed=1 :: else fi
}

inline ends() { sealed=0; reconciled=0; keeps=0; other=0 }

init {
	if
	:: a=V; b=V; owed=V
	:: a=EMPTY; b=V
	:: a=V; b=TRIMMED; owed=V
	fi;
	place=LEFT; epoch=1; serving=1; base=0; note=0;
	settled=(a!=EMPTY);
	do
	/* an append where A had nothing: its position is handed out once more */
	:: atomic { place==LEFT && a==EMPTY && !damaged && !sealed -> SAY(("@ W is appended and acknowledged\n")) a=W; owed=W }
	/* a trim */
	:: atomic { place==LEFT && (a==V || a==W) && !sealed -> SAY(("@ A trims it\n")) a=TRIMMED; trimNoted=1 }
	/* readers ask the tail */
	:: atomic { place!=FULL && !lostA -> SAY(("@ A is read: %d\n",a)) reads(a) }
	:: atomic { place==FULL -> SAY(("@ B is read: %d\n",b)) reads(b) }
	/* B's store is copied, and goes back, while B is away */
	:: atomic { !copied -> SAY(("@ a copy of B's store is made\n")) copied=1; oldB=b; oldNote=note; oldKept=kept }
	:: atomic { copied && !wentBack && place==LEFT -> SAY(("@ B's store goes back\n"))
		wentBack=1; b=oldB; note=oldNote; kept=oldKept; ends() }
	/* A's copy is damaged, once; a copy of it is still due from B */
	:: atomic { !damaged && !lostA && (a==V || a==W || a==TRIMMED) -> SAY(("@ A's copy is damaged\n")) damaged=1; a=BAD }
	:: atomic { a==BAD && place==LEFT && WHOLE && LEFT_SETTLED && LEFT_TRIMS && (b==V || b==W) ->
		SAY(("@ A is repaired from B\n")) a=b }
	:: atomic { a==BAD && place==FULL && (b==V || b==W || b==TRIMMED) -> SAY(("@ A is repaired from B, a member\n")) a=b }
	/* an attempt to let B join its chain again, or another one */
	:: atomic { place==LEFT && !sealed && epoch<EPOCHS ->
		epoch++; sealed=1; other=0; keeps=(WHOLE && SETTLED && FITS);
		SAY(("@ epoch %d: B is sealed; keeps: %d\n",epoch,keeps)) }
	:: atomic { place==LEFT && !sealed && epoch<EPOCHS && MAY_WIPE ->
		epoch++; sealed=1; other=1; keeps=0; SAY(("@ epoch %d: B is sealed for another chain\n",epoch)) }
	:: atomic { sealed && !reconciled && (keeps || MAY_WIPE) ->
		if
		:: keeps -> kept=1;
#ifndef NO_RETURN_TRIMS
			if :: trimNoted -> b=TRIMMED :: else fi
#endif
		:: else ->
			assert(wentBack || !settled || a!=BAD || b!=owed || owed==EMPTY); /* the only copy is not wiped */
			b=EMPTY; kept=0
		fi;
		note=epoch; reconciled=1; SAY(("@ epoch %d: B is reconciled, holds %d\n",epoch,b)) }
	:: atomic { sealed -> SAY(("@ epoch %d is aborted\n",epoch)) ends() }
	:: atomic { reconciled && !other -> SAY(("@ epoch %d is ACTIVE\n",epoch))
		serving=epoch; place=(keeps -> FULL : BEHIND); returned=keeps; ends() }
	/* in another chain it has another life */
	:: atomic { reconciled && other -> break }
	/* the copy, and the epoch in which it counts */
	:: atomic { place==BEHIND && epoch<EPOCHS && a!=BAD -> SAY(("@ B is copied, and joins: %d\n",a))
		epoch++; serving=epoch; note=epoch; b=a; place=FULL }
	/* B leaves again */
	:: atomic { place!=LEFT && !lostA && epoch<EPOCHS -> SAY(("@ B leaves\n"))
		base=serving; settled=(place==FULL && a!=EMPTY && a!=BAD); epoch++; serving=epoch; place=LEFT }
	/* A is lost for good: B is a member that has everything */
	:: atomic { place==FULL && !lostA -> SAY(("@ A is lost\n")) lostA=1; a=EMPTY }
	:: atomic { lostA -> break }
	od
}
