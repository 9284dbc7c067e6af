package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/tools/corfu/internal/scratch"
)

type devFlags struct {
	dir, control, http, durability string
	chains, replicas, layouts      int
}

func (a *app) devCommand() *cobra.Command {
	var d devFlags
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a whole cluster in one process", Args: cobra.NoArgs,
		Long: `Run a whole cluster in one process on loopback: layout servers, a sequencer and
chains of storage units. It stays up until interrupted; the other commands find it
by themselves. Without --dir everything is forgotten at the end.`,
	}
	f := cmd.Flags()
	f.StringVar(&d.dir, "dir", "", "`directory` that keeps the cluster (default: a temporary one)")
	f.StringVar(&d.control, "control", "", "`host:port` of the layout server (default: "+defaultLayout+", or a free port if that is taken)")
	f.StringVar(&d.http, "http", "127.0.0.1:0", "`host:port` of /metrics, /livez and /readyz, or off")
	f.StringVar(&d.durability, "durability", "flash", "flash, or memory: an append is acknowledged before it is on flash")
	f.IntVar(&d.chains, "chains", 0, "chains (default 2, or what --dir holds)")
	f.IntVar(&d.replicas, "replicas", 0, "units of each chain (default 2, or what --dir holds)")
	f.IntVar(&d.layouts, "layout-servers", 0, "layout servers: 1, 3, 5 or 7 (default 1, or what --dir holds)")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		for _, name := range []string{"chains", "replicas", "layout-servers"} {
			if n, _ := f.GetInt(name); f.Changed(name) && n < 1 {
				return usagef("--%s %d: must be at least 1", name, n)
			}
		}
		if n := d.layouts; n != 0 && (n > 7 || n%2 == 0) {
			return usagef("--layout-servers %d: must be 1, 3, 5 or 7", n)
		}
		return a.dev(ctx, d)
	})
	return cmd
}

func (a *app) dev(ctx context.Context, d devFlags) (err error) {
	outliveReaders()
	durability, err := layout.ParseDurability(d.durability)
	if err != nil {
		return &usageError{err}
	}
	if err := checkAddr("--control", d.control); err != nil {
		return err
	}
	if d.http != httpOff {
		if err := checkAddr("--http", d.http); err != nil {
			return err
		}
	}
	kept := d.dir != ""
	if !kept {
		remove := func() error { return nil }
		if d.dir, remove, err = scratch.Dir("corfu-dev-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		if d.control == "" {
			d.control = freeOr(defaultLayout)
		}
	} else if d.control == "" && !exists(d.dir) {
		d.control = freeOr(defaultLayout)
	}
	useProcessors()
	r := newRegistry()
	c, err := devcluster.Start(ctx, devcluster.Options{
		Provider: a.provider, DeviceName: a.device, Dir: d.dir, Control: d.control,
		Chains: d.chains, Replicas: d.replicas, LayoutServers: d.layouts, Durability: durability, Registerer: r, Logger: a.logger(true),
	})
	if errors.Is(err, devcluster.ErrShape) {
		return &usageError{err}
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return a.devUp(ctx, c, d, kept, r)
}

// devUp tells the world about the cluster and waits for the end.
func (a *app) devUp(ctx context.Context, c *devcluster.Cluster, d devFlags, kept bool, r *prometheus.Registry) error {
	st, err := serveStatus(d.http, profilesLocal, nil, a.insecure, r, c)
	if err != nil {
		return err
	}
	defer st.close()
	dev, reason := c.Device()
	info := dev.Info()
	r.MustRegister(&deviceCollector{info: info})
	file, remove, err := writeClusterFile(clusterFile{
		LayoutServers: c.LayoutAddrs(), Provider: info.Provider, Device: deviceName(info.Provider, info.Name), PID: os.Getpid(),
	})
	if err == nil {
		defer remove()
	}
	if a.json() {
		if err := a.printJSON(devJSON{ready{"corfu dev", version, c.LayoutAddr(), st.addr(), "", d.dir, info.Provider}, info.Name, reason, file}); err != nil && !errors.Is(err, syscall.EPIPE) {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "layout server  %s\nweb page       http://%s/ (and /metrics, /livez, /readyz, /api/status)\nfabric         %s, device %s: %s\n", strings.Join(c.LayoutAddrs(), ","), st.addr(), info.Provider, info.Name, reason)
		fate := "forgotten at the end"
		if kept {
			fate = "kept"
		}
		fmt.Fprintf(a.stdout, "data           %s, %s\n\n", d.dir, fate)
		if err != nil {
			fmt.Fprintf(a.stdout, "Other commands need --cluster %s (%v).\n", strings.Join(c.LayoutAddrs(), ","), err)
		} else {
			fmt.Fprintln(a.stdout, "Other commands find it by themselves; try: corfu append hello && corfu read 0")
		}
		fmt.Fprintln(a.stdout, "Up. Interrupt to stop.")
	}
	// Its device is closed with the process, which a removal waits for.
	select {
	case <-ctx.Done():
		return nil
	case <-gone(dev):
		return goneErr(dev)
	}
}

// devJSON is what corfu dev -o json says once it is up.
type devJSON struct {
	ready
	Device  string `json:"device"`
	Reason  string `json:"reason"`
	Cluster string `json:"cluster_file"`
}

// deviceName is what client options take: only verbs devices have names to choose by.
func deviceName(provider, name string) string {
	if provider == "verbs" {
		return name
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
