//go:build mutants

package mutant

// Set one to break the rule. Not while anything runs.
var (
	R1       bool // the CPU of a head makes junk of EMPTY words
	R2       bool // an append CASes at the tail first and at the head last
	R4       bool // the window moves on, whatever stands at its lower end
	R5       bool // what is flushed is copied from staging once more, when the disk takes it
	R6       bool // a client takes a staging slot again as soon as its CAS succeeded
	R8       bool // a token of an epoch that is over is used in the next one
	R9       bool // the outcome of an append is decided by reading the head, not by a CAS there
	R10      bool // a hole is filled from the tail on
	R11      bool // a reader returns what is not durable yet
	R12      bool // a reader that finds nothing does not look whether the epoch still stands
	R13      bool // a verdict may be overwritten
	R14      bool // a unit forgets its promise when it restarts
	R14Lower bool // a unit lets itself be sealed at less than it promised
	R15      bool // a unit takes its snapshot before the index is out of reach
	R16      bool // whatever was sealed of a chain is enough
	R18      bool // an epoch is opened before its verdict
	R19      bool // a unit that restarts thinks that nothing was lost
	R20      bool // the sequencer starts where it did in the epoch before
	R21      bool // a unit starts on a store of another unit, and a store counts whatever id it has
	R22      bool // a store counts whatever note it shows
	R23      bool // how much the members had durable is not compared
	R24      bool // a unit takes orders for any start of it
	R25      bool // what units say of epochs is not compared with the layout store, and a single layout server waits for nobody
	R26      bool // the log is founded over whatever the units hold
	R27      bool // a store is wiped even if it may hold what was given up
)
