// Package devcluster runs a whole cluster in one process: one layout server or several, a
// sequencer and chains of storage units, each the real server with its own
// control service, directory and registered memory. It serves tests, corfu dev,
// the demo and the benchmark. One process is one failure domain: it is no way to
// keep data that matters.
//
// # Directory
//
//	cluster.yaml   shape and control addresses, so that a second start finds what the first one made
//	layout/        the layout server's store; of several: layout/, layout-2/, layout-3/ …
//	seq-1/         the sequencer's promise
//	unit-1/ …      the flash store of each unit
package devcluster
