package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit/flash"
)

// Config of a unit. ID, Dir and Device are required.
type Config struct {
	ID      layout.UnitID
	Dir     string // of the flash store, made if it is missing, or a block device; it belongs to this unit for ever
	Device  rdma.Device
	Control string // host:port of the gRPC service; default 127.0.0.1:0, a free port
	Fabric  string // host:port that clients dial; default: a free port of the device's address

	// Advertise is the host, or host:port, that clients are told to dial; default: where the fabric listens, with the device's address in place
	// of one that stands for all.
	Advertise string

	Flash flash.Options

	TokenLife     time.Duration // how long a session may take to connect; default 10 s
	MaxOfIdentity int           // sessions of one identity; default half of what the log's geometry has. In clear nobody has one
	ColdReaders   int           // cold reads at a time, with a page of memory each; default 16, 1 to 256

	// ScanBusy and ScanIdle are how often the index is searched for words of which no doorbell told, while
	// something happened in the last 100 ms, and otherwise. Default 2 ms and 20 ms.
	ScanBusy, ScanIdle time.Duration

	// Gather is how long pages wait for company before they are written to flash, under memory durability alone, where no
	// append waits for that: larger writes leave the processor to the clients. Default 20 ms. Half a session's staging
	// slots end the wait, so that credits do not run out.
	Gather time.Duration

	// ScrubRate is how many bytes per second a scrub reads at most; default 8 MiB/s, below 0: none begins by itself.
	// ScrubEvery is how long after the end of one the next begins; default a week. The first begins at once.
	ScrubRate  int64
	ScrubEvery time.Duration

	Listener net.Listener  // of the gRPC service, instead of one at Control; it is closed with the server
	Insecure bool          // allow the control plane in clear outside loopback
	TLS      *certs.Source // of the control service, as role unit; nil: in clear

	Registerer prometheus.Registerer // default: metrics are kept and not registered
	Logger     *slog.Logger          // default: discard
}

func (c Config) withDefaults() Config {
	c.Control = cmp.Or(c.Control, control.FreePort)
	c.Fabric = cmp.Or(c.Fabric, ":0")
	c.TokenLife = cmp.Or(c.TokenLife, 10*time.Second)
	c.ColdReaders = cmp.Or(c.ColdReaders, 16)
	c.ScanBusy = cmp.Or(c.ScanBusy, 2*time.Millisecond)
	c.ScanIdle = cmp.Or(c.ScanIdle, 20*time.Millisecond)
	c.Gather = cmp.Or(c.Gather, 20*time.Millisecond)
	c.ScrubRate = cmp.Or(c.ScrubRate, DefaultScrubRate)
	c.ScrubEvery = cmp.Or(c.ScrubEvery, DefaultScrubEvery)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Registerer = cmp.Or[prometheus.Registerer](c.Registerer, prometheus.NewRegistry())
	return c
}

// Validate reports every bad field.
func (c Config) Validate() error {
	var errs []error
	if c.ID == 0 {
		errs = append(errs, errors.New("unit id is 0: must be 1 or more"))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("no directory"))
	}
	if c.Device == nil {
		errs = append(errs, errors.New("no fabric device"))
	}
	if c.ColdReaders < 1 || c.ColdReaders > 256 {
		errs = append(errs, fmt.Errorf("%d cold readers: must be 1 to 256", c.ColdReaders))
	}
	if c.MaxOfIdentity < 0 {
		errs = append(errs, fmt.Errorf("max sessions of one identity is %d: must be positive", c.MaxOfIdentity))
	}
	if c.TokenLife < 0 || c.ScanBusy < 0 || c.ScanIdle < 0 || c.Gather < 0 || c.ScrubEvery < 0 {
		errs = append(errs, errors.New("times must be positive"))
	}
	return errors.Join(errs...)
}
