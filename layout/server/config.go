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

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/layout"
	"corfu/rdma"
)

// Config of a layout server. Dir is required, unless Consensus is set.
type Config struct {
	ID      uint16 // of this server among the layout servers; default 1
	Dir     string // Raft's log and snapshots; it is made if it is missing
	Control string // host:port of the gRPC service; default what Servers says of this one, else 127.0.0.1:0, a free port

	// Servers are all layout servers of the log, this one included: three, five or seven, the same at each of them. None, or this
	// one alone: a single server. Who belongs to them is fixed once the store was made; their addresses may change.
	Servers []Peer

	// Raft is the host:port that the other servers reach this one at; default what Servers says. A single server
	// has nobody to talk to: the address is checked and not opened.
	Raft string

	// Listeners that are open already, in place of Control and Raft; they are the server's from Start on, even if it fails.
	ControlListener, RaftListener net.Listener

	// Election is how long the leader may be silent before another is elected, 20 ms or more; default 200 ms. All of Raft's
	// time-outs follow from it. A new leader is there after about twice that. Of no use to a single server.
	Election time.Duration

	// Bootstrap describes the log to found: units, chains, sequencer, geometry, durability. Its epoch does not count; its log id
	// is made up if it is zero. Where the store has a log already that one stays, whatever Bootstrap says; only the control addresses on which
	// all layout servers agree are taken over from it, for members with the same ids, so that members may move.
	Bootstrap *layout.Layout

	// Consensus puts the store's commands in order. Nil: Raft, in Dir. A simulation brings its own, whose leaders overlap when it wants.
	Consensus func(raft.FSM) (Consensus, error)

	Poll         time.Duration // how often the members are asked for their state, the heartbeat; default 100 ms
	FailAfter    time.Duration // without an answer a member counts as failed; default 5 × Poll. One that this leader never heard: a Poll longer, or 10 times as long while a whole cluster starts
	RestartGrace time.Duration // how long a member is waited for that was stopped on purpose; default 5 s. Below FailAfter: as one that failed
	MinReplicas  int           // no chain gets shorter by dropping units that failed; default one less than the longest chain at first, and at least 1
	RebuildRate  int           // bytes a second that are copied to a unit that takes over older positions; default 64 MiB
	CallTimeout  time.Duration // for a member to answer a call; default 10 s: a seal flushes what was published. For its state: half of FailAfter, or Poll
	StallTimeout time.Duration // for a reconciliation to make any progress; default 60 s

	// Device is the fabric over which members are sealed, besides the control plane; it stays the caller's. Nil: by the control plane alone.
	Device rdma.Device

	Insecure    bool              // allow the control plane and Raft in clear outside loopback
	TLS         *certs.Source     // of the control service, of Raft, and towards units and sequencers, as role layout; nil: in clear
	DialOptions []grpc.DialOption // towards units and sequencers, in place of what TLS says

	Registerer prometheus.Registerer // default: metrics are kept and not registered
	Logger     *slog.Logger          // default: discard

	network func(raft.StreamLayer) raft.StreamLayer // of tests: puts faults between Raft and TCP
	openLog func(path string) (logStore, error)     // of tests: puts faults between Raft and its file; nil: openBolt
}

func (c Config) withDefaults() Config {
	c.ID = cmp.Or(c.ID, 1)
	me, _ := c.peer(c.ID)
	c.Control = cmp.Or(c.Control, me.Control, control.FreePort)
	c.Raft = cmp.Or(c.Raft, me.Raft)
	c.Election = cmp.Or(c.Election, 200*time.Millisecond)
	if c.DialOptions == nil {
		c.DialOptions = control.DialOptions(c.TLS)
	}
	c.Poll = cmp.Or(c.Poll, 100*time.Millisecond)
	c.FailAfter = cmp.Or(c.FailAfter, 5*c.Poll)
	c.RestartGrace = cmp.Or(c.RestartGrace, defaultRestartGrace)
	c.RebuildRate = cmp.Or(c.RebuildRate, 64<<20)
	c.CallTimeout = cmp.Or(c.CallTimeout, 10*time.Second)
	c.StallTimeout = cmp.Or(c.StallTimeout, time.Minute)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Registerer = cmp.Or[prometheus.Registerer](c.Registerer, prometheus.NewRegistry())
	return c
}

// stateTimeout is how long a member may take to answer a heartbeat: two that it misses are enough to find out that it hangs.
func (c Config) stateTimeout() time.Duration { return min(c.CallTimeout, max(c.Poll, c.FailAfter/2)) }

// hangTimeout is how long a member may take to do what is little work, such as to open an epoch.
func (c Config) hangTimeout() time.Duration { return min(c.CallTimeout, hangFactor*c.FailAfter) }

// Validate reports every bad field. What is not set counts as its default.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.Dir == "" && c.Consensus == nil {
		errs = append(errs, errors.New("no directory for the store"))
	}
	errs = append(errs, c.validateServers()...)
	if c.Election < minElection {
		errs = append(errs, fmt.Errorf("election time-out is %v: must be at least %v", c.Election, minElection))
	}
	for name, d := range map[string]time.Duration{"heartbeat": c.Poll, "time to failure": c.FailAfter, "call timeout": c.CallTimeout, "stall timeout": c.StallTimeout, "restart grace": c.RestartGrace} {
		if d < time.Millisecond {
			errs = append(errs, fmt.Errorf("%s is %v: must be at least 1 ms", name, d))
		}
	}
	if c.FailAfter < c.Poll {
		errs = append(errs, fmt.Errorf("failed after %v without an answer: must be at least the heartbeat, %v", c.FailAfter, c.Poll))
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
