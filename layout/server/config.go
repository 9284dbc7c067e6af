// Package server runs the layout service: a Raft store of the layout state machine, its gRPC service, and the
// reconfigurer, which takes the log from one epoch to the next.
//
// One goroutine of the leader, the manager, polls the members, decides what is to be done (judge) and does it
// (reconfiguration): Raft's order of commands is its only memory, so it can stop anywhere, and whoever leads next begins anew with a
// higher epoch (rules R13 to R18).
package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/layout"
)

// Config of a layout server. Dir is required.
type Config struct {
	ID      uint16 // of this server among the layout servers; default 1
	Dir     string // Raft's log and snapshots; it is made if it is missing
	Control string // host:port of the gRPC service; default 127.0.0.1:0, a free port

	// Raft is the host:port of Raft's own transport. A single server has nobody to talk to: the address is
	// checked and not opened.
	Raft string

	// Bootstrap describes the log to found: units, chains, sequencer, geometry, durability. Its epoch does not count; its log id
	// is made up if it is zero. Where the store has a log already that one stays, whatever Bootstrap says; only the control addresses
	// of members with the same ids are taken over from it, so that members may move.
	Bootstrap *layout.Layout

	Poll         time.Duration // how often the members are asked for their state, the heartbeat; default 100 ms
	FailAfter    time.Duration // without an answer a member counts as failed; default 5 × Poll. One that this leader never heard: 10 times as long
	MinReplicas  int           // no chain gets shorter by dropping units that failed; default one less than the longest chain at first, and at least 1
	RebuildRate  int           // bytes a second that are copied to a unit that takes over older positions; default 64 MiB
	CallTimeout  time.Duration // for a member to answer a call; default 10 s: a seal flushes what was published. For its state: at most 1 s
	StallTimeout time.Duration // for a reconciliation to make any progress; default 60 s

	Insecure      bool                // allow the control plane in clear outside loopback
	ServerOptions []grpc.ServerOption // credentials of the control service; none: in clear
	DialOptions   []grpc.DialOption   // credentials towards units and sequencer; none: in clear

	Registerer prometheus.Registerer // default: metrics are kept and not registered
	Logger     *slog.Logger          // default: discard
}

func (c Config) withDefaults() Config {
	c.ID = cmp.Or(c.ID, 1)
	c.Control = cmp.Or(c.Control, control.FreePort)
	c.Poll = cmp.Or(c.Poll, 100*time.Millisecond)
	c.FailAfter = cmp.Or(c.FailAfter, 5*c.Poll)
	c.RebuildRate = cmp.Or(c.RebuildRate, 64<<20)
	c.CallTimeout = cmp.Or(c.CallTimeout, 10*time.Second)
	c.StallTimeout = cmp.Or(c.StallTimeout, time.Minute)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Registerer = cmp.Or[prometheus.Registerer](c.Registerer, prometheus.NewRegistry())
	return c
}

// stateTimeout is how long a member may take to answer a heartbeat: two that it misses are enough to find out that it hangs.
func (c Config) stateTimeout() time.Duration { return min(c.CallTimeout, max(c.Poll, c.FailAfter/2)) }

// Validate reports every bad field.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no directory for the store"))
	}
	if c.Raft != "" {
		if _, _, err := net.SplitHostPort(c.Raft); err != nil {
			errs = append(errs, fmt.Errorf("raft address %q: %w", c.Raft, err))
		}
	}
	for name, d := range map[string]time.Duration{"poll interval": c.Poll, "time to failure": c.FailAfter, "call timeout": c.CallTimeout, "stall timeout": c.StallTimeout} {
		if d < time.Millisecond {
			errs = append(errs, fmt.Errorf("%s is %v: must be at least 1 ms", name, d))
		}
	}
	if c.FailAfter < c.Poll {
		errs = append(errs, fmt.Errorf("failed after %v without an answer: must be at least the poll interval, %v", c.FailAfter, c.Poll))
	}
	if c.MinReplicas < 0 || c.RebuildRate < 1 {
		errs = append(errs, fmt.Errorf("min replicas %d, rebuild rate %d: must not be negative", c.MinReplicas, c.RebuildRate))
	}
	if c.Bootstrap != nil {
		b := c.Bootstrap.Next(1, 0)
		if b.Log.IsZero() {
			b.Log[0] = 1
		}
		if err := b.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("bootstrap layout: %w", err))
		}
	}
	return errors.Join(errs...)
}
