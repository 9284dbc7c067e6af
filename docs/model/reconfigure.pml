/* One attempt to make an epoch n ACTIVE (R13 to R18; "Reconfiguration" in protocol.md), and
 * after it, or after giving it up, the next one: epochs first to last.
 *
 * There is a process for each epoch, not for each reconfigurer. Of all who try for an
 * epoch, one owns its record (R13). What the others leave behind is what they did before they
 * lost: epochs below are ABORTED, which the owner did as well, and seals (STRAY in units.pml). So
 * the processes of two epochs side by side stand for any number of competing reconfigurers. */

/* Hooks of past.pml that use the names of an attempt: founding, sealing, the record, wiping, R22. */
#ifdef PAST
#define FOUNDING founding
#define JUDGE(u) judge_(u);
#define SEALS(u) sealer[u]=n
#define RECORDS PAST_RECORDS lossy[n]=given;
#define WIPES(u) wipes(u);
#define NOTES(u) reconciled[u]=n+1;
#define BEGINS ATTEMPTS(n)
#if UNITS==2
#define PAST_RECORDS PAST_RECORD(0) PAST_RECORD(1)
#else
#define PAST_RECORDS PAST_RECORD(0) PAST_RECORD(1) PAST_RECORD(2)
#endif
#else
#define FOUNDING (false)
#define JUDGE(u)
#define SEALS(u) skip
#define RECORDS
#define WIPES(u)
#define NOTES(u)
#define BEGINS
#endif
#ifdef NO_R17_BASE
#define IS_SOURCE(u) (true)
#else
#define IS_SOURCE(u) ((members[base[n]] & BIT(u))!=0 && NO_STRANGER(u) && !FOUNDING)
#endif
#if DECIDE==DECIDE_DURABLE
#define COUNTS(u) (durable[u])
#else
#define COUNTS(u) (true)
#endif

/* What unit u shows counts in, by R17: value is what wins so far; have are the units that showed it. */
inline count(u) {
	if
	:: IS_SOURCE(u) ->
		trimmedBelow = trimmedBelow | TRIMMED_BELOW(u);
#ifdef COPY
		if :: TELLS(u,n) -> told=1 :: else fi;
#endif
		if :: (members[base[n]] & BIT(u)) && IS_INTACT(u,base[n]) && SOUND(u) && TRUSTED(u) -> intact=1 :: else fi;
		if :: !SOUND(u) -> unsound = unsound | BIT(u) :: else fi;
		if
		:: word[u]==EMPTY || !COUNTS(u) || (value==TRIMMED && word[u]!=TRIMMED) || (value!=EMPTY && word[u]==CORRUPT) -> skip
		:: else ->
			if
			:: word[u]==value -> skip
			:: else ->
				ALARM(value==EMPTY || value==CORRUPT || word[u]==TRIMMED)
				if :: value==EMPTY || value==CORRUPT || word[u]==TRIMMED -> value=word[u]; have=0 :: else fi
			fi;
			have = have | BIT(u)
		fi
	:: else
	fi
}

#ifdef NO_R15
#define SEAL(u) \
	:: atomic { !(sealed & BIT(u)) && open==NONE && phase[u]!=LOST && promise[u]<n -> open=u; \
		SAY(("@ epoch %d: SNAPSHOT of unit %d, not sealed yet: %d\n",n,u,word[u])) \
		count(u) } \
	:: atomic { open==u && phase[u]!=LOST && promise[u]<n -> open=NONE; sealed = sealed | BIT(u); \
		SAY(("@ epoch %d: unit %d is sealed now: %d\n",n,u,word[u])) \
		accept(u,n) }
#else
#define SEAL(u) \
	STOPS_AT_PROOF(u) \
	:: atomic { !(sealed & BIT(u)) && phase[u]!=LOST && !PROOF(u) && MAY_FOUND(u) && \
		(promise[u]<n || (promise[u]==n && phase[u]==SEALED)) -> \
		sealed = sealed | BIT(u); \
		JUDGE(u) \
		SAY(("@ epoch %d (base %d): seals unit %d: %d, durable %d, intact %d\n",n,base[n],u,word[u],durable[u],IS_INTACT(u,base[n]))) \
		count(u); \
		if :: promise[u]<n -> accept(u,n) :: else fi; SEALS(u) }
#endif

/* R16 */
#define ALL_SEALED ((sealed & members[base[n]])==members[base[n]])
#if SEALED_ENOUGH==ENOUGH_ANY
#define ENOUGH ((sealed & members[base[n]])!=0)
#elif SEALED_ENOUGH==ENOUGH_TAIL
#ifdef PAST
#define FIRST_CHAIN ((1<<CHAIN)-1)
#define ALL_TRUSTED ((sealed & members[base[n]] & ~strangers & ~stale)==members[base[n]])
#ifdef ALL_HEARD
#define HEARD_ALL ((sealed & members[base[n]])==members[base[n]])
#else
#define HEARD_ALL (true)
#endif
#ifdef R26_SOME
#define FOUND_OVER (sealed!=0)
#else
#define FOUND_OVER ((sealed & FIRST_CHAIN)==FIRST_CHAIN)
#endif
#define ENOUGH ((founding && FOUND_OVER) || \
	(!founding && HEARD && HEARD_ALL && \
	(intact || (sealed & BIT(TAIL(base[n])) & ~unsound & ~strangers & ~stale) || ALL_TRUSTED)))
#else
#define ENOUGH (intact || (sealed & BIT(TAIL(base[n])) & ~unsound) || ALL_SEALED)
#endif
#elif defined(PAST)
#define ENOUGH (!founding && intact)
#else
#define ENOUGH (intact)
#endif

/* The new chain is made of units that were sealed. */
#define HAS(u) ((sealed & BIT(u))!=0)
#define CHAIN1(a)     :: HAS(a) -> length[n]=1; UNIT(n,0)=a; members[n]=BIT(a)
#define CHAIN2(a,c)   :: HAS(a) && HAS(c) -> length[n]=2; UNIT(n,0)=a; UNIT(n,1)=c; members[n]=BIT(a)|BIT(c)
#define CHAIN3(a,c,d) :: HAS(a) && HAS(c) && HAS(d) -> length[n]=3; UNIT(n,0)=a; UNIT(n,1)=c; UNIT(n,CHAIN-1)=d; \
	members[n]=BIT(a)|BIT(c)|BIT(d)
inline chooseChain() {
	if
	CHAIN1(0) CHAIN1(1) CHAIN2(0,1)
#if ORDERS
	CHAIN2(1,0)
#endif
#if UNITS>2
	CHAIN1(2) CHAIN2(0,2) CHAIN2(1,2)
#if ORDERS
	CHAIN2(2,0) CHAIN2(2,1)
#endif
#if CHAIN>2
	CHAIN3(0,1,2)
#if ORDERS
	CHAIN3(2,1,0)
#endif
#endif
#endif
	fi
}

/* The unit's side of reconciling (R17): completed in place if it is a member of the base, else
 * wiped and copied. Members that showed the value are sent nothing. */
#define IN_BASE(u) ((members[base[n]] & BIT(u))!=0 && NO_STRANGER(u) && !FOUNDING)
#ifdef NO_R17_WIPE
#define REBUILD(u) if :: value!=EMPTY && word[u]==EMPTY -> word[u]=value :: else fi
#else
#ifdef COPY
#define REBUILD(u) joinWith(u); served[u]=NONE
#else
#define REBUILD(u) WIPES(u) word[u]=value; served[u]=NONE
#endif
#endif
#define RECONCILE(u) \
	:: atomic { (members[n] & BIT(u)) && !(done & BIT(u)) && phase[u]==SEALED && promise[u]==n && \
		SEALED_SO(u) && (IN_BASE(u) || MAY_WIPE(u)) -> \
		done = done | BIT(u); \
		SAY(("@ epoch %d: reconciles unit %d: %d\n",n,u,value)) \
		if \
		:: !IN_BASE(u) -> REBUILD(u); durable[u]=(word[u]!=EMPTY && RECONCILED_DURABLE) \
		:: IN_BASE(u) && value!=EMPTY && !(have & BIT(u)) -> \
			if \
			:: word[u]==EMPTY || word[u]==CORRUPT || (value==TRIMMED && TRIM_COMPLETES) -> word[u]=value; durable[u]=0 \
			:: else -> ALARM(word[u]==value || value==TRIMMED) skip \
			fi \
		:: IN_BASE(u) && value==EMPTY && DECIDE!=DECIDE_ANY -> word[u]=EMPTY; durable[u]=0 \
		:: else \
		fi; \
		if :: RECONCILED_DURABLE && word[u]!=EMPTY -> durable[u]=1 :: else fi; \
		if :: word[u]==TRIMMED && !(have & BIT(u)) -> TRIM_HEARD(u,n) skip :: else fi; \
		TRIM_RECONCILED(u) \
		NOTES(u) \
		prepared[u]=n }

/* Forget the record of an epoch that was ABORTED: nobody looks at it any more. */
inline forgetRecord(e) {
	owner[e]=0; length[e]=0; members[e]=0;
	UNIT(e,0)=0; UNIT(e,1)=0; UNIT(e,CHAIN-1)=0
}

proctype reconfigure(byte first; byte last; byte me) {
	byte n, b, sealed, have, unsound, done, value;
	bit intact, trimmedBelow;
#ifdef PAST
	byte strangers, stale;
	bit founding, given;
	ATTEMPTS_VAR
#endif
#ifdef COPY
	bit told;
#endif
#ifdef NO_R15
	byte open=NONE;
#endif
	n=first;
next:
	if
	:: n>last -> goto end
	:: atomic { n<=last && verdict[n]==UNDECIDED ->
		/* write-once registers: aborting all in one step hides nothing */
		b=n-1;
		do
#ifdef NO_R13
		:: owner[b]!=0 || b==0 -> break
		:: else -> b--
#else
		:: verdict[b]==ACTIVE && REMEMBERS(b) -> break
#ifdef PAST
		:: verdict[b]==ACTIVE && forgot[b] && b==0 -> founding=1; break
		:: verdict[b]==ACTIVE && forgot[b] && b>0 -> b--
#endif
		:: verdict[b]!=ACTIVE -> verdict[b]=ABORTED; forgetRecord(b); b--
#endif
		od;
		BEGINS
		base[n]=b; b=0 }
	:: n<=last && verdict[n]!=UNDECIDED -> goto giveUp
	fi;
	do	/* seal */
	EACH_UNIT(SEAL)
	:: atomic { ENOUGH && verdict[n]!=ABORTED -> break }
#if defined(PAST) && ACCEPT
	:: atomic { !founding && !ENOUGH && sealed!=0 && verdict[n]!=ABORTED && accepts<1 ->
		accepts++; given=1;
		SAY(("@ epoch %d: an operator gives up what is not here\n",n))
		precious=(acked!=EMPTY -> acked : seen); acked=EMPTY; seen=EMPTY; break }
#endif
	:: goto giveUp
	od;
	atomic {	/* decide, and write the record */
#if DECIDE==DECIDE_TAIL_EMPTY
		if :: (sealed & BIT(TAIL(base[n]))) && !(have & BIT(TAIL(base[n]))) -> value=EMPTY :: else fi;
#elif DECIDE==DECIDE_TAIL_HAS
		if :: !(have & BIT(TAIL(base[n]))) -> value=EMPTY :: else fi;
#endif
		if
		:: verdict[n]!=ABORTED && owner[n]==0 -> owner[n]=me; chooseChain(); RECORDS
			SAY(("@ epoch %d: the record is written: %d units, head %d, tail %d; value %d\n",n,length[n],HEAD(n),TAIL(n),value))
#ifdef NO_R13_OWNER
		:: owner[n]!=0 && (members[n] & sealed)==members[n] ->
			SAY(("@ epoch %d: a second one reconciles with value %d\n",n,value))
#endif
		:: else -> goto giveUp
		fi;
		sealed=0; intact=0; unsound=0 };
	do	/* reconcile */
	EACH_UNIT(RECONCILE)
	:: atomic { done==members[n] && verdict[n]!=ABORTED -> break }
	:: goto giveUp
	od;
	if
#ifdef NO_R13
	:: atomic { verdict[n]!=ABORTED && MAY_ACTIVATE ->
#else
	:: atomic { verdict[n]==UNDECIDED && REMEMBERS(n) && MAY_ACTIVATE ->
#endif
		SAY(("@ epoch %d is ACTIVE, base %d, value %d\n",n,base[n],value))
		verdict[n]=ACTIVE;
		survives(value, trimmedBelow);
		if :: n>newest -> newest=n :: else fi }
	:: goto giveUp
	fi;
giveUp:
	atomic { sealed=0; intact=0; have=0; unsound=0; done=0; value=0; trimmedBelow=0;
#ifdef COPY
		told=0;
#endif
#ifdef PAST
		strangers=0; stale=0; founding=0; given=0; ATTEMPTS_END
#endif
#ifdef NO_R15
		open=NONE;
#endif
		n++; goto next };
end:	n=0
}
