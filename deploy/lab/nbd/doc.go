// Package nbd is a disk for power-cut tests: a network block device whose write cache
// is volatile, as a drive's is. A write stays in this process's memory until a FLUSH, or
// its own FUA, brings it to the backing file; kill the process with SIGKILL and what was
// never flushed is gone. A virtual machine's disk without it keeps whatever the guest
// handed over, so that a missing flush would never show.
//
// # What a cut leaves
//
// Of the writes since the last flush: nothing, or with [Options].Leak some of their
// sectors, chosen at random, since a drive may write back its cache in any order and at any time. A cut during
// a flush leaves a part of it. A sector of 512 bytes is never torn; a page of 4096 may be.
//
// # Protocol
//
// Fixed newstyle negotiation (EXPORT_NAME, INFO, GO, LIST, ABORT; any export name) and simple replies:
//
//	request   magic 0x25609513 (4) flags (2) type (2) handle (8) offset (8) length (4), data
//	reply     magic 0x67446698 (4) error (4) handle (8), data
//
// all big-endian. READ, WRITE, FLUSH, FUA, TRIM (advice, ignored) and DISC. No TLS, no structured replies.
// Source: the protocol document of the NBD project, doc/proto.md.
package nbd
