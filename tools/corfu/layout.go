package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"corfu/internal/certs"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	"corfu/rdma"
	"corfu/rdma/fabric"
)

// layoutConfig is the configuration file of a layout server.
type layoutConfig struct {
	daemonConfig `yaml:",inline"`
	ID           uint16          `yaml:"id" flag:"id"`
	Raft         string          `yaml:"raft" flag:"raft"`
	Servers      []serverConfig  `yaml:"servers" flag:"server" doc:"all layout servers, this one included: {id: 1, control: host:port, raft: host:port} each. None: this is a single one"`
	Election     time.Duration   `yaml:"election_timeout" flag:"election-timeout"`
	Heal         healConfig      `yaml:",inline"`
	Fabric       sealingConfig   `yaml:"fabric"`
	NoFabric     bool            `yaml:"no_fabric" flag:"no-fabric"`
	Bootstrap    bootstrapConfig `yaml:"bootstrap"`

	given layoutFlags
}

// sealingConfig is the fabric section of a layout server, which seals members over it.
type sealingConfig struct {
	Provider string `yaml:"provider" flag:"provider" doc:"what carries the seals: auto (verbs if an RDMA device is usable, else tcp), verbs or tcp"`
	Device   string `yaml:"device" flag:"device"`
	Addr     string `yaml:"addr" flag:"fabric-addr"`
}

// layoutFlags are those that take the place of lists in the file.
type layoutFlags struct {
	sequencer                                string
	servers, units, chains, spares, standbys []string
}

// serverConfig is one of several layout servers.
type serverConfig struct {
	ID      uint16 `yaml:"id"`
	Control string `yaml:"control"`
	Raft    string `yaml:"raft"`
}

// healConfig says when members count as failed, and what follows.
type healConfig struct {
	Heartbeat   time.Duration `yaml:"heartbeat" flag:"heartbeat"`
	FailAfter   time.Duration `yaml:"fail_after" flag:"fail-after"`
	Grace       time.Duration `yaml:"restart_grace" flag:"restart-grace"`
	MinReplicas int           `yaml:"min_replicas" flag:"min-replicas"`
	RebuildRate string        `yaml:"rebuild_rate" flag:"rebuild-rate"`
}

func (h *healConfig) flags(f *pflag.FlagSet) {
	f.DurationVar(&h.Heartbeat, "heartbeat", 100*time.Millisecond, "how often the members are asked for their state")
	f.DurationVar(&h.FailAfter, "fail-after", 500*time.Millisecond, "without an answer for so long a member has failed: the log goes on without it")
	f.DurationVar(&h.Grace, "restart-grace", 5*time.Second, "how long the log waits for a member that somebody stops, so that a restart leaves nobody out; a member that crashed has fail_after. 0: as one that crashed")
	f.IntVar(&h.MinReplicas, "min-replicas", 0, "no chain goes on with fewer `units` (default: one less than the longest chain at first, and at least 1)")
	f.StringVar(&h.RebuildRate, "rebuild-rate", "64MiB", "`bytes` a second at which older entries are copied to a unit that joins a chain")
}

// bootstrapConfig describes the log's first layout. A server that has a layout already keeps that.
type bootstrapConfig struct {
	Log        string         `yaml:"log" doc:"the log's id, 32 hexadecimal digits (default: a new one)"`
	Durability string         `yaml:"durability" flag:"durability"`
	Geometry   geometryConfig `yaml:"geometry"`
	Sequencer  memberConfig   `yaml:"sequencer" flag:"seq"`
	Units      []memberConfig `yaml:"units" flag:"unit" doc:"the storage units: {id: 1, control: host:port} each"`
	Spares     []memberConfig `yaml:"spares" flag:"spare" doc:"units that join a chain when it loses one, written as units are"`
	Standbys   []memberConfig `yaml:"standbys" flag:"standby" doc:"sequencers that take over when the first is lost, written as units are"`
	Chains     [][]uint32     `yaml:"chains" flag:"chain" doc:"the chains: the numbers of the units of each, head first"`
}

type memberConfig struct {
	ID      uint32 `yaml:"id" doc:"its number, from 1"`
	Control string `yaml:"control" doc:"host:port of its control service"`
}

// geometryConfig is layout.Geometry with the names of configuration files.
type geometryConfig struct {
	PageSize     int `yaml:"page_size" flag:"page-size"`
	Window       int `yaml:"window" flag:"window"`
	SessionSlots int `yaml:"session_slots" doc:"staging pages that one client has on a unit, which are its appends in flight there. A unit that serves many gives later ones fewer"`
	MaxSessions  int `yaml:"max_sessions" doc:"clients that would have all their staging pages at a unit, which takes page_size × session_slots × max_sessions bytes. Half as many do; many more share the other half. Of a running log corfu layout set changes it"`
}

func defaultGeometryConfig() geometryConfig {
	g := layout.DefaultGeometry()
	return geometryConfig{g.PageSize, g.Window, g.SessionSlots, g.MaxSessions}
}

func (g geometryConfig) geometry() layout.Geometry {
	return layout.Geometry{PageSize: g.PageSize, Window: g.Window, SessionSlots: g.SessionSlots, MaxSessions: g.MaxSessions}
}

func (a *app) layoutCommand() *cobra.Command {
	c := layoutConfig{ID: 1, Fabric: sealingConfig{Provider: fabric.Auto}, Bootstrap: bootstrapConfig{Durability: layout.Flash.String(), Geometry: defaultGeometryConfig()}}
	g := &c.given
	cmd := &cobra.Command{
		Use: "layout", Short: "Run a layout server, or ask one", Args: cobra.NoArgs,
		Long: `Run a layout server: it keeps the layouts of all epochs, and moves the cluster from
one to the next. On its first start it makes the log from --seq, --unit and --chain
(or the bootstrap section of its configuration file); later it ignores them.

With --server, or the servers section of the file, it is one of three, five or seven,
of which all but the larger half may fail. Each is started with the same list, its own
--id and the same first layout, in any order.`,
		Example: `  corfu layout --dir /var/lib/corfu/layout --seq 1=127.0.0.1:7771 \
    --unit 1=127.0.0.1:7781 --unit 2=127.0.0.1:7782 --chain 1,2
  corfu layout --id 1 --server 1=10.0.0.1:7770,10.0.0.1:7772 --server 2=10.0.0.2:7770,10.0.0.2:7772 \
    --server 3=10.0.0.3:7770,10.0.0.3:7772 --insecure --config cluster.yaml`,
	}
	f := cmd.Flags()
	a.settingsOf("layout", cmd, &c)
	daemonFlags(f, &c.daemonConfig, "", "127.0.0.1:7870")
	f.Lookup("control").Usage += " (default: what --server says, else " + defaultLayout + ")"
	f.Uint16Var(&c.ID, "id", 1, "the `number` of this layout server, from 1")
	f.StringArrayVar(&g.servers, "server", nil, "a layout server, `id=host:port,host:port`: its control address, and that of Raft; once for each, this one included (default: a single server)")
	f.StringVar(&c.Raft, "raft", "", "`host:port` that Raft listens at among several layout servers (default: what --server says)")
	f.DurationVar(&c.Election, "election-timeout", 0, "how long the leader of several layout servers may be silent (default 200ms; the same for each)")
	f.StringVar(&c.Bootstrap.Durability, "durability", layout.Flash.String(), "flash, or memory on machines whose memory survives a power cut")
	f.IntVar(&c.Bootstrap.Geometry.PageSize, "page-size", c.Bootstrap.Geometry.PageSize, "`bytes` of a page")
	f.IntVar(&c.Bootstrap.Geometry.Window, "window", c.Bootstrap.Geometry.Window, "`pages` of a unit in registered memory")
	c.Heal.flags(f)
	f.StringVar(&c.Fabric.Addr, "fabric-addr", "", "IP `address` of the fabric (default: the device's, or loopback with tcp)")
	f.BoolVar(&c.NoFabric, "no-fabric", false, "seal members over TCP alone, not over the fabric as well")
	f.StringArrayVar(&g.spares, "spare", nil, "a unit that joins a chain when that loses one, `id=host:port`; once for each")
	f.StringArrayVar(&g.standbys, "standby", nil, "a sequencer that takes over when the first is lost, `id=host:port`; once for each")
	f.StringVar(&g.sequencer, "seq", "", "the sequencer, `id=host:port`")
	f.StringArrayVar(&g.units, "unit", nil, "a storage unit, `id=host:port`; once for each")
	f.StringArrayVar(&g.chains, "chain", nil, "a chain of `units`, 1,2: head first; once for each")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := a.loadDaemon("layout"); err != nil {
			return err
		}
		rate, err := c.Heal.rate()
		if err != nil {
			return err
		}
		tls, err := a.serverIdentity(c.TLS, certs.Layout)
		if err != nil {
			return err
		}
		first, err := c.Bootstrap.layout()
		if err != nil {
			return err
		}
		log := a.logger(false).With("layout", c.ID)
		dev, say, err := a.layoutFabric(&c, log)
		if err != nil {
			return err
		}
		if dev != nil {
			defer dev.Close()
		}
		return a.serve(ctx, "corfu layout", c.daemonConfig, tls, "", &fabricWatch{dev: dev, log: log}, func(r *prometheus.Registry) (daemon, error) {
			cfg := c.server(rate)
			cfg.Bootstrap, cfg.Device, cfg.TLS, cfg.Insecure, cfg.Registerer, cfg.Logger = first, dev, tls, c.Insecure || a.insecure, r, log
			s, err := layoutserver.Start(ctx, cfg)
			if err != nil {
				return nil, err
			}
			say()
			return s, nil
		})
	})
	cmd.AddCommand(a.layoutShowCommand(), a.layoutStatusCommand(), a.layoutSetCommand(), a.layoutReconfigureCommand(), a.layoutRecoverCommand())
	return cmd
}

func (c *layoutConfig) settle() error {
	if err := c.Bootstrap.members(c.given.sequencer, c.given.units, c.given.chains); err != nil {
		return err
	}
	if err := c.takeServers(c.given.servers); err != nil {
		return err
	}
	return c.Bootstrap.standing(c.given.spares, c.given.standbys)
}

func (c *layoutConfig) check() error {
	if c.Dir == "" {
		return needs("layout", "dir", "")
	}
	rate, slow := c.Heal.rate()
	first, shape := c.Bootstrap.layout()
	if least := c.Heal.MinReplicas; first != nil && shape == nil && least > first.Replicas() {
		shape = usagef("min_replicas %d: no chain has more than %d units, so that none could ever lose one", least, first.Replicas())
	}
	server := c.server(max(rate, 1)).Validate()
	if server != nil {
		server = &usageError{server}
	}
	return errors.Join(slow, shape, server, c.daemonConfig.check(), checkAddr("raft", c.Raft), c.Bootstrap.checkAddrs(), checkProvider(c.Fabric.Provider))
}

// server is what the settings alone say of the layout server.
func (c *layoutConfig) server(rate int64) layoutserver.Config {
	return layoutserver.Config{
		ID: c.ID, Dir: c.Dir, Servers: c.peers(), Raft: c.Raft, Control: c.Control, Election: c.Election,
		Poll: c.Heal.Heartbeat, FailAfter: c.Heal.FailAfter, RestartGrace: max(c.Heal.Grace, time.Millisecond), MinReplicas: c.Heal.MinReplicas, RebuildRate: int(rate),
	}
}

// rate of rebuilding, in bytes a second.
func (h *healConfig) rate() (int64, error) {
	rate, err := parseSize(h.RebuildRate)
	if err != nil || rate <= 0 {
		return 0, usagef("rebuild rate %q: must be bytes a second, as in 64MiB", h.RebuildRate)
	}
	return rate, nil
}

// layoutFabric opens the device over which members are sealed, besides TCP. Without one the layout server serves as well: only a
// device that was asked for by name must be there. say logs which one it is, once the server stands: what cannot start says why, and
// nothing else.
func (a *app) layoutFabric(c *layoutConfig, log *slog.Logger) (dev rdma.Device, say func(), err error) {
	if c.NoFabric {
		return nil, func() {}, nil
	}
	var reason string
	dev, reason, err = a.openFabric(fabricConfig{Provider: c.Fabric.Provider, Device: c.Fabric.Device, Addr: c.Fabric.Addr}, c.Control, c.Insecure)
	var usage *usageError
	switch {
	case err == nil:
		return dev, func() { log.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "why", reason) }, nil
	case errors.As(err, &usage) || c.Fabric.Provider != fabric.Auto || c.Fabric.Device != "":
		return nil, nil, fmt.Errorf("%w (--no-fabric goes without)", err)
	}
	return nil, func() { log.Warn("no fabric: members are sealed over TCP alone", "err", err) }, nil
}

// takeServers takes what the flags say in place of the file, and the default control address where nothing says another.
func (c *layoutConfig) takeServers(flags []string) error {
	if len(flags) > 0 {
		c.Servers = nil
	}
	for _, s := range flags {
		id, addrs, _ := strings.Cut(s, "=")
		control, raft, ok := strings.Cut(addrs, ",")
		n, err := strconv.ParseUint(id, 10, 16)
		if !ok || err != nil || n == 0 || control == "" || raft == "" || errors.Join(checkAddr("control", control), checkAddr("raft", raft)) != nil {
			return usagef("--server %s: must be id=host:port,host:port, the id a number from 1, the addresses that of control and that of Raft", s)
		}
		c.Servers = append(c.Servers, serverConfig{uint16(n), control, raft})
	}
	if c.Control == "" && len(c.Servers) == 0 {
		c.Control = defaultLayout
	}
	return nil
}

func (c *layoutConfig) peers() []layoutserver.Peer {
	var all []layoutserver.Peer
	for _, s := range c.Servers {
		all = append(all, layoutserver.Peer{ID: s.ID, Control: s.Control, Raft: s.Raft})
	}
	return all
}

// members takes what the flags say in place of the file.
func (b *bootstrapConfig) members(sequencer string, units, chains []string) (err error) {
	if sequencer != "" {
		if b.Sequencer, err = parseMember("--seq", sequencer); err != nil {
			return err
		}
	}
	if len(units) > 0 {
		b.Units = nil
	}
	for _, s := range units {
		u, err := parseMember("--unit", s)
		if err != nil {
			return err
		}
		b.Units = append(b.Units, u)
	}
	if len(chains) > 0 {
		b.Chains = nil
	}
	for _, s := range chains {
		var chain []uint32
		for _, id := range strings.Split(s, ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
			if err != nil || n == 0 {
				return usagef("--chain %s: %q is not the number of a unit", s, id)
			}
			chain = append(chain, uint32(n))
		}
		b.Chains = append(b.Chains, chain)
	}
	return nil
}

// standing takes what the flags say of spares and standbys in place of the file.
func (b *bootstrapConfig) standing(spares, standbys []string) error {
	for _, x := range []struct {
		flag  string
		given []string
		to    *[]memberConfig
	}{{"--spare", spares, &b.Spares}, {"--standby", standbys, &b.Standbys}} {
		if len(x.given) > 0 {
			*x.to = nil
		}
		for _, s := range x.given {
			m, err := parseMember(x.flag, s)
			if err != nil {
				return err
			}
			*x.to = append(*x.to, m)
		}
	}
	return nil
}

func parseMember(flag, s string) (memberConfig, error) {
	id, control, ok := strings.Cut(s, "=")
	n, err := strconv.ParseUint(id, 10, 32)
	if !ok || err != nil || n == 0 || control == "" || checkAddr("control", control) != nil {
		return memberConfig{}, usagef("%s %s: must be id=host:port, the id a number from 1", flag, s)
	}
	return memberConfig{uint32(n), control}, nil
}

// layout is the template of the first layout, epoch 0, or nil if nothing describes one: a server that has its
// layouts needs none.
func (b *bootstrapConfig) layout() (*layout.Layout, error) {
	if b.Sequencer == (memberConfig{}) && len(b.Units) == 0 && len(b.Chains) == 0 {
		return nil, nil
	}
	d, err := layout.ParseDurability(b.Durability)
	if err != nil {
		return nil, &usageError{err}
	}
	l := &layout.Layout{
		Geometry: b.Geometry.geometry(), Durability: d,
		Sequencer: layout.Sequencer{ID: layout.SequencerID(b.Sequencer.ID), Control: b.Sequencer.Control},
		Segments:  make([]layout.Segment, 1),
	}
	if b.Log != "" {
		if l.Log, err = layout.ParseLogID(b.Log); err != nil {
			return nil, &usageError{err}
		}
	}
	for _, u := range b.Units {
		l.Units = append(l.Units, layout.Unit{ID: layout.UnitID(u.ID), Control: u.Control})
	}
	for _, u := range b.Spares {
		l.Spares = append(l.Spares, layout.Unit{ID: layout.UnitID(u.ID), Control: u.Control})
	}
	for _, s := range b.Standbys {
		l.Standbys = append(l.Standbys, layout.Sequencer{ID: layout.SequencerID(s.ID), Control: s.Control})
	}
	for _, c := range b.Chains {
		var chain layout.Chain
		for _, id := range c {
			chain.Units = append(chain.Units, layout.UnitID(id))
		}
		l.Segments[0].Chains = append(l.Segments[0].Chains, chain)
	}
	return l, b.check(*l)
}

// checkAddrs finds members that nobody could dial.
func (b *bootstrapConfig) checkAddrs() error {
	var errs []error
	for _, x := range []struct {
		kind string
		list []memberConfig
	}{{"sequencer", []memberConfig{b.Sequencer}}, {"unit", b.Units}, {"spare", b.Spares}, {"standby", b.Standbys}} {
		for _, m := range x.list {
			errs = append(errs, checkAddr(fmt.Sprintf("%s %d, control", x.kind, m.ID), m.Control))
		}
	}
	return errors.Join(errs...)
}

// check validates the template as the layout that it will become.
func (b *bootstrapConfig) check(l layout.Layout) error {
	l.Epoch = 1
	if l.Log.IsZero() {
		l.Log = layout.LogID{1}
	}
	if err := l.Validate(); err != nil {
		return &usageError{fmt.Errorf("the first layout is not possible: %w", err)}
	}
	return nil
}
