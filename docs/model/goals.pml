/* Situations that must be reachable, or the model says nothing (REACH=n). */
#ifdef REACH
#if REACH==1    /* the entry of a writer that died is completed and read */
#define GOAL (seen==X)
#elif REACH==2  /* acknowledged and read, through two failures and two epochs */
#define GOAL (acked==X && seen==X && newest==2 && failures==2)
#elif REACH==3  /* a hole is filled after two failures and two epochs */
#define GOAL (seen==JUNK && newest==2 && failures==2)
#elif REACH==4  /* trimmed after it was acknowledged, and read as that in a later epoch */
#define GOAL (acked==X && trimSeen && newest>0 && TAIL_UP(newest) && word[TAIL(newest)]==TRIMMED)
#elif REACH==5  /* two epochs are worked at side by side, with a spare */
#define GOAL (verdict[1]==ABORTED && newest==2 && acked==X && (members[2] & BIT(2)))
#elif REACH==6  /* a corrupt copy is mended and read */
#define GOAL (rots==1 && acked==X && seen==X && newest==1 && word[TAIL(1)]==X && word[HEAD(1)]==X && length[1]==2)
#elif REACH==7  /* all units stopped cleanly, and the log goes on with what it had */
#define GOAL (stops==2 && acked==X && newest==1 && length[1]==2 && TAIL_UP(1) && word[TAIL(1)]==X)
#elif REACH==8  /* unit 2 joined with its copy, and another unit has left */
#define GOAL (copied==X && acked==X && newest>0 && members[newest]==(BIT(1)|BIT(2)) && TAIL_UP(newest) && word[TAIL(newest)]==X)
#elif REACH==9  /* a member whose store was empty has joined again; nothing is lost */
#define GOAL (backs==1 && acked==X && newest>0 && length[newest]==2 && TAIL_UP(newest) && \
	word[TAIL(newest)]==X && HEAD_UP(newest) && word[HEAD(newest)]==X)
#elif REACH==10 /* all units restart, and the log goes on with all of them */
#define GOAL (fell==3 && acked==X && newest==1 && length[1]==2 && TAIL_UP(1) && HEAD_UP(1) && \
	word[TAIL(1)]==X)
#elif REACH==11 /* a unit that restarts between its confirmation and the verdict counts next, alone */
#define GOAL (fellBetween && fell && failures==1 && newest==2 && base[2]==1 && members[1]==3 && \
	members[2]==fell && fell==BIT(TAIL(1)) && acked==X && TAIL_UP(2))
#elif REACH==12 /* the layout store forgot an epoch in which nothing was told to anybody; the log goes on */
#define GOAL (lbacks==1 && forgot[1] && !forgot[2] && newest==2 && base[2]==0 && acked==X && \
	TAIL_UP(2))
#elif REACH==13 /* a tail that restarted, of an attempt that came to nothing, is enough alone */
#define GOAL (fell==BIT(1) && verdict[1]==ABORTED && newest==2 && members[2]==BIT(1) && acked==X && \
	TAIL_UP(2) && reconciled[1]==3)
#elif REACH==14 /* two stores went back, and an operator's word lets the log go on */
#define GOAL (accepts==1 && newest>0 && TAIL_UP(newest))
#endif
#endif
