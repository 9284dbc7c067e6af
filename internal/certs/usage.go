package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUsage means that a certificate's extended key usage (RFC 5280, 4.2.1.12) does not allow what
// the certificate is for.
var ErrUsage = errors.New("have it signed for that use")

// Usages that a certificate needs one of. Whoever dials a server verifies serverAuth (Go, curl,
// Prometheus), so a process that serves cannot do without it. A caller's certificate may be for
// either side of TLS: who may call what is decided by the identity in the certificate, not by its
// usage, and some authorities sign for serverAuth alone.
var (
	serverUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	callerUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
)

var usageNames = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageClientAuth: "clientAuth", x509.ExtKeyUsageCodeSigning: "codeSigning",
	x509.ExtKeyUsageEmailProtection: "emailProtection", x509.ExtKeyUsageTimeStamping: "timeStamping", x509.ExtKeyUsageOCSPSigning: "OCSPSigning",
}

// usages returns what a certificate of the role needs one of.
func (r Role) usages() []x509.ExtKeyUsage {
	if r.serves() {
		return serverUsages
	}
	return callerUsages
}

// checkUsage fails with ErrUsage unless c may be used as one of the role. A certificate without the
// extension may be used for everything.
func checkUsage(c *x509.Certificate, role Role) error {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil
	}
	need := role.usages()
	for _, u := range need {
		if slices.Contains(c.ExtKeyUsage, u) {
			return nil
		}
	}
	return fmt.Errorf("its extended key usage is %s, and a certificate of role %s needs %s: %w", usageList(c.ExtKeyUsage, c), role, usageList(need, nil), ErrUsage)
}

// usageList returns the names of usages; c, if given, adds those that have no name here.
func usageList(list []x509.ExtKeyUsage, c *x509.Certificate) string {
	var names []string
	for _, u := range list {
		name := usageNames[u]
		if name == "" {
			name = fmt.Sprintf("usage %d of Go's", int(u))
		}
		names = append(names, name)
	}
	sep := " or "
	if c != nil {
		sep = ", "
		for _, oid := range c.UnknownExtKeyUsage {
			names = append(names, oid.String())
		}
	}
	return strings.Join(names, sep)
}

// chains verifies that a caller's certificate leads to one of the authorities. TLS itself would ask
// for clientAuth alone.
func (m material) chains(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.Join(errors.New("the peer has no certificate"), ErrIdentity)
	}
	leaf := cs.PeerCertificates[0]
	o := x509.VerifyOptions{Roots: m.pool, Intermediates: x509.NewCertPool(), KeyUsages: callerUsages}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		id, bad := IdentityOf(leaf)
		if bad != nil {
			return fmt.Errorf("peer with a certificate of %q: %w", leaf.Subject, err)
		}
		return fmt.Errorf("peer %v: %w", id, err)
	}
	return nil
}
