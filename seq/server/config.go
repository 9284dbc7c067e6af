// Package server runs a sequencer: its word in registered memory, the sessions of clients that FETCH_ADD it, and the
// control service that seals and activates it.
//
// The path of a token does not pass through this process's code: the NIC (or the software provider) executes it. What the
// server does is open and revoke: a seal makes the promise durable, revokes the word, ends all connections, and then answers.
package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/layout"
	"corfu/rdma"
	"github.com/prometheus/client_golang/prometheus"
)

// Config of a sequencer. ID and Device are required.
type Config struct {
	ID      layout.SequencerID
	Device  rdma.Device
	Control string // host:port of the gRPC service; default 127.0.0.1:0, a free port
	Fabric  string // host:port that clients dial for the word; default: a free port of the device's address

	// Advertise is the host, or host:port, that clients are told to dial; default: where the fabric listens, with the device's address in place
	// of one that stands for all.
	Advertise string

	// Dir keeps the promise over a restart; it is made if it is missing. Without it a restarted sequencer has promised
	// nothing: it stays closed until the layout service seals it anew.
	Dir string

	TokenLife     time.Duration // how long a session's token is good for; default 10 s
	MaxSessions   int           // connections and unused tokens at a time; default 8192
	MaxOfIdentity int           // of them, those of one identity; default half of MaxSessions. In clear nobody has one

	Listener net.Listener  // of the gRPC service, instead of one at Control; it is closed with the server
	Insecure bool          // allow the control plane in clear outside loopback
	TLS      *certs.Source // of the control service, as role seq; nil: in clear

	Registerer prometheus.Registerer // default: metrics are kept and not registered
	Logger     *slog.Logger          // default: discard
}

func (c Config) withDefaults() Config {
	c.Control = cmp.Or(c.Control, control.FreePort)
	c.Fabric = cmp.Or(c.Fabric, ":0")
	c.TokenLife = cmp.Or(c.TokenLife, 10*time.Second)
	c.MaxSessions = cmp.Or(c.MaxSessions, 8192)
	c.MaxOfIdentity = cmp.Or(c.MaxOfIdentity, max(1, c.MaxSessions/2))
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Registerer = cmp.Or[prometheus.Registerer](c.Registerer, prometheus.NewRegistry())
	return c
}

// Validate reports every bad field.
func (c Config) Validate() error {
	var errs []error
	if c.ID == 0 {
		errs = append(errs, errors.New("sequencer id is 0: must be 1 or more"))
	}
	if c.Device == nil {
		errs = append(errs, errors.New("no fabric device"))
	}
	if c.TokenLife < 0 {
		errs = append(errs, fmt.Errorf("token life is %v: must be positive", c.TokenLife))
	}
	if c.MaxSessions < 0 || c.MaxOfIdentity < 0 {
		errs = append(errs, fmt.Errorf("max sessions is %d, of one identity %d: must be positive", c.MaxSessions, c.MaxOfIdentity))
	}
	return errors.Join(errs...)
}
