package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"corfu/internal/certs"
)

func (a *app) certsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "certs", Short: "Make and look at the certificates of a cluster", Args: cobra.NoArgs,
		Long: `Make and look at the certificates with which the processes of a cluster know each other.
Each names who it is for by one URI, spiffe://CLUSTER/ROLE/NAME, and the hosts under which
that one is dialled. Keys are ECDSA P-256, in files that their owner alone can read.
docs/security.md says which role may do what.`,
		Example: `  corfu certs init --dir ca
  corfu certs issue --dir ca --role unit --name unit-1 --host 10.0.0.4 --out certs
  corfu certs show certs/unit-1.crt
  corfu certs renew --dir ca certs/unit-1.crt
  corfu certs revoke --dir ca certs/reporting.crt`,
	}
	cmd.AddCommand(a.certsInitCommand(), a.certsIssueCommand(), a.certsRenewCommand(), a.certsRevokeCommand(), a.certsShowCommand(),
		a.certsCheckCommand())
	return cmd
}

// roleWords are the roles of certificates.
func roleWords() []string {
	var words []string
	for _, r := range certs.Roles() {
		words = append(words, string(r))
	}
	return words
}

func authorityFlag(f *pflag.FlagSet, dir *string) {
	f.StringVar(dir, "dir", "ca", "`directory` of the authority: "+certs.AuthorityCert+" and "+certs.AuthorityKey)
}

func (a *app) certsInitCommand() *cobra.Command {
	var dir, cluster string
	var life time.Duration
	var force bool
	cmd := &cobra.Command{
		Use: "init", Short: "Make an authority for a cluster", Args: cobra.NoArgs,
		Long: `Make an authority for a cluster: ` + certs.AuthorityCert + `, which all processes get, and ` + certs.AuthorityKey + `, which signs
certificates and belongs on no machine of the cluster.`,
		Example: "  corfu certs init --dir ca --cluster corfu",
	}
	f := cmd.Flags()
	authorityFlag(f, &dir)
	f.StringVar(&cluster, "cluster", "corfu", "`name` of the cluster; certificates of another cluster are refused")
	f.DurationVar(&life, "life", certs.AuthorityLife, "how long it is good for")
	f.BoolVar(&force, "force", false, "replace an authority that is there: nothing that it signed fits the new one")
	cmd.RunE = a.body(func(context.Context, []string) error {
		p, err := certs.Init(cluster, time.Now(), life)
		if err != nil {
			return &usageError{err}
		}
		cert := filepath.Join(dir, certs.AuthorityCert)
		if err := p.Write(cert, filepath.Join(dir, certs.AuthorityKey), force); err != nil {
			return err
		}
		return a.printCerts([]string{cert})
	})
	return cmd
}

func (a *app) certsIssueCommand() *cobra.Command {
	var dir, role, name, out string
	var hosts []string
	var life time.Duration
	var force bool
	cmd := &cobra.Command{
		Use: "issue", Short: "Make a certificate for a process or an operator", Args: cobra.NoArgs,
		Long: `Make a certificate and its key, NAME.crt and NAME.key, beside the authority's certificate. Those of
layout servers, sequencers and units name the hosts under which they are dialled.`,
		Example: `  corfu certs issue --role layout --name layout-1 --host 10.0.0.1 --out certs
  corfu certs issue --role client --name reporting --life 720h --out certs`,
	}
	f := cmd.Flags()
	authorityFlag(f, &dir)
	f.StringVar(&role, "role", "", "the `role` of the process: "+strings.Join(roleWords(), ", "))
	f.StringVar(&name, "name", "", "`name` of the process, another one for each")
	f.StringArrayVar(&hosts, "host", nil, "`name or IP address` under which others dial it; once for each")
	f.StringVar(&out, "out", "", "`directory` for the files (default: --dir)")
	f.DurationVar(&life, "life", certs.LeafLife, "how long it is good for; never longer than the authority")
	f.BoolVar(&force, "force", false, "replace files that are there")
	cmd.RunE = a.body(func(context.Context, []string) error {
		if role == "" || name == "" {
			return usagef("certs issue needs --role and --name")
		}
		authority, err := certs.OpenAuthority(dir)
		if err != nil {
			return err
		}
		p, err := authority.Issue(certs.Role(role), name, hosts, time.Now(), life)
		if err != nil {
			return &usageError{err}
		}
		if out == "" {
			out = dir
		}
		cert := filepath.Join(out, name+".crt")
		if err := p.Write(cert, keyOf(cert), force); err != nil {
			return err
		}
		if err := errors.Join(copyAuthority(dir, out), copyList(authority, dir, out)); err != nil {
			return err
		}
		return a.printCerts([]string{cert})
	})
	return cmd
}

// copyList puts the authority's revocation list, if it has one, beside the certificates that it signed, in place of an older one.
func copyList(authority *certs.Authority, from, to string) error {
	list, err := authority.ReadList(filepath.Join(from, certs.RevocationList))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return certs.WriteList(filepath.Join(to, certs.RevocationList), list)
}

// copyAuthority puts the authority's certificate beside those that it signed, unless one is there.
func copyAuthority(from, to string) error {
	b, err := os.ReadFile(filepath.Join(from, certs.AuthorityCert))
	if err != nil {
		return err
	}
	path := filepath.Join(to, certs.AuthorityCert)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// keyOf is where the key of a certificate's file is.
func keyOf(cert string) string { return strings.TrimSuffix(cert, ".crt") + ".key" }

func (a *app) certsRenewCommand() *cobra.Command {
	var dir string
	var within time.Duration
	cmd := &cobra.Command{
		Use: "renew FILE.crt...", Short: "Make certificates anew, for the same names and hosts", Args: cobra.MinimumNArgs(1),
		Long: `Make certificates anew: for the same names, roles and hosts, as long as before, each with a new key. FILE.crt and FILE.key
are replaced. Daemons take them over without a restart, by themselves: from then on connections are made with them.`,
		Example: "  corfu certs renew --dir ca certs/*.crt --within 720h",
	}
	authorityFlag(cmd.Flags(), &dir)
	cmd.Flags().DurationVar(&within, "within", 0, "only those that end within this `time` (default: all)")
	cmd.RunE = a.body(func(_ context.Context, files []string) error {
		authority, err := certs.OpenAuthority(dir)
		if err != nil {
			return err
		}
		var done []string
		for _, path := range files {
			c, err := certs.ReadCert(path)
			if err != nil {
				return err
			}
			if c.IsCA || within > 0 && time.Until(c.NotAfter) > within {
				continue
			}
			p, err := authority.Renew(c, time.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if err := p.Write(path, keyOf(path), true); err != nil {
				return err
			}
			done = append(done, path)
		}
		if len(done) == 0 && !a.json() {
			_, err := fmt.Fprintln(a.stdout, "nothing to renew")
			return err
		}
		return a.printCerts(done)
	})
	return cmd
}

func (a *app) certsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE.crt...", Short: "Say whom certificates are for, and how long they are good", Args: cobra.MinimumNArgs(1),
		Long:    "Say whom certificates are for, and how long they are good. Exit status 1 if one is over.",
		Example: "  corfu certs show certs/*.crt",
		RunE: a.body(func(_ context.Context, files []string) error {
			if err := a.printCerts(files); err != nil {
				return err
			}
			for _, path := range files {
				if c, err := certs.ReadCert(path); err == nil && time.Now().After(c.NotAfter) {
					return fmt.Errorf("%s ended at %s: renew it (corfu certs renew)", path, c.NotAfter.Format(time.RFC3339))
				}
			}
			return nil
		}),
	}
}

func (a *app) certsCheckCommand() *cobra.Command {
	var ca, crl, role, host string
	cmd := &cobra.Command{
		Use: "check FILE.crt", Short: "Say whether a daemon could work with a certificate and its key", Args: cobra.ExactArgs(1),
		Long: `Say whether a daemon could work with a certificate and its key, FILE.key: that they fit each other, are of the authority in
` + certs.AuthorityCert + ` beside them, of the role, for the host, not over, and not on the revocation list if one is named. One line and exit status 1 if not. corfu-setup asks this
before it changes a machine.`,
		Example: "  corfu certs check --role unit --host 10.0.0.4 certs/unit-1.crt",
	}
	f := cmd.Flags()
	f.StringVar(&ca, "ca", "", "`file` of the authorities (default: "+certs.AuthorityCert+" beside FILE.crt)")
	f.StringVar(&crl, "crl", "", "`file` of the revocation lists")
	f.StringVar(&role, "role", "", "the `role` that it must be of: "+strings.Join(roleWords(), ", "))
	f.StringVar(&host, "host", "", "`name or IP address` under which others dial it")
	cmd.RunE = a.body(func(_ context.Context, args []string) error {
		path := args[0]
		if _, err := certs.ReadCert(path); err != nil {
			return err
		}
		if ca == "" {
			ca = filepath.Join(filepath.Dir(path), certs.AuthorityCert)
		}
		s, err := certs.Load(certs.Files{CA: ca, Cert: path, Key: keyOf(path), CRL: crl}, a.logger(true))
		if err != nil {
			return err
		}
		if s.Revoked() {
			return fmt.Errorf("%s is revoked: everybody turns it away (corfu certs issue makes another)", path)
		}
		if has := s.Identity().Role; role != "" && has != certs.Role(role) {
			return fmt.Errorf("%s is the certificate of role %s: this takes one of role %s (corfu certs issue --role %s)", path, has, role, role)
		}
		if host != "" {
			c, err := certs.ReadCert(path)
			if err != nil {
				return err
			}
			if err := c.VerifyHostname(host); err != nil {
				return fmt.Errorf("%s is for the hosts %s, and others dial %s (corfu certs issue --host %s)", path,
					strings.Join(certs.Hosts(c), ", "), host, host)
			}
		}
		return a.printCerts(args)
	})
	return cmd
}

// certJSON is a certificate as scripts read it.
type certJSON struct {
	File      string    `json:"file"`
	Identity  string    `json:"identity"`
	Authority bool      `json:"authority,omitempty"`
	Hosts     []string  `json:"hosts,omitempty"`
	From      time.Time `json:"from"`
	Until     time.Time `json:"until"`
	Serial    string    `json:"serial"`
}

func describeCert(path string, c *x509.Certificate) (certJSON, error) {
	j := certJSON{File: path, Authority: c.IsCA, Hosts: certs.Hosts(c), From: c.NotBefore, Until: c.NotAfter, Serial: c.SerialNumber.Text(16)}
	if c.IsCA {
		if len(c.URIs) == 1 {
			j.Identity = c.URIs[0].String()
		}
		return j, nil
	}
	id, err := certs.IdentityOf(c)
	if err != nil {
		return j, fmt.Errorf("%s: %w", path, err)
	}
	j.Identity = id.String()
	return j, nil
}

func (a *app) printCerts(files []string) error {
	list := []certJSON{}
	rows := [][]string{{"FILE", "IDENTITY", "HOSTS", "UNTIL", "SERIAL"}}
	for _, path := range files {
		c, err := certs.ReadCert(path)
		if err != nil {
			return err
		}
		j, err := describeCert(path, c)
		if err != nil {
			return err
		}
		list = append(list, j)
		days := fmt.Sprintf("%s (%d days)", j.Until.Format(time.DateOnly), int(time.Until(j.Until).Hours()/24))
		rows = append(rows, []string{path, j.Identity, strings.Join(j.Hosts, ","), days, j.Serial})
	}
	if a.json() {
		return a.printJSON(list)
	}
	return a.printTable(rows)
}
