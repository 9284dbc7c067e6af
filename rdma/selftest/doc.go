// Package selftest tries on a live connection what the safety rules ask of a fabric: that
// a CAS shows only after the WRITE before it (rule R6), that atomics lose nothing (rule R1), and
// that a revoked key lets nothing through any more (rule R15).
//
// It holds the tests' cores alone, so that two can use them: rdma/rdmatest, where both ends lie in one
// process, and the doctor, whose far end is another machine. Nothing here waits without a context, and
// what is found wrong is an error that says what was seen; the caller decides what that means.
package selftest
