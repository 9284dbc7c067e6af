// Package verbs binds libibverbs and librdmacm (rdma-core) and is the only
// package of the module that uses cgo.
//
// It promises: no Go pointer is kept by C, and none is passed on the fast path;
// an object keeps its parents alive and is closed before they are, whatever the
// order of the Close calls; Close is idempotent; an error names the verb and
// keeps its errno; an unknown status or event is a number with a name, never a panic.
//
// The libraries are opened at run time ([Load]). A program with this package
// starts on machines that lack them, builds where their headers are missing, and
// builds without cgo at all: Load then fails and says why, and nothing else works.
//
// It does not promise that its types are safe for concurrent use, except for
// [QP.Post], [QP.Wait] and [QP.Reap], which any number of threads may call.
//
// # The fast path
//
// A [Call] is a block of C memory that holds a list of work requests and the
// answer. One crossing into C posts the list and polls the completion queue for a
// bounded time. Completions are matched by wr_id:
//
//	63           32 31       16 15        0
//	| generation   | operation | slot      |
//
// to a [Table] of slots, one for each list in flight (table.c tells who finishes what).
package verbs
