package main

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"corfu/layout"
	"corfu/unit/flash"
	unitserver "corfu/unit/server"
)

// unitConfig is the configuration file of a storage unit.
type unitConfig struct {
	ID           uint32 `yaml:"id"`
	Capacity     string `yaml:"capacity"`
	daemonConfig `yaml:",inline"`
}

func (a *app) unitCommand() *cobra.Command {
	var c unitConfig
	var config string
	cmd := &cobra.Command{
		Use: "unit", Short: "Run a storage unit", Args: cobra.NoArgs,
		Long: `Run a storage unit: registered memory that clients write pages to, and the flash
store behind it. It serves nothing until the layout service activates it.`,
	}
	daemonFlags(cmd.Flags(), &c.daemonConfig, &config, "127.0.0.1:7780", "127.0.0.1:7880")
	fabricFlags(cmd.Flags(), &c.Fabric)
	cmd.Flags().Uint32Var(&c.ID, "id", 0, "the unit's `number`, from 1; its directory keeps it for ever")
	cmd.Flags().StringVar(&c.Capacity, "capacity", "", "how much the unit may keep, as in `500GiB`; it takes no more pages then (default: what the disk gives)")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := loadConfig(cmd, config, &c); err != nil {
			return err
		}
		capacity, err := parseSize(c.Capacity)
		if err != nil {
			return usagef("capacity %q: %w", c.Capacity, err)
		}
		switch {
		case c.ID == 0:
			return usagef("unit needs --id, a number from 1")
		case c.Dir == "":
			return usagef("unit needs --dir")
		}
		dev, reason, err := a.openFabric(c.Fabric)
		if err != nil {
			return err
		}
		defer dev.Close()
		log := a.logger(false).With("unit", c.ID)
		log.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "why", reason)
		return a.serve(ctx, fmt.Sprintf("corfu unit %d", c.ID), c.daemonConfig, dev.Info().Provider, func(r *prometheus.Registry) (daemon, error) {
			return unitserver.Start(ctx, unitserver.Config{
				ID: layout.UnitID(c.ID), Dir: c.Dir, Control: c.Control, Fabric: c.Fabric.Listen, Device: dev,
				Flash: flash.Options{Capacity: capacity}, Insecure: c.Insecure || a.insecure, Registerer: r, Logger: log,
			})
		})
	})
	return cmd
}
