package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"corfu/client"
	"corfu/internal/certs"
	"corfu/internal/control"
)

// tlsConfig names the files of a process's identity, in configuration files.
type tlsConfig struct {
	CA   string `yaml:"ca" flag:"tls-ca"`     // authorities whose certificates are good, PEM
	Cert string `yaml:"cert" flag:"tls-cert"` // the process's own certificate, PEM
	Key  string `yaml:"key" flag:"tls-key"`   // its key, PEM, which nobody else may read
	CRL  string `yaml:"crl" flag:"tls-crl"`   // revocation lists of the authorities, PEM; none: nobody is revoked
}

// Environment variables for what no flag says.
const (
	envTLSCA   = "CORFU_TLS_CA"
	envTLSCert = "CORFU_TLS_CERT"
	envTLSKey  = "CORFU_TLS_KEY"
	envTLSCRL  = "CORFU_TLS_CRL"
)

// tlsFiles are those of the flags, else of the environment, else of the configuration file.
func (a *app) tlsFiles(c tlsConfig) (certs.Files, error) {
	f := certs.Files{
		CA:   cmp.Or(a.tls.CA, os.Getenv(envTLSCA), c.CA),
		Cert: cmp.Or(a.tls.Cert, os.Getenv(envTLSCert), c.Cert),
		Key:  cmp.Or(a.tls.Key, os.Getenv(envTLSKey), c.Key),
		CRL:  cmp.Or(a.tls.CRL, os.Getenv(envTLSCRL), c.CRL),
	}
	if f.Validate() != nil {
		return f, usagef("TLS takes --tls-ca, --tls-cert and --tls-key (or %s, %s and %s): of the three some are missing", envTLSCA, envTLSCert, envTLSKey)
	}
	return f, nil
}

// serverIdentity loads the certificate of a daemon, which must be of its role. Nil: none is configured.
func (a *app) serverIdentity(c tlsConfig, role certs.Role) (*certs.Source, error) {
	f, err := a.tlsFiles(c)
	if err != nil || f.IsZero() {
		return nil, err
	}
	s, err := certs.Load(f, a.logger(false))
	if err != nil {
		return nil, err
	}
	if has := s.Identity().Role; has != role {
		return nil, usagef("%s is the certificate of role %s: this takes one of role %s (corfu certs issue --role %s)", f.Cert, has, role, role)
	}
	return s, nil
}

// userIdentity is the identity with which commands talk to the cluster c. Zero: in clear, as always to one of corfu dev.
func (a *app) userIdentity(c clusterFile) (client.TLS, error) {
	if c.PID != 0 && a.tls.IsZero() {
		return client.TLS{}, nil
	}
	f, err := a.tlsFiles(c.TLS)
	if err == nil && !f.IsZero() {
		err = readable(f.Key)
	}
	return client.TLS(f), err
}

// readable says what to do to a user whom a key is not for.
func readable(key string) error {
	f, err := os.Open(key)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: it is for its owner and its group alone (the machine's own: corfu-client); --tls-cert and --tls-key name another", err)
	} else if err != nil {
		return err
	}
	return f.Close()
}

// dialOptions are credentials for the control plane of the cluster c.
func (a *app) dialOptions(c clusterFile) ([]grpc.DialOption, error) {
	f, err := a.userIdentity(c)
	if err != nil || certs.Files(f).IsZero() {
		return nil, err
	}
	s, err := certs.Load(certs.Files(f), a.logger(true))
	return control.DialOptions(s), err
}

// registerTLS shows how long a daemon's certificate is good, and what became of new ones.
func registerTLS(r prometheus.Registerer, s *certs.Source) {
	if s == nil {
		return
	}
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_tls_certificate_expiry_timestamp_seconds",
			Help: "When this process's certificate ends, as Unix time."}, func() float64 { return float64(s.NotAfter().Unix()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_tls_reloads_total",
			Help: "New certificates taken over from the files."}, func() float64 { n, _ := s.Reloads(); return float64(n) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_tls_reload_failures_total",
			Help: "Attempts to take over new certificates that failed; those before stay in use."}, func() float64 { _, n := s.Reloads(); return float64(n) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_tls_refused_handshakes_total",
			Help: "TLS handshakes of peers that this server refused: without a certificate of this cluster, or none that is good. The log names them."},
			func() float64 { return float64(s.HandshakesRefused()) }),
	)
	if _, ok := s.Revocations(); !ok {
		return
	}
	revocations := func() certs.Revocations { r, _ := s.Revocations(); return r }
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_tls_crl_next_update_timestamp_seconds",
			Help: "When a new revocation list ought to be there, as Unix time. The old one stays in force. Without tls.crl: not shown."}, func() float64 { return float64(revocations().Until.Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "corfu_tls_crl_entries",
			Help: "Certificates on the revocation lists in force. Without tls.crl: not shown."}, func() float64 { return float64(revocations().Listed) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "corfu_tls_revoked_peers_total",
			Help: "Handshakes of revoked certificates that were refused, and connections and sessions of theirs that were ended. Without tls.crl: not shown."}, func() float64 { return float64(revocations().Refused) }),
	)
}
