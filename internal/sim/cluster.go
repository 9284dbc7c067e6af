package sim

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	"corfu/rdma"
	seqserver "corfu/seq/server"
	"corfu/unit/flash"
	unitserver "corfu/unit/server"
)

// Shape of a simulated cluster.
type Shape struct {
	Chains, Replicas int
	Layouts          int // layout servers
	Durability       layout.Durability

	// Heals: members that fail are left out, until one unit of a chain is left. If not, everything waits until they are back.
	Heals   bool
	Spares  int  // units beside those of the chains
	Standby bool // a second sequencer

	NoFabric bool // layout servers seal by the control plane alone
}

// members is how many units the chains have at first.
func (s Shape) members() int { return s.Chains * s.Replicas }

// sequencers is how many there are.
func (s Shape) sequencers() int {
	if s.Standby {
		return 2
	}
	return 1
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
	units   []*life  // nil: down
	seqs    []*life  // nil: down
	layouts []*life  // nil: down
	names   []string // of the layout servers
	clients []*client.Log
	hosts   []*Host // of the clients
	copies  int     // of stores that were put aside
}

// life is a server from a start to its end.
type life struct {
	host *Host
	disk *disk // of a unit; else nil
	end  *endpoint
	srv  interface{ Close() error }
}

func unitName(id int) string   { return fmt.Sprintf("unit%d", id) }
func layoutName(id int) string { return fmt.Sprintf("layout%d", id) }
func seqName(id int) string    { return fmt.Sprintf("seq%d", id) }

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
	for i := range s.members() + s.Spares {
		c.units = append(c.units, nil)
		if err := c.startUnit(i + 1); err != nil {
			return nil, err
		}
	}
	for i := range s.sequencers() {
		c.seqs = append(c.seqs, nil)
		if err := c.startSeq(i + 1); err != nil {
			return nil, err
		}
	}
	for i := range s.Layouts {
		c.layouts, c.names = append(c.layouts, nil), append(c.names, layoutName(i+1)+":control")
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
	u := &life{host: h, disk: c.f.newDisk(name)}
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

func (c *cluster) startSeq(id int) error {
	name := seqName(id)
	h := c.f.NewHost(name)
	s := &life{host: h, end: h.Control(name+":control", true)}
	var err error
	s.srv, err = seqserver.Start(context.Background(), seqserver.Config{
		ID: layout.SequencerID(id), Dir: filepath.Join(c.dir, name), Device: h, Listener: s.end, Logger: c.log.With("sequencer", id),
	})
	if err != nil {
		return fmt.Errorf("sequencer %d: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seqs[id-1] = s
	return nil
}

func (c *cluster) startLayout(id int) error {
	name := layoutName(id)
	h := c.f.NewHost(name)
	s := &life{host: h, end: h.Control(name+":control", false)}
	failAfter, least := 2*time.Second, c.shape.Replicas
	if c.shape.Heals {
		failAfter, least = 200*time.Millisecond, 1
	}
	var dev rdma.Device
	if !c.shape.NoFabric {
		dev = h
	}
	var err error
	s.srv, err = layoutserver.Start(context.Background(), layoutserver.Config{
		ID: uint16(id), Servers: c.peers(), ControlListener: s.end, Consensus: c.raft.join(h), Device: dev, DialOptions: h.DialOptions(),
		Bootstrap: c.template(), Poll: 20 * time.Millisecond, FailAfter: failAfter, MinReplicas: least,
		CallTimeout: 3 * time.Second, StallTimeout: 3 * time.Second, Logger: c.log.With("layout", id),
	})
	if err != nil {
		return fmt.Errorf("layout server %d: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.layouts[id-1] = s
	return nil
}

// peers are the layout servers.
func (c *cluster) peers() (all []layoutserver.Peer) {
	for i := range c.shape.Layouts {
		name := layoutName(i + 1)
		all = append(all, layoutserver.Peer{ID: uint16(i + 1), Control: name + ":control", Raft: name + ":1"})
	}
	return all
}

// template is the log to be founded.
func (c *cluster) template() *layout.Layout {
	l := &layout.Layout{Geometry: geometry, Durability: c.shape.Durability, Sequencer: layout.Sequencer{ID: 1, Control: seqName(1) + ":control"}}
	l.Log[0] = 7
	if c.shape.Standby {
		l.Standbys = []layout.Sequencer{{ID: 2, Control: seqName(2) + ":control"}}
	}
	for i := range c.shape.Spares {
		id := c.shape.members() + i + 1
		l.Spares = append(l.Spares, layout.Unit{ID: layout.UnitID(id), Control: unitName(id) + ":control"})
	}
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

// kill takes a server of a list from its network at once, and a unit from its flash: what is not on flash is lost. What a layout server knows is
// in the log of commands. bury has to follow. False: it is down.
func (c *cluster) kill(list []*life, id int, noisy bool) (bury func(), ok bool) {
	c.mu.Lock()
	x := list[id-1]
	list[id-1] = nil
	c.mu.Unlock()
	if x == nil {
		return nil, false
	}
	if x.disk != nil {
		x.disk.die()
	}
	x.host.Kill(noisy)
	return func() { c.bury(x) }, true
}

// bury ends the goroutines of a server.
func (c *cluster) bury(x *life) {
	c.f.Resume(x.host.name)
	_ = x.end.Close()
	x.end.take() // a call that runs holds locks
	_ = x.srv.Close()
	x.end.give()
}

// close ends everything. Units that are whole bring what they have to flash.
func (c *cluster) close() {
	c.f.Heal()
	for _, l := range c.clients {
		_ = l.Close()
	}
	for _, x := range slices.Concat(c.layouts, c.seqs, c.units) {
		if x != nil {
			c.bury(x)
		}
	}
}
