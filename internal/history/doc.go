// Package history judges what clients of a log were told: the calls and their answers, as they stand in a [History], must be those
// of a log in which each position is a register that is written once (checked with porcupine, position by position), each payload
// stands at one position at most, what failed for certain stands nowhere, and a tail lies above all that was known before.
//
// It knows nothing of clusters: the simulation, the tests of the client and the chaos test each fill one in.
package history
