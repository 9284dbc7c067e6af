//go:build mutants

package mutant

// Set one to break the rule. Not while anything runs.
var (
	R2  bool // an append CASes at the tail first and at the head last
	R6  bool // a client takes a staging slot again as soon as its CAS succeeded
	R9  bool // the outcome of an append is decided by reading the head, not by a CAS there
	R10 bool // a hole is filled from the tail on
	R11 bool // a reader returns what is not durable yet
	R12 bool // a reader that finds nothing does not look whether the epoch still stands
	R15 bool // a unit takes its snapshot before the index is out of reach
	R16 bool // whatever was sealed of a chain is enough
	R18 bool // an epoch is opened before its verdict
	R19 bool // a unit that restarts thinks that nothing was lost
	R20 bool // the sequencer starts where it did in the epoch before
)
