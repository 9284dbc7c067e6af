// Package rdma is corfu's fabric: one-sided operations on a peer's registered
// memory, and small messages, over reliable connections.
//
// The package holds the contract alone. Two providers keep it: rdma/verbs
// (libibverbs, RC queue pairs) and rdma/tcp (the same semantics in software, for
// machines without an RNIC and for tests). rdma/fabric chooses between them and
// rdma/rdmatest is the suite that both must pass.
//
// # What it promises
//
//   - A [Batch] is an ordered list of operations, posted as one doorbell. The
//     peer executes a connection's operations in the order in which they were
//     posted: whoever sees the effect of a CAS sees the whole of every WRITE that
//     stands before it on the same connection (rule R6).
//   - CompareSwap and FetchAdd are atomic with each other, from whatever
//     connection of the same device they come. They are NOT atomic with stores by
//     the CPU that owns the memory (IBV_ATOMIC_HCA; rule R1), even where a provider
//     happens to be kinder.
//   - After [Region.Close] returned, no remote operation on the region takes
//     effect (rule R15). A connection that tries ends in error on both sides.
//   - A connection breaks as a whole. An operation that was in flight then has an
//     unknown outcome ([ErrBroken]); only [ErrRemoteAccess] says that the
//     operation it names had no effect.
//
// # What it does not promise
//
// Ordering between connections, exactly-once, survival of a broken connection
// (dial anew), or that a key is never handed out twice: mlx5 reuses the rkey of a
// deregistered region first (its MR cache is LIFO), so safety rests on compared
// values, and a dead key is only the second layer.
//
// # Memory
//
// Everything that an operation touches, on either side, lies in [Memory]:
// anonymous mmap outside the Go heap, pre-faulted. The Go race detector does not
// watch it; words that a peer may change are read with [Memory.Load].
package rdma
