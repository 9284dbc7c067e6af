package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

const (
	// foundCluster is what --cluster of fsck means without a value.
	foundCluster = "the cluster that is found"

	// comparePiece is how many addresses are asked for at once: a megabyte of flash, of pages of 4 KiB.
	comparePiece = 256

	// What differs is looked at so many times, so far apart, before it counts: a trim or a repair may be on its way.
	compareLooks = 4
	compareAgain = 400 * time.Millisecond

	// compareRetry is the pause after an answer that is of no use, because the cluster changes its epoch.
	compareRetry = 100 * time.Millisecond
)

// errMoved: the epoch changes, or a unit does not answer now. Get the layout and go on.
var errMoved = errors.New("not open in the epoch of the layout")

// clusterJSON is the last line of fsck --cluster for scripts.
type clusterJSON struct {
	Epoch       layout.Epoch `json:"epoch"`
	Positions   uint64       `json:"positions"` // compared
	Trimmed     uint64       `json:"trimmed"`   // below what every replica has given up; they count as compared
	Unsettled   uint64       `json:"unsettled"` // written and not settled yet at every replica, and so not compared
	Differences uint64       `json:"differences"`
}

// differenceJSON is one line of fsck --cluster for scripts.
type differenceJSON struct {
	Position layout.Position `json:"position"`
	Address  layout.Address  `json:"address"`
	Replicas []replicaJSON   `json:"replicas"`
}

type replicaJSON struct {
	Unit    layout.UnitID `json:"unit"`
	State   string        `json:"state"`
	Attempt string        `json:"attempt,omitempty"`
	CRC     string        `json:"crc,omitempty"`
}

// clusterCheck compares the replicas of a cluster.
type clusterCheck struct {
	a         *app
	rate      int64 // bytes a second and unit
	conns     map[string]*grpc.ClientConn
	compared  map[string]layout.Address // by chain: all addresses below are done
	unsettled map[string]uint64
	sum       clusterJSON
	due       time.Time
	show      func(done, all uint64, waiting string, ended bool)
}

func (a *app) fsckCluster(ctx context.Context, all *pflag.FlagSet, args []string, rate string) error {
	if a.cluster == foundCluster {
		a.cluster = ""
		if len(args) == 1 {
			a.cluster, args = args[0], nil
		}
	}
	if len(args) > 0 {
		return usagef("fsck checks the store %s, or a cluster: not both", args[0])
	}
	if a.cluster != "" { // given here is given to the flag of all commands, which this one's hides
		if err := all.Set("cluster", a.cluster); err != nil {
			return usagef("cluster %q: %w", a.cluster, err)
		}
	}
	bytes, err := parseSize(rate)
	if err != nil || bytes <= 0 {
		return usagef("rate %q: must be bytes a second, as in 64MiB", rate)
	}
	c := &clusterCheck{a: a, rate: bytes, conns: map[string]*grpc.ClientConn{}, compared: map[string]layout.Address{}, unsettled: map[string]uint64{},
		show: a.progress("comparing")}
	defer c.close()
	if err := c.run(ctx); err != nil {
		return err
	}
	return c.verdict()
}

func (c *clusterCheck) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// run compares all chains, and begins anew with those that are left whenever the epoch changes. It gives up once nothing was compared
// for as long as a command waits for an answer.
func (c *clusterCheck) run(ctx context.Context) error {
	moved := time.Now()
	for {
		l, err := c.a.getLayout(ctx)
		if err != nil {
			return err
		}
		before := c.progress()
		if err = c.pass(ctx, l); err == nil {
			return nil
		}
		if c.progress() > before {
			moved = time.Now()
		}
		if !errors.Is(err, errMoved) || time.Since(moved) > c.a.timeout {
			return err
		}
		if err := sleep.For(ctx, compareRetry); err != nil {
			return err
		}
	}
}

func (c *clusterCheck) progress() (n uint64) {
	for _, a := range c.compared {
		n += uint64(a)
	}
	return n
}

func (c *clusterCheck) pass(ctx context.Context, l *layout.Layout) error {
	c.sum.Epoch, c.sum.Unsettled = l.Epoch, 0
	for i, s := range l.Segments {
		for j := range s.Chains {
			if err := c.chain(ctx, l, i, j); err != nil {
				return err
			}
			c.sum.Unsettled += c.unsettled[sameChain(l, i, j)]
		}
	}
	return nil
}

// chain compares what the units of a chain hold, up to the lowest watermark that they show first.
func (c *clusterCheck) chain(ctx context.Context, l *layout.Layout, segment, stripe int) error {
	units := l.Segments[segment].Chains[stripe].Units
	from, limit := l.Addresses(segment, stripe)
	key := sameChain(l, segment, stripe)
	settled, end, given := limit, from, limit
	for _, u := range units {
		m, err := c.state(ctx, l, u)
		if err != nil {
			return err
		}
		settled, given = min(settled, layout.Address(m.GetWatermark())), min(given, layout.Address(m.GetTrimmedBelow()))
		end = max(end, min(limit, layout.Address(m.GetEnd())))
	}
	c.unsettled[key] = uint64(end - min(end, max(settled, from)))
	a, begun := c.compared[key]
	if !begun {
		a = max(from, given)
		c.sum.Positions += uint64(a - from)
		c.sum.Trimmed += uint64(a - from)
	}
	first := a
	for ; a < settled; a = min(a+comparePiece, settled) {
		to := min(a+comparePiece, settled)
		if err := c.piece(ctx, l, units, a, to); err != nil {
			return err
		}
		c.sum.Positions += uint64(to - a)
		c.compared[key] = to
		c.show(uint64(to-first), uint64(settled-first), fmt.Sprintf("; units %v", units), false)
		if err := c.pace(ctx, int(to-a)*l.Geometry.PageSize); err != nil {
			return err
		}
	}
	c.compared[key] = max(a, first)
	return nil
}

// pace sleeps until n more bytes may be read of each unit.
func (c *clusterCheck) pace(ctx context.Context, n int) error {
	if now := time.Now(); c.due.Before(now) {
		c.due = now
	}
	c.due = c.due.Add(time.Duration(float64(n) / float64(c.rate) * float64(time.Second)))
	return sleep.For(ctx, time.Until(c.due))
}

// piece compares addresses from … to−1, and prints what differs.
func (c *clusterCheck) piece(ctx context.Context, l *layout.Layout, units []layout.UnitID, from, to layout.Address) error {
	var diffs map[layout.Address][]held
	for look := range compareLooks {
		all, err := c.listAll(ctx, l, units, from, to)
		if err != nil {
			return err
		}
		now := compareListings(all, from, to)
		if look > 0 {
			now = stillDiffer(diffs, now)
		}
		if diffs = now; len(diffs) == 0 {
			return nil
		}
		if look < compareLooks-1 {
			if err := sleep.For(ctx, compareAgain); err != nil {
				return err
			}
		}
	}
	for _, a := range slices.Sorted(maps.Keys(diffs)) {
		p, ok := l.PositionAt(units[0], a)
		if !ok {
			continue
		}
		c.sum.Differences++
		if err := c.a.printDifference(difference{p, a, units, diffs[a]}); err != nil {
			return err
		}
	}
	return nil
}

// listAll asks all units at once what they hold at addresses from … to−1.
func (c *clusterCheck) listAll(ctx context.Context, l *layout.Layout, units []layout.UnitID, from, to layout.Address) ([]listing, error) {
	all := make([]listing, len(units))
	g, ctx := errgroup.WithContext(ctx)
	for i, u := range units {
		conn, err := c.dial(l, u)
		if err != nil {
			return nil, err
		}
		g.Go(func() (err error) {
			all[i] = listing{u, map[layout.Address]held{}}
			ctx, cancel := context.WithTimeout(ctx, c.a.timeout)
			defer cancel()
			stream, err := pb.NewUnitServiceClient(conn).Entries(ctx, &pb.EntriesRequest{Epoch: uint64(l.Epoch), From: uint64(from), To: uint64(to)})
			for err == nil {
				var m *pb.EntriesReply
				if m, err = stream.Recv(); err == nil {
					for _, e := range m.GetEntries() {
						all[i].at[layout.Address(e.GetAddress())] = held{wire.State(e.GetState()), layout.Attempt(e.GetAttempt()), e.GetSum()}
					}
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return c.refused(l, u, err)
		})
	}
	return all, g.Wait()
}

// state asks a unit of the layout how far it is settled. It fails with errMoved unless the unit is open in the layout's epoch.
func (c *clusterCheck) state(ctx context.Context, l *layout.Layout, u layout.UnitID) (*pb.UnitStateReply, error) {
	conn, err := c.dial(l, u)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.a.timeout)
	defer cancel()
	m, err := pb.NewUnitServiceClient(conn).State(ctx, &pb.UnitStateRequest{})
	if err != nil {
		return nil, c.refused(l, u, err)
	}
	if m.GetState() != "open" || layout.Epoch(m.GetPromise()) != l.Epoch {
		return nil, fmt.Errorf("unit %d is %s at epoch %d: %w, %d (corfu layout status tells more)", u, m.GetState(), m.GetPromise(), errMoved, l.Epoch)
	}
	return m, nil
}

func (c *clusterCheck) refused(l *layout.Layout, u layout.UnitID, err error) error {
	x, _ := l.Unit(u)
	s := grpcstatus.Convert(err)
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.FailedPrecondition, codes.Canceled:
		return fmt.Errorf("unit %d at %s cannot be compared: %s: %w, %d (corfu layout status tells more)", u, x.Control, s.Message(), errMoved, l.Epoch)
	}
	return fmt.Errorf("unit %d at %s cannot be compared: %s", u, x.Control, s.Message())
}

func (c *clusterCheck) dial(l *layout.Layout, u layout.UnitID) (*grpc.ClientConn, error) {
	x, _ := l.Unit(u)
	if conn := c.conns[x.Control]; conn != nil {
		return conn, nil
	}
	found, err := c.a.findCluster()
	if err != nil {
		return nil, err
	}
	options, err := c.a.dialOptions(found)
	if err != nil {
		return nil, err
	}
	if err := c.a.checkClear(x.Control, len(options) > 0); err != nil {
		return nil, err
	}
	conn, err := control.Dial(x.Control, options...)
	if err != nil {
		return nil, fmt.Errorf("unit %d at %s: %w", u, x.Control, err)
	}
	c.conns[x.Control] = conn
	return conn, nil
}

func (a *app) printDifference(d difference) error {
	if !a.json() {
		_, err := fmt.Fprintln(a.stdout, d)
		return err
	}
	out := differenceJSON{Position: d.position, Address: d.address}
	for i, u := range d.units {
		h := d.held[i]
		r := replicaJSON{Unit: u, State: h.state.String()}
		if h.state == wire.Durable {
			r.Attempt, r.CRC = fmt.Sprintf("%#x", uint64(h.attempt)), fmt.Sprintf("%#08x", h.sum)
		}
		out.Replicas = append(out.Replicas, r)
	}
	return a.printJSON(out)
}

func (c *clusterCheck) verdict() error {
	s := c.sum
	if c.a.json() {
		if err := c.a.printJSON(s); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.a.stdout, "epoch %d: %d positions compared, %d of them trimmed everywhere; not settled yet, and not compared: %d; differences: %d\n",
			s.Epoch, s.Positions, s.Trimmed, s.Unsettled, s.Differences)
	}
	if s.Differences > 0 {
		return fmt.Errorf("replicas differ at %d positions (corfu scrub has pages repaired that do not verify; corfu trim gives a position up)", s.Differences)
	}
	return nil
}
