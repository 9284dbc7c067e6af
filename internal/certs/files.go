package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files name the PEM files of a process. The zero value: no TLS.
type Files struct {
	CA   string // authorities whose certificates are good; several while they change
	Cert string // the process's own certificate, those that lead to the authority behind it
	Key  string // of Cert; for its owner alone, or its group as well
	CRL  string // revocation lists of the authorities; "": nobody is revoked
}

// IsZero tells whether no file is named.
func (f Files) IsZero() bool { return f == Files{} }

// Validate fails unless CA, certificate and key are named, or no file at all.
func (f Files) Validate() error {
	if !f.IsZero() && (f.CA == "" || f.Cert == "" || f.Key == "") {
		return errors.New("TLS needs all three of CA, certificate and key")
	}
	return nil
}

// Write writes a pair to two files, the key for its owner alone. Files that are there stay, and are an error, unless force is set. Each is
// replaced in one step, the key first: who reads them in between sees that they do not fit, and reads again.
func (p Pair) Write(cert, key string, force bool) error {
	if !force {
		for _, path := range []string{cert, key} {
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s is there already: --force replaces it", path)
			}
		}
	}
	if err := writeFile(key, p.Key, 0o600, force); err != nil {
		return err
	}
	return writeFile(cert, p.Cert, 0o644, force)
}

func writeFile(path string, b []byte, mode fs.FileMode, force bool) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // made with 0600
	if err != nil {
		return err
	}
	defer func() {
		if e := os.Remove(f.Name()); err == nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if force {
		return os.Rename(f.Name(), path)
	}
	return os.Link(f.Name(), path) // fails where somebody else was quicker
}

// ReadCert reads the certificate that stands first in a file.
func ReadCert(path string) (*x509.Certificate, error) {
	all, err := readCerts(path)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// readCerts reads all certificates of a file; at least one.
func readCerts(path string) ([]*x509.Certificate, error) {
	return readPEM(path, "CERTIFICATE", "no PEM certificate in it", x509.ParseCertificate)
}

// readPEM reads all blocks of a type in a file; at least one, else none says why not.
func readPEM[T any](path, kind, none string, parse func([]byte) (T, error)) (all []T, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != kind {
			continue
		}
		x, err := parse(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, x)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: %s", path, none)
	}
	return all, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := private(path); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM key in it", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an ECDSA key", path)
	}
	return key, nil
}

// private refuses a key that others than its owner and its group can read, or that others than its owner can write.
func private(path string) error {
	s, err := os.Stat(path)
	if err != nil {
		return err
	}
	if m := s.Mode().Perm(); m&0o037 != 0 {
		return fmt.Errorf("%s has mode %#o: a key is for its owner, and for its group to read at most (chmod 600 or 640)", path, m)
	}
	return nil
}
