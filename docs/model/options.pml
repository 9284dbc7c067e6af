/* Options of position.pml, with their defaults: what the rules say. The variants of
 * variants.txt set them with -D. R1 ... R20 are the rules of docs/protocol.md.
 *
 * Size of the instance
 *   CHAIN     units of the first chain: units 0 (the head) to CHAIN-1
 *   UNITS     units in all; those beyond CHAIN are spares
 *   EPOCHS    epochs 1 to EPOCHS may follow epoch 0
 *   FAILURES  how many restarts and losses may happen, in all
 *   WRITERS   clients that hold the position's token (2: it was handed out twice)
 *   RIVALS    1: the reconfigurations of different epochs run side by side, and a
 *             loser's seals arrive at any time. 0: one after the other
 *   ORDERS    1: a new chain may have its units in any order
 *   FILL      1: there is a client that fills and helps
 *
 * Which failures are allowed: what the chain of the newest epoch has at every instant
 *   ASSUME    INTACT      an intact member (not restarted since it was reconciled)
 *             POWER       no member lost for good; any number of restarts
 *             EITHER      one of the two: what protocol.md promises
 *             SURVIVOR    a member that is not lost; any number of restarts. Stronger
 *                         than the promise, and needs READ_ALL
 *             ANYTHING    no failure is ruled out: an epoch that becomes ACTIVE has everything,
 *                         or none becomes ACTIVE. What past.pml asserts
 *
 * With PAST the defaults are those of past.pml's rows: WRITERS 1, FILL 0, FAILURES 0, ORDERS 0 and
 * ASSUME ANYTHING.
 */
#define INTACT   0
#define POWER    1
#define EITHER   2
#define SURVIVOR 3
#define ANYTHING 4

/* When an append is acknowledged (ACK) */
#define ACK_ALL    0  /* durable at every replica: flash */
#define ACK_TAIL   1  /* durable at the tail only */
#define ACK_CAS    2  /* the CAS at the tail succeeded: memory */

/* What a reader returns (READ) */
#define READ_TAIL  0  /* what is durable at the tail: flash, R11 */
#define READ_WORD  1  /* what stands at the tail: memory */
#define READ_ALL   2  /* what is durable at every replica */
#define READ_ANY   3  /* what is durable at any one replica */
#define READ_ANY_TAIL 4 /* the same, if the tail shows the same entry in the epoch */
#define READ_OTHER 6 /* what is durable at another replica and at the tail, in one epoch: R11 */
#define READ_JUNK  5  /* READ_TAIL, but junk also before it is durable */

/* What must be sealed of the base's chain (SEALED_ENOUGH, R16) */
#define ENOUGH_ANY     0  /* any one member */
#define ENOUGH_TAIL    2  /* an intact member, or the tail (hence also: all) */
#define ENOUGH_INTACT  3  /* an intact member: memory */

/* What the reconfigurer decides from the snapshots (DECIDE, R17) */
#define DECIDE_ANY        0  /* any entry found at a sealed member wins */
#define DECIDE_TAIL_EMPTY 1  /* an empty tail makes the position empty */
#define DECIDE_DURABLE    2  /* only what is durable counts */
#define DECIDE_TAIL_HAS   3  /* only what the tail has counts */

#ifdef PAST
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef FILL
#define FILL 0
#endif
#ifndef FAILURES
#define FAILURES 0
#endif
#ifndef ORDERS
#define ORDERS 0
#endif
#ifndef ASSUME
#define ASSUME ANYTHING
#endif
#endif

#ifndef CHAIN
#define CHAIN 2
#endif
#ifndef UNITS
#define UNITS 2
#endif
#ifndef EPOCHS
#define EPOCHS 2
#endif
#ifndef FAILURES
#define FAILURES 2
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef RIVALS
#define RIVALS 0
#endif
#ifndef ORDERS
#define ORDERS 1
#endif
#ifndef FILL
#define FILL 1
#endif

/* Durability memory: one word for the four options that go with it. */
#ifdef MEMORY
#ifndef ASSUME
#define ASSUME        INTACT
#endif
#define ACK           ACK_CAS
#define READ          READ_WORD
#ifndef SEALED_ENOUGH
#define SEALED_ENOUGH ENOUGH_INTACT
#endif
#endif

#ifndef ASSUME
#define ASSUME EITHER
#endif
#ifndef ACK
#define ACK ACK_ALL
#endif
#ifndef READ
#define READ READ_TAIL
#endif
#ifndef SEALED_ENOUGH
#define SEALED_ENOUGH ENOUGH_TAIL
#endif
#ifndef DECIDE
#define DECIDE DECIDE_ANY
#endif

/* Rules to switch off, one at a time:
 *   NO_R2            CASes of one position in any order
 *   NO_R3            a unit says "durable" before it is
 *   NO_R8            a token is used in any epoch, older ones too
 *   NO_R9_FILL       an unknown outcome is decided by reading the head, not by a CAS
 *   NO_R9_HEAD       after a rejection an append goes on in mid-chain, in the new epoch
 *   NO_R9_LOST       a rejection in mid-chain is reported as "lost"
 *   NO_R10_HEAD      fill begins at the tail
 *   NO_R10_EPOCH     a helper takes what it read in one epoch into the next
 *   NO_R12           "unwritten" by the tail alone (with UNWRITTEN)
 *   NO_R13           the layout record alone makes an epoch a base: no verdict
 *   NO_R13_OWNER     whoever finds the record written reconciles as well (with TWICE)
 *   NO_R14           the promise is lost by a restart
 *   NO_R15           the snapshot is taken before the old registration is dead
 *   NO_R17_BASE      any sealed unit is a source
 *   NO_R17_WIPE      a unit that was no member of the base keeps what it had
 *   NO_R17_FLUSH     reconciled, but not durable, before activation
 *   NO_R18_VERDICT   a unit opens before the verdict
 *   NO_R18_RECONCILED  a unit opens without having been reconciled
 *   NO_R19_CLOSED    a unit that restarts goes on serving
 *   NO_R19_SEALED    a unit that restarts counts as still sealed
 * More of them stand in trim.pml, repair.pml, stop.pml and past.pml.
 *
 * What else can be asked for
 *   MEMORY           durability memory
 *   UNWRITTEN        with a reader that answers "unwritten" (R12)
 *   DIES             a writer dies after its CAS at the head
 *   TWICE            two reconfigurers race for the record of each epoch
 *   NO_MISMATCH      a broken rule is to be seen by a client, not by the protocol's own
 *                    alarms (a later replica, or a sealed member, with another entry)
 *   REACH=n          assert that situation n (goals.pml) is never reached: it must be
 *   SETTLED          the first chain has an entry, durable and acknowledged; its head may have
 *                    trimmed it, by a trim of long ago that got no further
 *   TRACE            print events (for counter-examples)
 */
