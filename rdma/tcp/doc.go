// Package tcp is the software provider of package rdma: the contract of an RC
// queue pair, kept in pure Go over TCP, for machines without an RNIC and for tests.
//
// It promises what package rdma promises and no more. It does not encrypt and it
// does not know who a peer is: like an RDMA network it belongs on a fabric of its
// own, and a key is all that stands between a peer and a region. So it stays on loopback, unless Options.Insecure says otherwise. A peer that breaks
// the protocol gets its connection closed; nothing else happens.
//
// # Two sockets
//
// A connection is two TCP sockets, one for each direction of requests:
//
//	dialer   ── requests of the dialer ──►  listener
//	         ◄── answers to them ─────────              socket "forward"
//
//	dialer   ◄── requests of the listener ─  listener
//	         ─── answers to them ─────────►             socket "reverse"
//
// So an answer never stands behind a request. Whoever posts always takes its
// answers off the socket without waiting for anything else, therefore a responder
// that blocks while it writes answers blocks only on the network, and two peers that
// flood each other cannot deadlock. A receiver that is not ready (no room for a SEND)
// stalls the requests behind that SEND, as on RC, but not the answers to its own.
//
// # Handshake
//
// The dialer opens both sockets and sends a hello on each, with the same random
// token; the listener pairs them. Its answer, on the forward socket alone, opens
// the connection. Both records have a fixed size. All integers are little-endian.
//
//	hello, 128 bytes                         reply, 128 bytes
//	  0  magic "CorfuTCP"                      0  magic "CorfuTCP"
//	  8  version u16                           8  version u16
//	 10  role u8: 1 forward, 2 reverse        10  status u8: 0 accepted, 1 rejected
//	 11  length of private u8 (0..55)         11  length of reason u8 (0..100)
//	 12  token [16]                           12  reason [100], rest zero
//	 28  private [55], rest zero             112  zero [16]
//	 83  zero [45]
//
// # Requests
//
// A frame is one batch: a header, then each operation followed by its data.
//
//	header, 12 bytes                         operation, 20 bytes
//	  0  length of what follows u32            0  kind u8 (rdma.Kind)
//	  4  type u8: 1                            1  zero [3]
//	  5  operations u8 (1..64)                 4  key u32      (SEND: 0)
//	  6  zero u16                              8  address u64  (SEND: 0)
//	  8  tag u32: 0, 1, 2, …                  16  length u32   (CAS, FETCH_ADD: 8)
//
//	data of WRITE and SEND: length bytes;  of CAS: compare u64, swap u64;
//	of FETCH_ADD: addend u64;  of READ: none
//
// # Answers
//
// Batches are answered in the order of their tags. A READ is answered by one or more
// DATA frames, in order; then DONE or NAK ends the batch. A NAK also ends the connection.
//
//	header, 12 bytes
//	  0  length of what follows u32
//	  4  type u8: 2 DATA, 3 DONE, 4 NAK
//	  5  operation u8: index in the batch of the READ (DATA) or of what was refused (NAK)
//	  6  words u8: old values that follow (DONE, NAK)
//	  7  status u8: why (NAK): 1 access, 2 bad request, 3 receiver not ready
//	  8  tag u32
//
//	DATA: the bytes;  DONE, NAK: the old values of the batch's CASes and FETCH_ADDs
//	that took effect, in order, u64 each
package tcp
