// Package sim runs a whole cluster and its clients in one process, on a network, a clock and disks of its own, with faults that a
// seed decides, and checks what the clients saw.
//
// # What is real
//
// The client, the unit's server and core with its flash store, the sequencer's server and core, and the layout server with its
// manager and its state machine. What they stand on is not:
//
//	clock        a bubble of testing/synctest: time passes when nobody has anything to do
//	fabric       Host is an rdma.Device: registered memory, keys that are used again at once, RC connections. Each operation
//	             takes effect at its own time; operations of one connection in order, those of two in any. An atomic reads
//	             its word first and writes it later, and is not atomic with the CPU (nic.go)
//	control      calls of gRPC's generated code without gRPC: late, lost, doubled (plane.go)
//	consensus    one log of commands; who leads, and how many think so, is the faults' business (consensus.go)
//	disk         files in memory; what was not synced is lost in a crash (disk.go)
//
// # What is checked
//
// Every position is a register that is written once: histories go through porcupine. A payload stands at one position, one whose
// append failed for certain nowhere. A tail lies above what was known before. At the end the network heals: the cluster must come
// back, every position must be readable, the replicas must hold the same, no record of the layout store may
// have changed (rule R13), and no program may have raised an alarm. Followers (follow.go) are given every acknowledged entry,
// and the last one soon.
//
// # What a seed decides
//
// The plan (NewPlan), each latency, each fault and its moment, and every draw of crypto/rand. It does not decide the order of
// goroutines that are ready at one moment of the simulated clock, a choice among channels of one select that are ready together, or
// the order in which a map is walked; so runs of one seed are nearly always, and not always, the same. TestSeedsRepeat measures how often.
//
// # Pauses
//
// A paused process posts nothing, takes no message, no call and no completion, and its disk does not move, while its NIC serves its
// memory. Its timers go on: what they start waits at the first of these.
package sim
