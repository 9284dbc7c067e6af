// Package unit is the core of a storage unit: which address is in which state,
// what is copied from staging to the ring, what has to go to flash, who is told
// when it is there, and when the unit may be sealed and opened.
//
// It is pure. It has no clock, goroutine, lock, network or file: one goroutine of
// unit/server owns a [Unit], feeds it doorbells, scans and finished flushes, and
// does what it answers. It sees registered memory through [Memory].
//
// # Window
//
//	       base                watermark           end                  base+W
//	         |                     |                |                      |
//	─────────┼─────────────────────┼────────────────┼──────────────────────┼────
//	on flash │ decided and durable │ some published │ EMPTY, may be written│ not yet
//
// The word and the page of address a stand in slot a mod W of the index and the
// ring. Base moves up by one once something was published beyond base + ¾ W, and
// only over an address that is durable or trimmed (rule R4): a hole stalls it.
//
// # Life of an address
//
//	EMPTY ──CAS by a client──► WRITTEN ──ingest, flush──► DURABLE ──trim──► TRIMMED
//	                      └──► JUNK ─────flush──────────► DURABLE_JUNK ──trim──┘
//	                           WRITTEN, does not verify ► CORRUPT ──repair──► DURABLE, DURABLE_JUNK or TRIMMED
//	                           DURABLE, damaged on flash ► CORRUPT
//
// The unit keeps in private memory what it last stored to each word (the shadow).
// A client can change words by CAS only; from EMPTY(generation, epoch) to WRITTEN
// or JUNK of that generation is the only change that is not tampering.
//
// # Life of a unit
//
//	closed ──seal(n)──► sealed(n) ──reconcile, activate(n)──► open(n) ──seal(m)──► sealed(m) …
//
// A unit that restarts is closed, keeps its promise and is not intact (rule R19).
package unit
