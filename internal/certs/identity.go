package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Role says what a process may do; the control plane's table of methods says what that is.
type Role string

// The roles.
const (
	Client  Role = "client"  // opens sessions, appends, reads
	Unit    Role = "unit"    // is a storage unit
	Seq     Role = "seq"     // is a sequencer
	Layout  Role = "layout"  // is a layout server: orders units and sequencers about, and speaks Raft
	Admin   Role = "admin"   // an operator: all that a client may, and changes to the cluster
	Monitor Role = "monitor" // reads metrics and health over HTTPS, and nothing else
)

// Roles are all of them.
func Roles() []Role { return []Role{Client, Unit, Seq, Layout, Admin, Monitor} }

// serves tells whether others dial a process of the role: its certificate is good for both sides of TLS then.
func (r Role) serves() bool { return r == Unit || r == Seq || r == Layout }

// ErrIdentity: the certificate names nobody of a cluster, or somebody else than it must.
var ErrIdentity = errors.New("not an identity of this cluster")

// Identity is who a certificate is for. The zero value is nobody: a peer in clear.
type Identity struct {
	Cluster string // trust domain
	Role    Role
	Name    string
}

// String is the SPIFFE ID; "" for nobody.
func (i Identity) String() string {
	if i == (Identity{}) {
		return ""
	}
	return i.uri().String()
}

func (i Identity) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: i.Cluster, Path: "/" + string(i.Role) + "/" + i.Name}
}

// validate fails with ErrIdentity unless all three parts are there and of the characters that SPIFFE allows.
func (i Identity) validate() error {
	switch {
	case !slices.Contains(Roles(), i.Role):
		return fmt.Errorf("role %q: must be one of %v: %w", i.Role, Roles(), ErrIdentity)
	case i.Cluster == "" || len(i.Cluster) > 255 || strings.Trim(i.Cluster, lower+digits+"._-") != "":
		return fmt.Errorf("cluster %q: must be of a-z, 0-9, dot, dash and underscore: %w", i.Cluster, ErrIdentity)
	case i.Name == "" || len(i.Name) > 255 || i.Name == "." || i.Name == ".." || strings.Trim(i.Name, lower+strings.ToUpper(lower)+digits+"._-") != "":
		return fmt.Errorf("name %q: must be of letters, digits, dot, dash and underscore: %w", i.Name, ErrIdentity)
	}
	return nil
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// IdentityOf is who c is for. It fails with ErrIdentity unless c has exactly one URI, and that is one of ours.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, fmt.Errorf("%d URIs in the certificate of %q, an identity is one: %w", len(c.URIs), c.Subject.CommonName, ErrIdentity)
	}
	u := c.URIs[0]
	role, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	i := Identity{u.Host, Role(role), name}
	if err := i.validate(); err != nil {
		return Identity{}, err
	}
	if u.String() != i.String() { // user, port, query, fragment, odd escapes
		return Identity{}, fmt.Errorf("%q: %w", u, ErrIdentity)
	}
	return i, nil
}
