//go:build mutants

package mutant

// Set one to break the rule. Not while anything runs.
var (
	R2  bool // an append CASes at the tail first and at the head last
	R6  bool // a client takes a staging slot again as soon as its CAS succeeded
	R9  bool // the outcome of an append is decided by reading the head, not by a CAS there
	R10 bool // a hole is filled from the tail on
	R11 bool // a reader returns what is not durable yet
	R15 bool // a unit takes its snapshot before the index is out of reach
)
