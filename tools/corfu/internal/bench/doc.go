// Package bench measures the log against the network that carries it. It holds
// the contestants that need nothing but corfu/rdma (single verbs, and the bare
// path: the verbs of an append in one loop), the runs of perftest beside them,
// and the arithmetic: rounds of all contestants are interleaved, so that a busy
// neighbour slows all of them, and each reports the median of its rounds.
package bench
