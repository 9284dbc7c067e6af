//go:build mutants

package mutant

// Set one to break the rule. Not while anything runs.
var (
	R2  bool // an append CASes at the tail first and at the head last
	R3  bool // a unit acknowledges, and calls durable, what it has yet to write
	R6  bool // a client takes a staging slot again as soon as its CAS succeeded
	R9  bool // the outcome of an append is decided by reading the head, not by a CAS there
	R10 bool // a hole is filled from the tail on
	R11 bool // a reader returns what is not durable yet
	R12 bool // an empty tail is taken at its word, and so is the sequencer
	R14 bool // a unit answers a seal and forgets its promise in a crash
	R15 bool // a unit takes its snapshot before the index is out of reach
)
