// Package mutant lets tests break the safety rules (docs/protocol.md) one at a time, in a build with the tag mutants, to see that
// the simulation finds each. In any other build every name here is a constant false, and the code behind it is not there.
package mutant
