package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/tools/corfu/internal/corpus"
	"corfu/tools/corfu/internal/scratch"
)

// goMemoryLimit keeps the garbage collector from letting the heap grow where registered memory and the
// heap must stay below 512 MB together. Bytes.
const goMemoryLimit = 200 << 20

type demoFlags struct {
	source, dir, durability string
	mib                     int
	keep                    bool
}

func (a *app) demoCommand() *cobra.Command {
	var d demoFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "Load a real file into a cluster, read it back, compare", Args: cobra.NoArgs,
		Long: `Start a cluster on loopback (a layout server, a sequencer, 2 chains of 2 units), load
real text into the log with many appends in flight, read all of it back, and
compare SHA-256 sums. The exit status is 1 if they differ.`,
	}
	f := cmd.Flags()
	f.StringVar(&d.source, "source", "", "load this `path`: a file, or all *.go files below a directory (default: the Go toolchain's sources)")
	f.IntVar(&d.mib, "size", 64, "load at most this many `MiB`")
	f.StringVar(&d.dir, "dir", "", "`directory` for the cluster (default: a temporary one)")
	f.BoolVar(&d.keep, "keep", false, "keep the directory, for corfu dev --dir")
	f.StringVar(&d.durability, "durability", "flash", "flash, or memory: an append is acknowledged before it is on flash")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if d.mib < 1 {
			return usagef("--size %d: must be at least 1", d.mib)
		}
		debug.SetMemoryLimit(goMemoryLimit)
		return a.demo(ctx, d)
	})
	return cmd
}

func (a *app) demo(ctx context.Context, d demoFlags) (err error) {
	durability, err := layout.ParseDurability(d.durability)
	if err != nil {
		return &usageError{err}
	}
	c, err := d.corpus()
	if err != nil {
		return err
	}
	if d.dir == "" {
		remove := func() error { return nil }
		if d.dir, remove, err = scratch.Dir("corfu-demo-"); err != nil {
			return err
		}
		if !d.keep {
			defer func() { err = errors.Join(err, remove()) }()
		}
	}
	a.say("Starting a cluster in %s: a layout server, a sequencer, 2 chains of 2 units.\n", d.dir)
	cl, err := devcluster.Start(ctx, devcluster.Options{
		Provider: a.provider, DeviceName: a.device, Dir: d.dir, Durability: durability, Logger: a.logger(true),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	dev, reason := cl.Device()
	a.say("Fabric: %s, device %s (%s).\nSource: %s.\n", dev.Info().Provider, dev.Info().Name, reason, c.Name)

	l, err := client.Open(ctx, client.Options{LayoutServers: []string{cl.LayoutAddr()}, Device: dev, MaxOutstanding: demoOutstanding, Logger: a.logger(true)})
	if err != nil {
		return err
	}
	r, err := a.loadAndRead(ctx, l, c)
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	r.describe(cl, reason)
	if err := a.printDemo(r); err != nil {
		return err
	}
	if r.Written != r.Read {
		return fmt.Errorf("what was read back is not what was written: SHA-256 %s, not %s", r.Read, r.Written)
	}
	return nil
}

func (d demoFlags) corpus() (c corpus.Corpus, err error) {
	if d.source == "" {
		c, err = corpus.Find()
	} else {
		c, err = corpus.Open(d.source)
	}
	return c.Cut(int64(d.mib) << 20), err
}

// say tells a person what goes on; a script that asked for JSON gets it on stderr, out of the way.
func (a *app) say(format string, args ...any) {
	w := a.stdout
	if a.json() {
		w = a.stderr
	}
	fmt.Fprintf(w, format, args...)
}
