// Package layout says where every position of the log lives: the words Epoch,
// Position and Address, the Layout that maps one to the other, and the state
// machine by which one layout follows another (propose, seal, reconcile, activate).
//
// It is pure: no clock, goroutine, lock, network, file or cgo. Raft carries its
// commands (layout/server); clients and units only read layouts.
//
// # Mapping
//
// A layout is a list of segments, each from its Start up to the Start of the next;
// the last is open. A segment stripes its positions over its chains round robin
// (CORFU, NSDI'12, section 2.2):
//
//	chain   = (p − Start) mod len(Chains)
//	address = Chains[chain].Base + (p − Start) / len(Chains)
//
// The same address holds the same position at every unit of the chain.
package layout
