package main

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"corfu/layout"
	seqserver "corfu/seq/server"
)

// seqConfig is the configuration file of a sequencer.
type seqConfig struct {
	ID           uint32 `yaml:"id"`
	daemonConfig `yaml:",inline"`
}

func (a *app) seqCommand() *cobra.Command {
	c := seqConfig{ID: 1}
	var config string
	cmd := &cobra.Command{
		Use: "seq", Short: "Run a sequencer", Args: cobra.NoArgs,
		Long: `Run a sequencer: one word of registered memory that clients add to. It serves
nothing until the layout service activates it.`,
	}
	daemonFlags(cmd.Flags(), &c.daemonConfig, &config, "127.0.0.1:7771", "127.0.0.1:7871")
	fabricFlags(cmd.Flags(), &c.Fabric)
	cmd.Flags().Uint32Var(&c.ID, "id", 1, "the sequencer's `number`, from 1")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := loadConfig(cmd, config, &c); err != nil {
			return err
		}
		switch {
		case c.ID == 0:
			return usagef("seq needs --id, a number from 1")
		case c.Dir == "":
			return usagef("seq needs --dir")
		}
		dev, reason, err := a.openFabric(c.Fabric)
		if err != nil {
			return err
		}
		defer dev.Close()
		log := a.logger(false).With("sequencer", c.ID)
		log.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "why", reason)
		return a.serve(ctx, fmt.Sprintf("corfu seq %d", c.ID), c.daemonConfig, dev.Info().Provider, func(r *prometheus.Registry) (daemon, error) {
			r.MustRegister(deviceCollector{dev.Info()})
			return seqserver.Start(ctx, seqserver.Config{
				ID: layout.SequencerID(c.ID), Dir: c.Dir, Control: c.Control, Fabric: c.Fabric.Listen, Device: dev,
				Insecure: c.Insecure || a.insecure, Registerer: r, Logger: log,
			})
		})
	})
	cmd.AddCommand(a.seqFailoverCommand())
	return cmd
}
