package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"corfu/internal/certs"
	"corfu/layout"
	seqserver "corfu/seq/server"
)

// seqConfig is the configuration file of a sequencer.
type seqConfig struct {
	ID           uint32 `yaml:"id" flag:"id"`
	MaxSessions  int    `yaml:"max_sessions" flag:"max-sessions"`
	PerIdentity  int    `yaml:"max_sessions_per_identity" flag:"max-sessions-per-identity"`
	daemonConfig `yaml:",inline"`
	Fabric       fabricConfig `yaml:"fabric"`
}

func (c *seqConfig) settle() error { return nil }

func (c *seqConfig) check() error {
	switch {
	case c.ID == 0:
		return needs("seq", "id", ", a number from 1")
	case c.Dir == "":
		return needs("seq", "dir", "")
	}
	return errors.Join(c.daemonConfig.check(), c.Fabric.check(), checkSessions("max_sessions", c.MaxSessions), checkSessions("max_sessions_per_identity", c.PerIdentity))
}

func (a *app) seqCommand() *cobra.Command {
	c := seqConfig{ID: 1}
	cmd := &cobra.Command{
		Use: "seq", Short: "Run a sequencer", Args: cobra.NoArgs,
		Long: `Run a sequencer: one word of registered memory that clients add to. It serves
nothing until the layout service activates it.`,
	}
	a.settingsOf("seq", cmd, &c)
	daemonFlags(cmd.Flags(), &c.daemonConfig, "127.0.0.1:7771", "127.0.0.1:7871")
	fabricFlags(cmd.Flags(), &c.Fabric)
	cmd.Flags().Uint32Var(&c.ID, "id", 1, "the sequencer's `number`, from 1")
	cmd.Flags().IntVar(&c.MaxSessions, "max-sessions", 0, "`connections` of clients at a time (default 8192)")
	perIdentityFlag(cmd.Flags(), &c.PerIdentity)
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if err := a.loadDaemon("seq"); err != nil {
			return err
		}
		tls, err := a.serverIdentity(c.TLS, certs.Seq)
		if err != nil {
			return err
		}
		// Two that keep their promises in one file would forget what the other one promised (rule R14).
		release, err := lockDir(c.Dir)
		if err != nil {
			return err
		}
		defer release()
		log := a.logger(false).With("sequencer", c.ID)
		dev, reason, watch, err := a.openTold(c.Fabric, c.Control, c.Insecure, log)
		if err != nil {
			return err
		}
		defer dev.Close()
		log.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "why", reason)
		return a.serve(ctx, fmt.Sprintf("corfu seq %d", c.ID), c.daemonConfig, tls, dev.Info().Provider, watch, func(r *prometheus.Registry) (daemon, error) {
			r.MustRegister(&deviceCollector{info: dev.Info()})
			return seqserver.Start(ctx, seqserver.Config{
				ID: layout.SequencerID(c.ID), Dir: c.Dir, Control: c.Control, Fabric: c.Fabric.Listen, Advertise: c.Fabric.Advertise, Device: dev,
				TLS: tls, MaxSessions: c.MaxSessions, MaxOfIdentity: c.PerIdentity, Insecure: c.Insecure || a.insecure, Registerer: r, Logger: log,
			})
		})
	})
	cmd.AddCommand(a.seqFailoverCommand())
	return cmd
}
