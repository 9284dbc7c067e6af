// Package verbs is the fabric provider for RDMA network cards: rdma.Device over
// libibverbs and librdmacm, with reliable connected queue pairs. The cgo part is
// in rdma/internal/verbs.
//
// # Waiting
//
// Do posts a list and polls for its completion in one crossing into C, for at
// most ConnOptions.Spin. Posting and polling take no lock of Go's; a polling
// thread reaps for everybody on the connection, and on its way back finishes the
// batches of those who do not poll. Whoever is not done by then is counted as a
// sleeper, arms the completion channel, looks once more, and parks. A goroutine
// for each connection waits on the channel's fd through the runtime's poller and
// reaps whenever it speaks, arming it again as long as there are sleepers.
//
// # The end of a connection
//
// Whatever breaks it (an error completion, the peer's disconnect, Close), one
// goroutine takes it down: the queue pair goes to the error state, which flushes all that is in flight
// with completions; what has none after a while is finished once the queue pair
// is destroyed. So no batch completes while the device may still touch its memory.
// A queue pair is never reset: on an active one that corrupts Linux 6.1.
//
// A peer that vanishes is noticed by what is posted to it, and where nothing is, by a WRITE of no bytes every few seconds.
//
// # Lock order
//
// conn.mu is a leaf: nothing is called under it that blocks.
package verbs
