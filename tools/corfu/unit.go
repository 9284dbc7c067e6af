package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"corfu/internal/certs"
	"corfu/layout"
	"corfu/unit/flash"
	unitserver "corfu/unit/server"
)

// unitConfig is the configuration file of a storage unit.
type unitConfig struct {
	ID           uint32 `yaml:"id" flag:"id"`
	Store        string `yaml:"store" flag:"store"`
	Capacity     string `yaml:"capacity" flag:"capacity"`
	SegmentPages int    `yaml:"segment_pages" flag:"segment-pages"`
	ScrubRate    string `yaml:"scrub_rate" flag:"scrub-rate"`
	ScrubEvery   string `yaml:"scrub_every" flag:"scrub-every"`
	PerIdentity  int    `yaml:"max_sessions_per_identity" flag:"max-sessions-per-identity"`
	daemonConfig `yaml:",inline"`
	Fabric       fabricConfig `yaml:"fabric"`
}

func (a *app) unitCommand() *cobra.Command {
	var c unitConfig
	var format bool
	cmd := &cobra.Command{
		Use: "unit", Short: "Run a storage unit", Args: cobra.NoArgs,
		Long: `Run a storage unit: registered memory that clients write pages to, and the flash
store behind it. It serves nothing until the layout service activates it.

The store is a directory, or a block device that is the unit's alone:
a blank device is formatted, and one that holds something else is refused.

The Go runtime gets at least 8 processors, so that reads which wait for the disk do
not hold up writes on a machine with few cores; GOMAXPROCS in the environment says
otherwise.`,
		Example: `  corfu unit --id 1 --store /var/lib/corfu/unit-1
  corfu unit --id 2 --store /dev/nvme1n1`,
	}
	a.settingsOf("unit", cmd, &c)
	daemonFlags(cmd.Flags(), &c.daemonConfig, "127.0.0.1:7780", "127.0.0.1:7880")
	cmd.Flags().Lookup("dir").Usage = "the same `path` as --store"
	cmd.Flags().StringVar(&c.Store, "store", "", "`path` of a directory, made if it is not there, or of a block device: everything durable")
	cmd.Flags().BoolVar(&format, "format", false, "take a device that holds something else, which is lost; never one with a unit's store, whose ever")
	fabricFlags(cmd.Flags(), &c.Fabric)
	cmd.Flags().Uint32Var(&c.ID, "id", 0, "the unit's `number`, from 1; its store keeps it for ever")
	cmd.Flags().StringVar(&c.Capacity, "capacity", "", "how much the unit may keep, a `size` such as 500GiB; it takes no more pages then (default: what the disk gives)")
	cmd.Flags().IntVar(&c.SegmentPages, "segment-pages", 0, "`pages` of one segment of a new store, 16 to 1048576: what it takes from the disk at a time (default 16384)")
	cmd.Flags().StringVar(&c.ScrubRate, "scrub-rate", "8MiB", "how much the unit reads per second, beside its work, to verify what it has on flash, a `size`; 0 switches that off")
	cmd.Flags().StringVar(&c.ScrubEvery, "scrub-every", "168h", "how long after the end of one verification the next begins, as a `duration`")
	perIdentityFlag(cmd.Flags(), &c.PerIdentity)
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := a.loadDaemon("unit"); err != nil {
			return err
		}
		capacity, err := parseSize(c.Capacity)
		if err != nil {
			return usagef("capacity %q: %w", c.Capacity, err)
		}
		rate, every, err := c.scrub()
		if err != nil {
			return err
		}
		tls, err := a.serverIdentity(c.TLS, certs.Unit)
		if err != nil {
			return err
		}
		log := a.logger(false).With("unit", c.ID)
		dev, reason, watch, err := a.openTold(c.Fabric, c.Control, c.Insecure, log)
		if err != nil {
			return err
		}
		defer dev.Close()
		log.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "why", reason, "processors", useProcessors())
		return a.serve(ctx, fmt.Sprintf("corfu unit %d", c.ID), c.daemonConfig, tls, dev.Info().Provider, watch, func(r *prometheus.Registry) (daemon, error) {
			r.MustRegister(&deviceCollector{info: dev.Info()})
			return unitserver.Start(ctx, unitserver.Config{
				ID: layout.UnitID(c.ID), Dir: c.Dir, Control: c.Control, Fabric: c.Fabric.Listen, Advertise: c.Fabric.Advertise, Device: dev,
				Flash: flash.Options{Capacity: capacity, Format: format, SegmentPages: c.SegmentPages}, ScrubRate: rate, ScrubEvery: every,
				TLS: tls, MaxOfIdentity: c.PerIdentity, Insecure: c.Insecure || a.insecure,
				// As corfu dev shows them, where all units are in one process.
				Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"unit": strconv.FormatUint(uint64(c.ID), 10)}, r), Logger: log,
			})
		})
	})
	cmd.AddCommand(a.unitAddCommand(), a.unitDrainCommand(), a.unitReplaceCommand(), a.unitRemoveCommand())
	return cmd
}

func (c *unitConfig) settle() error {
	switch {
	case c.Store == "":
		c.Store = c.Dir
	case c.Dir != "" && c.Store != c.Dir:
		return usagef("--store %s and --dir %s are two names of one thing: give one", c.Store, c.Dir)
	}
	c.Dir = c.Store
	return nil
}

func (c *unitConfig) check() error {
	switch {
	case c.ID == 0:
		return needs("unit", "id", ", a number from 1")
	case c.Store == "":
		return needs("unit", "store", "")
	case c.SegmentPages != 0 && (c.SegmentPages < 16 || c.SegmentPages > 1<<20):
		return usagef("segment pages %d: must be 16 to %d", c.SegmentPages, 1<<20)
	}
	_, bad := parseSize(c.Capacity)
	if bad != nil {
		bad = usagef("capacity %q: %w", c.Capacity, bad)
	}
	_, _, worse := c.scrub()
	return errors.Join(bad, worse, c.daemonConfig.check(), c.Fabric.check(), checkSessions("max_sessions_per_identity", c.PerIdentity))
}

// scrub gives rate and interval of the unit's own scrubs.
func (c *unitConfig) scrub() (rate int64, every time.Duration, err error) {
	if c.ScrubRate == "0" {
		rate = -1
	} else if rate, err = parseSize(c.ScrubRate); err != nil {
		return 0, 0, usagef("scrub rate %q: %w; or 0 for none", c.ScrubRate, err)
	}
	if every, err = time.ParseDuration(c.ScrubEvery); c.ScrubEvery != "" && (err != nil || every <= 0) {
		return 0, 0, usagef("scrub every %q: must be a duration above zero, as in 168h", c.ScrubEvery)
	}
	return rate, every, nil
}
