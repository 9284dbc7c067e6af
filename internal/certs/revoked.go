package certs

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// RevocationList is the name of an authority's list of revoked certificates, in its directory.
const RevocationList = "ca.crl"

// ListLife is how long a revocation list is good for unless somebody says otherwise: by then another one must be there.
const ListLife = 90 * 24 * time.Hour

// ErrRevoked: the authority took the peer's certificate back.
var ErrRevoked = errors.New("the certificate is revoked")

// pemList is the type of a revocation list's PEM block (RFC 7468, 6).
const pemList = "X509 CRL"

// revocations are what the lists of one file say: RFC 5280 knows a certificate by its issuer and its number.
type revocations struct {
	names   map[certName]bool
	numbers map[string]*big.Int // of the list of each authority, by its name and key; a later one is higher
	until   time.Time           // when the first of the lists is to be replaced; zero: there is none
}

type certName struct{ issuer, serial string }

func nameOf(c *x509.Certificate) certName {
	return certName{string(c.RawIssuer), c.SerialNumber.Text(16)}
}

// has tells whether a chain holds a certificate that was taken back.
func (r revocations) has(chain []*x509.Certificate) bool {
	for _, c := range chain {
		if r.names[nameOf(c)] {
			return true
		}
	}
	return false
}

// readRevocations reads the lists of a file, each of which one of the authorities must have signed. None may be older than that of the same issuer
// in before: whoever can write the file is not to let somebody in again.
func readRevocations(path string, authorities []*x509.Certificate, before revocations) (r revocations, err error) {
	lists, err := readLists(path)
	if err != nil {
		return r, err
	}
	r = revocations{names: map[certName]bool{}, numbers: map[string]*big.Int{}}
	for _, l := range lists {
		if err := signedByOne(l, authorities); err != nil {
			return r, fmt.Errorf("%s: %w", path, err)
		}
		issuer := string(l.RawIssuer)
		signer := issuer + string(l.AuthorityKeyId) // an authority and its successor may have one name
		if had := before.numbers[signer]; had != nil && l.Number.Cmp(had) < 0 {
			return r, fmt.Errorf("%s: list %v is older than list %v, which is in force", path, l.Number, had)
		}
		if had := r.numbers[signer]; had == nil || had.Cmp(l.Number) < 0 {
			r.numbers[signer] = l.Number
		}
		if r.until.IsZero() || l.NextUpdate.Before(r.until) {
			r.until = l.NextUpdate
		}
		for _, e := range l.RevokedCertificateEntries {
			r.names[certName{issuer, e.SerialNumber.Text(16)}] = true
		}
	}
	return r, nil
}

func signedByOne(l *x509.RevocationList, authorities []*x509.Certificate) error {
	for _, e := range l.Extensions {
		if e.Critical { // a part of a list, or what another one has beside it: taken for whole it would let somebody in
			return fmt.Errorf("a revocation list with extension %v, which is critical and not understood", e.Id)
		}
	}
	if l.Number == nil || l.NextUpdate.IsZero() {
		return errors.New("a revocation list without a number, or without the time of the next one")
	}
	for _, c := range authorities {
		if string(c.RawSubject) == string(l.RawIssuer) && l.CheckSignatureFrom(c) == nil {
			return nil
		}
	}
	return fmt.Errorf("a revocation list of %q, which is none of the authorities that are believed, or did not sign it", l.Issuer)
}

// readLists reads all revocation lists of a file; at least one.
func readLists(path string) ([]*x509.RevocationList, error) {
	return readPEM(path, pemList, "no PEM revocation list in it (corfu certs revoke makes one)", x509.ParseRevocationList)
}

// ReadList reads the revocation list of this authority. It fails with os.ErrNotExist if there is none yet.
func (a *Authority) ReadList(path string) (*x509.RevocationList, error) {
	all, err := readLists(path)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%s: %d revocation lists, of this authority there is one", path, len(all))
	}
	if err := signedByOne(all[0], []*x509.Certificate{a.cert}); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all[0], nil
}

// Issued fails unless the authority signed c, which is no authority itself.
func (a *Authority) Issued(c *x509.Certificate) error {
	if c.IsCA {
		return errors.New("an authority is not revoked but replaced (docs/security.md)")
	}
	if err := c.CheckSignatureFrom(a.cert); err != nil {
		return fmt.Errorf("not of this authority: %w", err)
	}
	return nil
}

// Revoke makes the list that follows before (nil: the first one), with the serial numbers on it that before had, and these. Nothing leaves a list.
func (a *Authority) Revoke(before *x509.RevocationList, serials []*big.Int, now time.Time, life time.Duration) (*x509.RevocationList, error) {
	if life <= 0 {
		return nil, fmt.Errorf("a life of %v: must be above zero", life)
	}
	t := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(life)}
	has := map[string]bool{}
	if before != nil {
		t.Number.Add(before.Number, t.Number)
		t.RevokedCertificateEntries = before.RevokedCertificateEntries
		for _, e := range before.RevokedCertificateEntries {
			has[e.SerialNumber.Text(16)] = true
		}
	}
	for _, n := range serials {
		if n.Sign() <= 0 {
			return nil, fmt.Errorf("serial number %x: must be above zero", n)
		}
		if !has[n.Text(16)] {
			has[n.Text(16)] = true
			t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: now})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, a.cert, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}

// WriteList replaces the file of a revocation list in one step.
func WriteList(path string, l *x509.RevocationList) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: pemList, Bytes: l.Raw}), 0o644, true)
}
