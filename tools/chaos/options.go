package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// options are those of a run.
type options struct {
	seed      uint64
	faulty    time.Duration // how long faults go on
	corfu     string        // the program
	dir       string        // where logs and histories go
	keep      bool
	provider  string
	addr      string // with plain: the address of all; "": each has its own on loopback
	plain     bool   // no namespaces
	small     bool   // one layout server, sequencer and chain: for the lab
	faults    []string
	past      pastMode // how far stores may go back
	failAfter time.Duration
	pace      time.Duration
	retain    uint64        // positions that are left when older ones are trimmed
	patience  time.Duration // how long the cluster may take to become whole
}

const (
	perSecond    = 400   // positions that a run appends, about
	mostRetained = 60000 // positions: less than half of the disks of all chains (storeBytes)
)

func parseOptions(args []string) (o options, err error) {
	var minutes float64
	var seconds int
	var only, past string
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.Uint64Var(&o.seed, "seed", 0, "of the shape of the cluster, the faults and the moments (default: a new one)")
	f.Float64Var(&minutes, "minutes", 5, "how long faults go on")
	f.IntVar(&seconds, "seconds", 0, "the same in seconds")
	f.StringVar(&o.corfu, "corfu", "bin/corfu", "the `program`")
	f.StringVar(&o.dir, "dir", "", "`directory` for logs and histories (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the directory; it is kept after a failure anyway")
	f.StringVar(&o.provider, "provider", "tcp", "fabric `provider`")
	f.BoolVar(&o.plain, "plain", false, "no namespaces, and so no partitions and no full disks")
	f.StringVar(&o.addr, "addr", "", "with -plain: the `address` of all members (default: one of 127.0.0.0/8 for each)")
	f.BoolVar(&o.small, "small", false, "one layout server, one sequencer and one chain of two units")
	f.StringVar(&only, "faults", "", "only these kinds of `faults`, comma-separated, of "+strings.Join(faultNames(), ", "))
	f.StringVar(&past, "past", string(pastWithin), "how far stores go back, a `mode`: off, within what is promised, or beyond it")
	f.DurationVar(&o.failAfter, "fail-after", 0, "as of corfu layout (default: drawn)")
	f.DurationVar(&o.pace, "pace", 12*time.Millisecond, "how long an appender or reader rests between two operations, on average")
	f.Uint64Var(&o.retain, "retain", 0, "how many `positions` are left when older ones are trimmed (default: half of what a short run appends; 60000 at most)")
	f.DurationVar(&o.patience, "patience", 90*time.Second, "how long the cluster may take to become whole once everything is healed")
	if err := f.Parse(args); err != nil {
		if err == flag.ErrHelp {
			return o, err
		}
		return o, &usageError{err}
	}
	o.faulty = time.Duration(minutes * float64(time.Minute))
	if seconds > 0 {
		o.faulty = time.Duration(seconds) * time.Second
	}
	if o.retain == 0 {
		o.retain = min(mostRetained, uint64(perSecond/2*o.faulty.Seconds()))
	}
	if o.past = pastMode(past); !slices.Contains([]pastMode{pastOff, pastWithin, pastBeyond}, o.past) {
		return o, usagef("-past %q: it is off, within or beyond", past)
	}
	for o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	for _, name := range strings.Split(only, ",") {
		if name == "" {
			continue
		}
		if !slices.Contains(faultNames(), name) {
			return o, usagef("no fault is named %q: there are %s", name, strings.Join(faultNames(), ", "))
		}
		past := faults[slices.IndexFunc(faults, func(f fault) bool { return f.name == name })].past
		if past == pastWithin && o.past == pastOff || past == pastBeyond && o.past != pastBeyond {
			return o, usagef("the fault %s needs -past %s", name, past)
		}
		o.faults = append(o.faults, name)
	}
	if f.NArg() > 0 || o.faulty <= 0 || o.faulty > 2*time.Hour {
		return o, usagef("faults must go on for a time above zero, two hours at most; there are no arguments")
	}
	return o, nil
}

// shape is what a cluster is made of.
type shape struct {
	layouts, seqs, chains, replicas, spares int
	clients                                 int
	failAfter                               time.Duration
}

func (s shape) String() string {
	return fmt.Sprintf("%d layout servers, %d sequencers, %d chains of %d units, %d spares, %d clients", s.layouts, s.seqs, s.chains, s.replicas, s.spares, s.clients)
}

// draw draws a shape.
func (o options) draw(r *rand.Rand) shape {
	if o.small {
		return shape{layouts: 1, seqs: 1, chains: 1, replicas: 2, clients: 1, failAfter: time.Second}
	}
	s := shape{layouts: 3, seqs: 2, chains: 2, replicas: 2, spares: 2, clients: 3}
	if r.IntN(2) == 0 {
		s.replicas, s.spares = 3, 0
	}
	s.failAfter = []time.Duration{500 * time.Millisecond, time.Second, 3 * time.Second}[r.IntN(3)]
	return s
}
