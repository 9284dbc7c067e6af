// Package certs makes and uses the certificates of a cluster: who a process is, who it talks to, and what role that one has.
//
// An identity is a SPIFFE ID, the one URI in a certificate's subject alternative names, as the X.509-SVID standard of spiffe.io has it:
//
//	spiffe://<cluster>/<role>/<name>      spiffe://corfu/unit/unit-1
//
// The cluster is the trust domain. A peer of another cluster is refused even if the same authority signed it. A certificate's host
// names and addresses are checked too, by whoever dials. Any authority that issues such certificates will do; [Init] and
// [Authority.Issue] make one for clusters that have none.
//
// A [Source] reads the files again when they change, so that certificates are renewed without a restart: the next
// handshake uses what is there then. A connection ends when the certificate of its peer does.
//
// A certificate that must not be used any more goes on its authority's revocation list (RFC 5280), which [Authority.Revoke] makes: handshakes with it
// fail, and what it has open ends within a second or two ([Standing]). A list that cannot be read, or is not of an authority, or older than the one before, is
// refused: at the start with an error, later by keeping the one in force.
package certs
