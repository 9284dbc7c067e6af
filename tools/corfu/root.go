package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"corfu/internal/certs"
	"corfu/rdma/fabric"
)

// app is one run of the command: its streams and the flags that all commands share.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	cluster  string        // --cluster: layout servers, comma-separated; "": found by findCluster
	provider string        // --provider
	device   string        // --device
	timeout  time.Duration // --timeout
	output   string        // -o
	insecure bool          // --insecure
	tls      certs.Files   // --tls-ca, --tls-cert, --tls-key, --tls-crl
	verbose  bool          // --verbose
	config   string        // --config

	roles map[string]settings // by role

	started bool  // a command's own code began: errors before it are about usage
	lost    error // help was all that cobra had for a command that does not exist
}

// run executes the command line and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.lost
	}
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errUnhealthy) {
		return exitRuntime
	}
	var usage *usageError
	if a.started && !errors.As(err, &usage) {
		fmt.Fprintf(stderr, "corfu: %s\n", oneLine(err))
		return exitRuntime
	}
	fmt.Fprintf(stderr, "corfu: %s (see %s --help)\n", oneLine(err), cmd.CommandPath())
	return exitUsage
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:               "corfu",
		Short:             "A shared log over RDMA flash",
		Long:              "corfu is a shared log over RDMA flash: one totally ordered log that many clients append to and read from.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkFlags() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.config, "config", "", "read settings from this YAML `file` (default: $CORFU_CONFIG; clients then read "+clientFile+", root "+operatorFile+" if it is there)")
	f.StringVar(&a.cluster, "cluster", "", "layout `servers`, host:port, comma-separated (default: $CORFU_LAYOUT_SERVERS, then a running corfu dev, then "+defaultLayout+")")
	f.StringVar(&a.provider, "provider", "", "fabric `provider`: auto, verbs or tcp (default: what the cluster file says, then auto)")
	f.StringVar(&a.device, "device", "", "RDMA `device` (default: the first usable one)")
	f.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to wait for an answer of the cluster")
	f.StringVarP(&a.output, "output", "o", "text", "output `format`: text or json")
	f.BoolVar(&a.insecure, "insecure", false, "talk, and listen, in clear outside loopback: for networks where everybody is trusted")
	f.StringVar(&a.tls.CA, "tls-ca", "", "`file` of the authorities whose certificates are good (default: $"+envTLSCA+")")
	f.StringVar(&a.tls.Cert, "tls-cert", "", "`file` of the own certificate (default: $"+envTLSCert+")")
	f.StringVar(&a.tls.Key, "tls-key", "", "`file` of its key (default: $"+envTLSKey+")")
	f.StringVar(&a.tls.CRL, "tls-crl", "", "`file` of the authorities' revocation lists (default: $"+envTLSCRL+"; none: nobody is revoked)")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what happens to stderr")
	a.settingsOf("client", root, &clientConfig{
		LayoutServers: []string{defaultLayout}, Fabric: clientFabric{Provider: fabric.Auto}, Timeout: a.timeout,
	})
	root.AddCommand(
		a.devCommand(), a.demoCommand(), a.benchCommand(), a.benchFlashCommand(), a.scrubCommand(), a.fsckCommand(), a.dumpCommand(),
		a.layoutCommand(), a.seqCommand(), a.unitCommand(), a.chainCommand(),
		a.statusCommand(), a.topCommand(),
		a.appendCommand(), a.readCommand(), a.tailCommand(), a.fillCommand(), a.trimCommand(),
		a.certsCommand(), a.devicesCommand(), a.doctorCommand(), a.configCommand(), a.versionCommand(), a.manCommand(),
	)
	a.addCompletions(root)
	describeCommands(root)
	nameArguments(root)
	a.noticeUnknown(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return negative(err) })
	return root
}

// noticeUnknown makes an error of a command that does not exist below one that only groups others, such as corfu chain: cobra prints the
// group's help, and is content.
func (a *app) noticeUnknown(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		asked := cmd.Flags().Lookup("help")
		if rest := cmd.Flags().Args(); !cmd.Runnable() && len(rest) > 0 && (asked == nil || !asked.Changed) {
			a.lost = fmt.Errorf("unknown command %q for %q", rest[0], cmd.CommandPath())
			return
		}
		help(cmd, args)
	})
	root.InitDefaultHelpCmd()
	find(root, "help").Args = func(_ *cobra.Command, path []string) error {
		if cmd, rest, err := root.Find(path); err != nil || len(rest) > 0 {
			return fmt.Errorf("unknown command %q for %q", strings.Join(rest, " "), cmd.CommandPath())
		}
		return nil
	}
}

func (a *app) checkFlags() error {
	if a.output != "text" && a.output != "json" {
		return usagef("output format %q: must be text or json", a.output)
	}
	if err := checkProvider(a.provider); err != nil {
		return err
	}
	if a.timeout <= 0 {
		return usagef("timeout %v: must be above zero", a.timeout)
	}
	return nil
}

func (a *app) json() bool { return a.output == "json" }

// body marks where usage ends and work begins.
func (a *app) body(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		return f(cmd.Context(), args)
	}
}

// logger of clients and daemons. quiet: warnings and worse, unless --verbose asks for more.
func (a *app) logger(quiet bool) *slog.Logger {
	level := slog.LevelInfo
	switch {
	case a.verbose:
		level = slog.LevelDebug
	case quiet:
		level = slog.LevelError
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
}
