/* One position of the log, from its token to the reader, over units that fail and epochs
 * that follow each other. Positions do not touch each other in these rules: a seal is
 * for a unit, not for a position. What goes across positions is in sequencer.pml; where
 * the pages are, in payload.pml. Start with README.md. */
#include "options.pml"
#include "state.pml"
#include "failures.pml"
#include "goals.pml"
#include "copy.pml"
#include "trim.pml"
#include "stop.pml"
#include "read.pml"
#include "repair.pml"
#include "units.pml"
#include "append.pml"
#include "fill.pml"
#include "reconfigure.pml"

init {
	byte u, e;
	atomic {
		do
		:: u<UNITS ->
			prepared[u]=NONE; served[u]=NONE; phase[u]=SEALED;
			if :: u<CHAIN -> phase[u]=OPEN; served[u]=0; UNIT(0,u)=u :: else fi;
			u++
		:: else -> break
		od;
		do
		:: e<=EPOCHS -> base[e]=NONE; e++
		:: else -> break
		od;
#if defined(STOP) && defined(NO_STOP_ERASED) && defined(NO_STOP_EPOCH)
		u=0;
		do	/* all had stopped cleanly before epoch 0, and kept the mark */
		:: u<CHAIN -> mark[u]=1; u++
		:: else -> break
		od;
#endif
#if defined(COPY) && defined(NO_COPY_SETTLED)
		word[0]=X; durable[0]=1;
#elif defined(SETTLED)
		u=0;
		do
		:: u<CHAIN -> word[u]=X; durable[u]=1; u++
		:: else -> break
		od;
		acked=X;
		if :: true :: word[0]=TRIMMED fi;
#endif
		u=0; e=0;
		verdict[0]=ACTIVE; owner[0]=NONE; length[0]=CHAIN; members[0]=(1<<CHAIN)-1;
		run environment();
#if WRITERS>0
		run append(X);
#endif
#if WRITERS>1
		run append(Y);
#endif
#if FILL
		run fill();
#endif
#if EPOCHS>0 && RIVALS
		run reconfigure(1,1,1);
#if EPOCHS>1
		run reconfigure(2,2,1);
#endif
#elif EPOCHS>0
		run reconfigure(1,EPOCHS,1);
#endif
#ifdef TWICE
		run reconfigure(1,EPOCHS,2);
#endif
#if READ==READ_ALL || READ==READ_ANY_TAIL || READ==READ_OTHER
		run reader();
#endif
#ifdef UNWRITTEN
		run unwritten();
#endif
#if TRIM
		run trim();
#endif
#ifdef COPY
		run copier();
#endif
#ifdef REPAIR
		run repair();
		run readElsewhere();
#endif
	}
}
