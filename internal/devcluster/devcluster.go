package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	"corfu/rdma"
	"corfu/rdma/fabric"
	seqserver "corfu/seq/server"
	unitserver "corfu/unit/server"
)

// Cluster is a running cluster.
type Cluster struct {
	Units   []*unitserver.Server   // unit i+1, spares last; nil while it is killed
	Seqs    []*seqserver.Server    // sequencer i+1, standbys last; nil while it is killed
	Seq     *seqserver.Server      // the first
	Layouts []*layoutserver.Server // server i+1; nil while StopLayout keeps it down

	opts   Options
	record record
	device rdma.Device
	owned  bool   // the device was opened here
	reason string // why the device was chosen
	asking *asking
}

// Start starts all members and returns once the layout is active and every member
// serves it. What was started is stopped again if it fails.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	o = o.withDefaults()
	if o.Dir == "" {
		return nil, errors.New("devcluster: no directory")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("devcluster: %w", err)
	}
	c := &Cluster{opts: o, device: o.Device, reason: "given"}
	fresh := false
	if c.record, fresh, err = load(o); err != nil {
		return nil, fmt.Errorf("devcluster: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("devcluster: %w", errors.Join(err, c.Close()))
		}
	}()
	if c.device == nil {
		c.device, c.reason, err = fabric.Open(fabric.Options{Provider: o.Provider, Device: o.DeviceName})
		if err != nil {
			return nil, err
		}
		c.owned = true
	}
	if err := c.startMembers(ctx); err != nil {
		return nil, err
	}
	if fresh {
		// Before the layout server makes the log: from then on the addresses are fixed.
		if err := c.record.save(o.Dir); err != nil {
			return nil, err
		}
	}
	if err := c.startLayouts(ctx); err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, o.Ready)
	defer cancel()
	return c, c.awaitReady(ready)
}

// startMembers starts those that the first layout names: their ports must be known before it.
func (c *Cluster) startMembers(ctx context.Context) error {
	for i := range len(c.record.Units) + len(c.record.Spares) {
		u, err := c.startUnit(ctx, i)
		if err != nil {
			return err
		}
		c.Units = append(c.Units, u)
		*c.record.unit(i) = u.ControlAddr()
	}
	for i := range 1 + len(c.record.Standbys) {
		s, err := c.startSequencer(ctx, i)
		if err != nil {
			return err
		}
		c.Seqs = append(c.Seqs, s)
		*c.record.sequencer(i) = s.ControlAddr()
	}
	c.Seq = c.Seqs[0]
	return nil
}

func (c *Cluster) startSequencer(ctx context.Context, i int) (*seqserver.Server, error) {
	id, reg := i+1, c.opts.Registerer
	tls, err := c.identity(certs.Seq, fmt.Sprintf("seq-%d", id))
	if err != nil {
		return nil, err
	}
	if i > 0 {
		reg = prometheus.NewRegistry() // those of the first have no label
	}
	s, err := seqserver.Start(ctx, seqserver.Config{
		ID: layout.SequencerID(id), Dir: filepath.Join(c.opts.Dir, fmt.Sprintf("seq-%d", id)), Device: c.device, Control: *c.record.sequencer(i),
		TLS: tls, Registerer: reg, Logger: c.opts.Logger.With("sequencer", id),
	})
	if err != nil {
		return nil, fmt.Errorf("sequencer %d: %w", id, err)
	}
	return s, nil
}

func (c *Cluster) startUnit(ctx context.Context, i int) (*unitserver.Server, error) {
	id := i + 1
	store := c.opts.Flash
	if store.SegmentPages == 0 {
		store.SegmentPages = 1024
	}
	tls, err := c.identity(certs.Unit, fmt.Sprintf("unit-%d", id))
	if err != nil {
		return nil, err
	}
	o := unitserver.Config{
		Flash: store, TLS: tls,
		ID: layout.UnitID(id), Dir: c.UnitDir(layout.UnitID(id)), Device: c.device, Control: *c.record.unit(i),
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"unit": strconv.Itoa(id)}, c.opts.Registerer),
		Logger:     c.opts.Logger.With("unit", id),
	}
	if c.opts.Units != nil {
		c.opts.Units(&o)
	}
	u, err := unitserver.Start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("unit %d: %w", id, err)
	}
	return u, nil
}

// identity is a member's; nil: in clear.
func (c *Cluster) identity(role certs.Role, name string) (*certs.Source, error) {
	if c.opts.TLS == nil {
		return nil, nil
	}
	return c.opts.TLS(role, name)
}

// Device is the fabric device of all members, and why it was chosen.
func (c *Cluster) Device() (dev rdma.Device, reason string) { return c.device, c.reason }

// UnitDir is where a unit's data lies.
func (c *Cluster) UnitDir(id layout.UnitID) string {
	return filepath.Join(c.opts.Dir, fmt.Sprintf("unit-%d", id))
}

// Reconfigure moves the cluster to a new epoch with the same members, and returns its layout. It asks until ctx ends while a member is
// unreachable, or no layout server leads.
func (c *Cluster) Reconfigure(ctx context.Context) (*layout.Layout, error) {
	return c.Change(ctx, &pb.ReconfigureRequest{})
}

// Change is Reconfigure with whatever else is asked for.
func (c *Cluster) Change(ctx context.Context, q *pb.ReconfigureRequest) (*layout.Layout, error) {
	q.Reason = "devcluster"
	for {
		m, err := control.Ask(ctx, c.asking.Layouts, func(ctx context.Context, s pb.LayoutServiceClient) (*pb.Layout, error) {
			return s.Reconfigure(ctx, q)
		})
		switch {
		case err == nil:
			return pbconv.ToLayout(m)
		case (status.Code(err) != codes.Unavailable && status.Code(err) != codes.Aborted) || ctx.Err() != nil:
			return nil, fmt.Errorf("devcluster: reconfigure: %w", err)
		}
		time.Sleep(reconfigurePause) // nothing was done: a member did not answer in time, as happens on a machine that is very busy
	}
}

const reconfigurePause = 100 * time.Millisecond

// Health is nil while every member serves.
func (c *Cluster) Health() error {
	var errs []error
	for i, u := range c.Units {
		if u == nil {
			errs = append(errs, fmt.Errorf("unit %d is killed", i+1))
		} else if err := u.Health(); err != nil && i < len(c.record.Units) {
			errs = append(errs, fmt.Errorf("unit %d: %w", i+1, err))
		}
	}
	if err := c.Seq.Health(); err != nil {
		errs = append(errs, fmt.Errorf("sequencer: %w", err))
	}
	for i, s := range c.Layouts {
		if s == nil {
			errs = append(errs, fmt.Errorf("layout server %d is stopped", i+1))
		} else if err := s.Health(); err != nil {
			errs = append(errs, fmt.Errorf("layout server %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

// Close stops all members; everything durable stays. The layout servers go first: they would take the others for failed.
func (c *Cluster) Close() error {
	var errs []error
	if c.asking != nil {
		errs = append(errs, c.asking.close())
	}
	for _, s := range c.Layouts {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	for _, s := range c.Seqs {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	for _, u := range c.Units {
		if u != nil {
			errs = append(errs, u.Close())
		}
	}
	if c.owned {
		c.owned = false
		errs = append(errs, c.device.Close())
	}
	return errors.Join(errs...)
}

// Chains are the chains of the first layout, heads first.
func (c *Cluster) Chains() []layout.Chain { return c.record.template().Segments[0].Chains }
