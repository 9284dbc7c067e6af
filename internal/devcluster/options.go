package devcluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/certs"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	"corfu/rdma"
	"corfu/unit/flash"
	unitserver "corfu/unit/server"
)

// Options of a cluster. Of a directory that holds a cluster already, the shape (chains, replicas,
// geometry, durability) is the cluster's: zero fields take it, others must agree.
type Options struct {
	Device     rdma.Device // fabric of all members; nil: opened by Provider and DeviceName, and closed with the cluster
	Provider   string      // "auto" (default), "verbs" or "tcp"
	DeviceName string      // RDMA device; "": the first usable one

	Dir           string            // where everything durable lies; needed
	Control       string            // of the first layout server, host:port; default a free port on 127.0.0.1, or the one it had
	LayoutServers int               // layout servers: 1 (default), 3, 5 or 7
	Chains        int               // default 2; 1 to 64
	Replicas      int               // of each chain; default 2; 1 to 16
	Geometry      layout.Geometry   // default layout.DefaultGeometry
	Durability    layout.Durability // default layout.Flash

	// Flash are the options of the units' stores; SegmentPages is 1024 by default: nobody wants a toy to fill a disk with zeros.
	Flash flash.Options

	Spares   int // units that stand by, numbered behind those of the chains; default 0. Of a directory that holds a cluster: as many as it was made with
	Standbys int // sequencers that stand by, numbered from 2; likewise

	FailAfter   time.Duration // without an answer a member counts as failed; default 5 s: in one process none dies alone unless it is stopped
	MinReplicas int           // as of the layout server
	RebuildRate int           // as of the layout server

	// TLS gives each member its identity, and the cluster's own calls one of role admin. Nil: all in clear, on loopback.
	TLS func(role certs.Role, name string) (*certs.Source, error)

	Election time.Duration // of several layout servers: how long the leader may be silent; default the server's
	Poll     time.Duration // how often the layout server asks the members for their state; default the server's
	Ready    time.Duration // how long Start waits for the cluster to serve; default 1 min
	// Of tests and benchmarks: change what servers are started with; nil: nothing.
	Layouts func(*layoutserver.Config)
	Units   func(*unitserver.Config)

	Registerer prometheus.Registerer // of all members, units told apart by the label "unit", several layout servers by "server"; nil: none
	Logger     *slog.Logger          // nil: none
}

func (o Options) withDefaults() Options {
	if o.Provider == "" {
		o.Provider = "auto"
	}
	if o.Ready == 0 {
		o.Ready = time.Minute
	}
	if o.FailAfter == 0 {
		o.FailAfter = max(5*time.Second, 5*o.Poll)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}

// validate reports every bad field of a shape whose defaults are filled in.
func (s shape) validate() error {
	var errs []error
	if s.Chains < 1 || s.Chains > 64 {
		errs = append(errs, fmt.Errorf("%d chains: must be 1 to 64", s.Chains))
	}
	if s.Replicas < 1 || s.Replicas > 16 {
		errs = append(errs, fmt.Errorf("%d replicas: must be 1 to 16", s.Replicas))
	}
	if s.LayoutServers < 1 || s.LayoutServers > 7 || s.LayoutServers%2 == 0 {
		errs = append(errs, fmt.Errorf("%d layout servers: must be 1, 3, 5 or 7", s.LayoutServers))
	}
	if err := s.Geometry.Validate(); err != nil {
		errs = append(errs, err)
	}
	if s.Durability != layout.Flash && s.Durability != layout.Memory {
		errs = append(errs, fmt.Errorf("unknown durability %d", s.Durability))
	}
	return errors.Join(errs...)
}
