package pausebench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/rdma"
	unitserver "corfu/unit/server"
)

// Settings of the layout server: the defaults of corfu layout.
const (
	heartbeat = 100 * time.Millisecond
	failAfter = 500 * time.Millisecond
)

// What a pause has to keep to.
const (
	BarPlanned = 50 * time.Millisecond            // median of planned reconfigurations, over loopback
	BarKilled  = failAfter + 100*time.Millisecond // median of deaths: the time until a member counts as failed, and 100 ms
)

// Options of a run. All fields are needed.
type Options struct {
	Device  rdma.Device
	Dir     string // clusters are made below it
	Rounds  int    // deaths of each kind
	Planned int    // reconfigurations
	Payload int    // bytes of an append
	Logger  *slog.Logger
	Step    func(what string) // told before each change
}

const (
	appenders = 4
	settled   = 50 // appends after a change that show that it is over
	patience  = time.Minute
)

// Result is one kind of change.
type Result struct {
	Name   string
	Pauses []time.Duration          // ascending
	Phases map[string]time.Duration // of the reconfigurations, on average
	Bar    time.Duration            // for the median
}

// Median of the pauses.
func (r Result) Median() time.Duration {
	if len(r.Pauses) == 0 {
		return 0
	}
	return r.Pauses[(len(r.Pauses)-1)/2]
}

// Met tells whether the median keeps to the bar.
func (r Result) Met() bool { return r.Median() <= r.Bar }

// The kinds of change.
const (
	Planned   = "pause: reconfiguration"
	Alone     = "pause: unit killed, no spare"
	Unit      = "pause: unit killed"
	Silent    = "pause: unit silent"
	Sequencer = "pause: sequencer killed"
)

// Kinds are all that can be measured on the device.
func Kinds(dev rdma.Device) []string {
	all := []string{Planned, Alone, Unit, Sequencer}
	if dev.Info().Provider == "tcp" {
		all = append(all, Silent)
	}
	return all
}

// Steps is how often Step will be called for a kind.
func (o Options) Steps(kind string) int {
	if kind == Planned {
		return o.Planned
	}
	return o.Rounds
}

// Measure measures one kind.
func Measure(ctx context.Context, o Options, kind string) (Result, error) {
	r := Result{Name: kind, Bar: BarKilled, Phases: map[string]time.Duration{}}
	if kind == Planned {
		r.Bar = BarPlanned
	}
	// Each death has a cluster of its own: a member that falls again and again is trusted less.
	clusters, each := o.Rounds, 1
	if kind == Planned {
		clusters, each = 1, o.Planned
	}
	for i := range clusters {
		if err := o.inCluster(ctx, fmt.Sprintf("%d-%d", slices.Index(Kinds(o.Device), kind), i), kind, each, &r); err != nil {
			return r, fmt.Errorf("%s: %w", kind, err)
		}
	}
	slices.Sort(r.Pauses)
	for p := range r.Phases {
		r.Phases[p] /= time.Duration(len(r.Pauses))
	}
	return r, nil
}

// rig is a cluster, a client and its load.
type rig struct {
	*devcluster.Cluster
	log     *client.Log
	load    *load
	silence *silence
	metrics *prometheus.Registry

	founding map[string]time.Duration // the phases of the first epoch
}

func (o Options) open(ctx context.Context, name, kind string) (_ *rig, err error) {
	x := &rig{metrics: prometheus.NewRegistry(), silence: newSilence(o.Device)}
	d := devcluster.Options{
		Device: o.Device, Dir: filepath.Join(o.Dir, "pause-"+name), Chains: 1, Replicas: 2, Spares: 1, Standbys: 1, Poll: heartbeat, FailAfter: failAfter,
		Geometry: layout.Geometry{PageSize: 4096, Window: 1024, SessionSlots: 64, MaxSessions: 8}, Registerer: x.metrics, Logger: o.Logger,
	}
	if kind == Alone {
		d.Spares = 0
	}
	if kind == Silent {
		d.Units = func(c *unitserver.Config) {
			if c.ID == doomed {
				err = x.silence.around(c)
			}
		}
	}
	c, startErr := devcluster.Start(ctx, d)
	if err = errors.Join(err, startErr); err != nil {
		return nil, err
	}
	x.Cluster = c
	if x.log, err = client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: o.Device, Logger: o.Logger}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if x.founding, err = x.phases(); err != nil {
		return nil, errors.Join(err, x.log.Close(), c.Close())
	}
	x.load = startLoad(ctx, x.log, appenders, o.Payload)
	return x, nil
}

// doomed is the head of the chain.
const doomed = layout.UnitID(1)

func (x *rig) close() error {
	x.load.end()
	err := x.log.Close()
	x.silence.end()
	return errors.Join(err, x.Close())
}

// inCluster makes changes in one cluster.
func (o Options) inCluster(ctx context.Context, name, kind string, changes int, r *Result) (err error) {
	x, err := o.open(ctx, name, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(changes)*patience)
	defer cancel()
	for range changes {
		if _, err := x.load.await(ctx, "appends", func(ended int) bool { return ended >= settled }); err != nil {
			return err
		}
		o.Step(kind)
		pause, err := x.change(ctx, kind)
		if err != nil {
			return err
		}
		r.Pauses = append(r.Pauses, pause)
		x.load.mark()
	}
	total, err := x.phases()
	for p, d := range total {
		r.Phases[p] += d - x.founding[p]
	}
	return err
}

// change makes one change, and waits until it is over: appends go on in the new epoch.
func (x *rig) change(ctx context.Context, kind string) (time.Duration, error) {
	before := x.log.Layout().Epoch
	x.load.mark()
	done := make(chan error, 1)
	go func() { done <- x.strike(ctx, kind) }()
	from := -1
	worst, err := x.load.await(ctx, "the next epoch", func(ended int) bool {
		if from < 0 && x.log.Layout().Epoch > before {
			from = ended
		}
		return from >= 0 && ended >= from+settled
	})
	return worst, errors.Join(err, <-done)
}

func (x *rig) strike(ctx context.Context, kind string) error {
	switch kind {
	case Planned:
		_, err := x.Reconfigure(ctx)
		return err
	case Unit, Alone:
		return x.KillUnit(doomed)
	case Silent:
		x.silence.begin()
		return nil
	case Sequencer:
		return x.KillSequencer(1)
	}
	return fmt.Errorf("unknown change %q", kind)
}

// phases is what the layout server's histogram says of all epochs so far.
func (x *rig) phases() (map[string]time.Duration, error) {
	all, err := x.metrics.Gather()
	sum := map[string]time.Duration{}
	for _, f := range all {
		if f.GetName() != "corfu_layout_reconfiguration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			sum[m.GetLabel()[0].GetValue()] += time.Duration(m.GetHistogram().GetSampleSum() * float64(time.Second))
		}
	}
	return sum, err
}
