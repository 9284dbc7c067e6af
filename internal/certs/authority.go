package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Lifetimes that certificates get unless somebody says otherwise.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	LeafLife      = 365 * 24 * time.Hour
)

// early is how long before now a certificate begins to be good: clocks differ.
const early = 5 * time.Minute

// Names of an authority's files in its directory.
const (
	AuthorityCert = "ca.crt"
	AuthorityKey  = "ca.key"
)

// Authority signs certificates of one cluster.
type Authority struct {
	Cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// Pair is a certificate and its key, PEM.
type Pair struct{ Cert, Key []byte }

// Init makes an authority for a cluster: ECDSA P-256, good for life from now on.
func Init(cluster string, now time.Time, life time.Duration) (Pair, error) {
	if err := (Identity{cluster, Client, "x"}).validate(); err != nil {
		return Pair{}, err
	}
	t, err := template(now, life)
	if err != nil {
		return Pair{}, err
	}
	t.Subject = pkix.Name{CommonName: "corfu authority of " + cluster}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.URIs = []*url.URL{{Scheme: "spiffe", Host: cluster}} // the trust domain, as in an X.509-SVID that signs
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	return sign(t, t, key, key)
}

// OpenAuthority reads the authority in a directory.
func OpenAuthority(dir string) (*Authority, error) {
	cert, err := readCerts(filepath.Join(dir, AuthorityCert))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no authority in %s (corfu certs init makes one)", dir)
	} else if err != nil {
		return nil, err
	}
	c := cert[0]
	if !c.IsCA || len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" || c.URIs[0].Path != "" {
		return nil, fmt.Errorf("%s: not the authority of a cluster: %w", filepath.Join(dir, AuthorityCert), ErrIdentity)
	}
	key, err := readKey(filepath.Join(dir, AuthorityKey))
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(c.PublicKey) {
		return nil, fmt.Errorf("%s and %s in %s do not belong together", AuthorityCert, AuthorityKey, dir)
	}
	return &Authority{Cluster: c.URIs[0].Host, cert: c, key: key}, nil
}

// Issue makes a certificate with a new key. hosts are the names and IP addresses under which others dial the process: at least one for roles
// that serve. The certificate does not outlive the authority.
func (a *Authority) Issue(role Role, name string, hosts []string, now time.Time, life time.Duration) (Pair, error) {
	id := Identity{a.Cluster, role, name}
	if err := id.validate(); err != nil {
		return Pair{}, err
	}
	if role.serves() && len(hosts) == 0 {
		return Pair{}, fmt.Errorf("a certificate for role %s needs the hosts under which it is dialled", role)
	}
	t, err := template(now, life)
	if err != nil {
		return Pair{}, err
	}
	if !now.Before(a.cert.NotAfter) {
		return Pair{}, fmt.Errorf("the authority ended at %s: make a new one (corfu certs init)", a.cert.NotAfter.Format(time.RFC3339))
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	t.Subject = pkix.Name{CommonName: name, OrganizationalUnit: []string{string(role)}} // for those who read it; the URI is what counts
	t.URIs = []*url.URL{id.uri()}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if role.serves() {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h == "" || len(h) > 253 {
			return Pair{}, fmt.Errorf("host %q: must be a name or an IP address", h)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	return sign(t, a.cert, key, a.key)
}

// Renew issues a certificate for whom c is for, with the same hosts and as long a life, and a new key.
func (a *Authority) Renew(c *x509.Certificate, now time.Time) (Pair, error) {
	id, err := IdentityOf(c)
	if err != nil {
		return Pair{}, err
	}
	if id.Cluster != a.Cluster {
		return Pair{}, fmt.Errorf("%v is not of the authority's cluster, %s: %w", id, a.Cluster, ErrIdentity)
	}
	return a.Issue(id.Role, id.Name, Hosts(c), now, c.NotAfter.Sub(c.NotBefore)-early)
}

// Hosts are the names and addresses that a certificate is good for.
func Hosts(c *x509.Certificate) []string {
	hosts := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	if life <= 0 {
		return nil, fmt.Errorf("a life of %v: must be above zero", life)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126)) // RFC 5280, 4.1.2.2: positive, at most 20 octets
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{SerialNumber: serial.Add(serial, big.NewInt(1)), NotBefore: now.Add(-early), NotAfter: now.Add(life)}, nil
}

func sign(t, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, by)
	if err != nil {
		return Pair{}, err
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})}, nil
}
