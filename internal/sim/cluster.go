package sim

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	seqserver "corfu/seq/server"
	"corfu/unit/flash"
	unitserver "corfu/unit/server"
)

// Shape of a simulated cluster.
type Shape struct {
	Chains, Replicas int
	Layouts          int // layout servers
	Durability       layout.Durability
}

// cluster is every server of a run.
type cluster struct {
	f     *Fabric
	dir   string
	shape Shape
	scan  time.Duration
	log   *slog.Logger
	raft  *consensus

	raised *alarmLog

	mu      sync.Mutex
	units   []*unitLife
	seq     *seqLife
	layouts []*layoutserver.Server
	names   []string // of the layout servers
	clients []*client.Log
	hosts   []*Host // of the clients
}

// unitLife is a unit from a start to its end.
type unitLife struct {
	host *Host
	disk *disk
	end  *endpoint
	srv  *unitserver.Server
}

type seqLife struct {
	host *Host
	end  *endpoint
	srv  *seqserver.Server
}

func unitName(id int) string   { return fmt.Sprintf("unit%d", id) }
func layoutName(id int) string { return fmt.Sprintf("layout%d", id) }

const seqName = "seq1"

// geometry is as small as windows and sessions can be.
var geometry = layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 8, MaxSessions: 12}

// start starts everything; the log comes up by itself.
func start(f *Fabric, dir string, s Shape, scan time.Duration, log *slog.Logger) (*cluster, error) {
	under := slog.DiscardHandler
	if log != nil {
		under = log.Handler()
	}
	raised := newAlarmLog(under)
	c := &cluster{f: f, dir: dir, shape: s, scan: scan, raised: raised, log: slog.New(raised), raft: newConsensus(f)}
	for i := range s.Chains * s.Replicas {
		c.units = append(c.units, nil)
		if err := c.startUnit(i + 1); err != nil {
			return nil, err
		}
	}
	if err := c.startSeq(); err != nil {
		return nil, err
	}
	for i := range s.Layouts {
		if err := c.startLayout(i + 1); err != nil {
			return nil, err
		}
	}
	c.raft.elect(layoutName(1))
	return c, nil
}

func (c *cluster) startUnit(id int) error {
	name := unitName(id)
	h := c.f.NewHost(name)
	u := &unitLife{host: h, disk: c.f.newDisk(name)}
	u.end = h.Control(name+":control", true)
	var err error
	u.srv, err = unitserver.Start(context.Background(), unitserver.Config{
		ID: layout.UnitID(id), Dir: c.unitDir(id), Device: h, Listener: u.end, ColdReaders: 1, ScrubRate: -1, ScanBusy: c.scan, ScanIdle: max(c.scan, 20*time.Millisecond),
		Flash:      flash.Options{SegmentPages: 64, Workers: 1, NoSync: true, Wrap: u.disk.wrap},
		Registerer: prometheus.NewRegistry(), Logger: c.log.With("unit", id),
	})
	if err != nil {
		return fmt.Errorf("unit %d: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.units[id-1] = u
	return nil
}

func (c *cluster) unitDir(id int) string { return filepath.Join(c.dir, unitName(id)) }

func (c *cluster) startSeq() error {
	h := c.f.NewHost(seqName)
	s := &seqLife{host: h, end: h.Control(seqName+":control", true)}
	var err error
	s.srv, err = seqserver.Start(context.Background(), seqserver.Config{
		ID: 1, Dir: filepath.Join(c.dir, seqName), Device: h, Listener: s.end, Logger: c.log.With("sequencer", 1),
	})
	if err != nil {
		return fmt.Errorf("sequencer: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq = s
	return nil
}

func (c *cluster) startLayout(id int) error {
	name := layoutName(id)
	h := c.f.NewHost(name)
	s, err := layoutserver.Start(context.Background(), layoutserver.Config{
		ID: uint16(id), ControlListener: h.Control(name+":control", false), Consensus: c.raft.join(h), DialOptions: h.DialOptions(),
		Bootstrap: c.template(), Poll: 20 * time.Millisecond,
		// All members are waited for: crashes of the plan keep the promise only of chains that lose nobody for good.
		FailAfter: 2 * time.Second, MinReplicas: c.shape.Replicas, CallTimeout: 3 * time.Second, StallTimeout: 3 * time.Second, Logger: c.log.With("layout", id),
	})
	if err != nil {
		return fmt.Errorf("layout server %d: %w", id, err)
	}
	c.layouts = append(c.layouts, s)
	c.names = append(c.names, name+":control")
	return nil
}

// template is the log to be founded.
func (c *cluster) template() *layout.Layout {
	l := &layout.Layout{Geometry: geometry, Durability: c.shape.Durability, Sequencer: layout.Sequencer{ID: 1, Control: seqName + ":control"}}
	l.Log[0] = 7
	seg := layout.Segment{}
	for i := range c.shape.Chains {
		var ch layout.Chain
		for j := range c.shape.Replicas {
			id := i*c.shape.Replicas + j + 1
			ch.Units = append(ch.Units, layout.UnitID(id))
			l.Units = append(l.Units, layout.Unit{ID: layout.UnitID(id), Control: unitName(id) + ":control"})
		}
		seg.Chains = append(seg.Chains, ch)
	}
	l.Segments = []layout.Segment{seg}
	return l
}

// open opens a client on a host of its own.
func (c *cluster) open(ctx context.Context, name string, o client.Options) (*client.Log, error) {
	h := c.f.NewHost(name)
	o.LayoutServers, o.Device, o.DialOptions, o.Insecure = c.names, h, h.DialOptions(), true
	o.Logger = c.log.With("client", name)
	l, err := client.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients, c.hosts = append(c.clients, l), append(c.hosts, h)
	return l, nil
}

// crashUnit ends a unit: what is not on its flash is lost.
func (c *cluster) crashUnit(id int, noisy bool) {
	c.mu.Lock()
	u := c.units[id-1]
	c.units[id-1] = nil
	c.mu.Unlock()
	u.disk.die()
	c.bury(u.host, u.end, noisy, u.srv.Close)
}

func (c *cluster) crashSeq(noisy bool) {
	c.mu.Lock()
	s := c.seq
	c.seq = nil
	c.mu.Unlock()
	c.bury(s.host, s.end, noisy, s.srv.Close)
}

// bury kills a host, and ends the goroutines of the process that ran there.
func (c *cluster) bury(h *Host, e *endpoint, noisy bool, end func() error) {
	h.Kill(noisy)
	c.f.Resume(h.name)
	_ = e.Close()
	e.take() // a call that runs holds locks
	_ = end()
	e.give()
}

// close ends everything. Units that are whole bring what they have to flash.
func (c *cluster) close() {
	c.f.Heal()
	for _, l := range c.clients {
		_ = l.Close()
	}
	for _, l := range c.layouts {
		_ = l.Close()
	}
	if c.seq != nil {
		_ = c.seq.srv.Close()
	}
	for _, u := range c.units {
		if u != nil {
			_ = u.srv.Close()
		}
	}
}
