package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"corfu/internal/certs"
)

func (a *app) certsRevokeCommand() *cobra.Command {
	var dir string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "revoke [FILE.crt|SERIAL...]", Short: "Take certificates back, before they end", Args: cobra.ArbitraryArgs,
		Long: `Take certificates back, by their files or their serial numbers (as certs show prints them): they go
on the authority's revocation list, ` + certs.RevocationList + ` beside ` + certs.AuthorityCert + `, which is made if there is none. Copy the list
to where tls.crl (--tls-crl) of the daemons and clients says: they take it over by themselves, turn such
certificates away and end what these have open. Nothing leaves the list.

Without a certificate: the list is signed anew, as it must be before it is too old.`,
		Example: `  corfu certs revoke --dir ca certs/reporting.crt
  corfu certs revoke --dir ca 2f3a9c81d0474be65a9f2c1e77c0b3d4
  corfu certs revoke --dir ca`,
	}
	authorityFlag(cmd.Flags(), &dir)
	cmd.Flags().DurationVar(&life, "life", certs.ListLife, "how long until there must be a new list; the alert comes a week before")
	cmd.RunE = a.body(func(_ context.Context, args []string) error {
		authority, err := certs.OpenAuthority(dir)
		if err != nil {
			return err
		}
		var serials []*big.Int
		for _, arg := range args {
			n, err := serialOf(authority, arg)
			if err != nil {
				return err
			}
			serials = append(serials, n)
		}
		path := filepath.Join(dir, certs.RevocationList)
		before, err := authority.ReadList(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		list, err := authority.Revoke(before, serials, time.Now(), life)
		if err != nil {
			return &usageError{err}
		}
		if err := certs.WriteList(path, list); err != nil {
			return err
		}
		return a.printList(path, list)
	})
	return cmd
}

// serialOf is the number of the certificate in a file, or what was typed, in hexadecimal, with or without colons.
func serialOf(authority *certs.Authority, arg string) (*big.Int, error) {
	if _, err := os.Stat(arg); err == nil {
		c, err := certs.ReadCert(arg)
		if err == nil {
			err = authority.Issued(c)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		return c.SerialNumber, nil
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(arg, ":", ""), 16)
	if !ok || n.Sign() <= 0 || n.BitLen() > 160 { // RFC 5280, 4.1.2.2
		return nil, usagef("%s: neither the file of a certificate nor a serial number in hexadecimal (corfu certs show)", arg)
	}
	return n, nil
}

// listJSON is a revocation list as scripts read it.
type listJSON struct {
	File    string        `json:"file"`
	Number  string        `json:"number"`
	Until   time.Time     `json:"until"`
	Revoked []revokedJSON `json:"revoked"`
}

type revokedJSON struct {
	Serial string    `json:"serial"`
	Since  time.Time `json:"since"`
}

func (a *app) printList(path string, l *x509.RevocationList) error {
	j := listJSON{path, l.Number.String(), l.NextUpdate, []revokedJSON{}}
	rows := [][]string{{"SERIAL", "REVOKED"}}
	for _, e := range l.RevokedCertificateEntries {
		j.Revoked = append(j.Revoked, revokedJSON{e.SerialNumber.Text(16), e.RevocationTime})
		rows = append(rows, []string{e.SerialNumber.Text(16), e.RevocationTime.Format(time.RFC3339)})
	}
	if a.json() {
		return a.printJSON(j)
	}
	if _, err := fmt.Fprintf(a.stdout, "%s: list %s, %d revoked; the next one is due by %s\n", path, j.Number, len(j.Revoked), j.Until.Format(time.DateOnly)); err != nil || len(rows) == 1 {
		return err
	}
	return a.printTable(rows)
}
