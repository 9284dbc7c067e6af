package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

// errUnhealthy ends a command with exit status 1 whose output says it all.
var errUnhealthy = errors.New("the cluster is not healthy")

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use: "status", Short: "Say whether the cluster is well, and if not what to do", Args: cobra.NoArgs,
		Long: `Say whether the cluster is well, and if not what to do: the first line is the verdict.

  healthy   all is as it should be
  DEGRADED  the log works; somebody should see to it, or wait until it has mended itself
  DOWN      appends, or reads, wait for somebody

Below it: chains and their units, spares, the sequencer, the layout servers, copies that
are under way, and the latest reconfigurations. The exit status is 0 if the verdict is
healthy, and 1 if not. Rates are averages over about 5 seconds.`,
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, on the whole terminal; q ends that")
	cmd.Flags().DurationVar(&every, "interval", time.Second, "how often, with --watch")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if every < 100*time.Millisecond {
			return usagef("--interval %v: must be at least 100ms", every)
		}
		if watch {
			return a.show(ctx, every, 0, statusLines)
		}
		m, err := a.clusterStatus(ctx)
		if err != nil {
			return err
		}
		if err := a.printClusterStatus(m, statusLines); err != nil {
			return err
		}
		if m.Verdict != clusterstatus.Healthy {
			return errUnhealthy
		}
		return nil
	})
	return cmd
}

// clusterStatus asks the leader of the layout servers, or says how each of them is, if none leads.
func (a *app) clusterStatus(ctx context.Context) (*pb.ClusterStatus, error) {
	m, asked, err := askLeader(ctx, a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.ClusterStatus, error) {
		return c.Cluster(ctx, &pb.ClusterStatusRequest{})
	})
	// Who refuses is up: that it is asked in vain says nothing of the cluster.
	if code := grpcstatus.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded || ctx.Err() != nil {
		return m, explainLayout(asked, err)
	}
	servers, _ := a.askServers(ctx)
	if slices.ContainsFunc(servers, func(s serverStatusJSON) bool { return s.Role == "leader" }) {
		return nil, explainLayout(asked, err) // it leads, and does not say
	}
	var list []*pb.LayoutServerStatus
	for _, s := range servers {
		list = append(list, &pb.LayoutServerStatus{Id: s.ID, Control: s.Control, Role: s.Role, Term: s.Term, CommitIndex: s.CommitIndex,
			LastContactMs: s.LastContactMS, Epoch: s.Epoch, Error: clusterstatus.Brief(s.Error), Absence: s.absence})
	}
	return clusterstatus.NoLeader(time.Now(), list), nil
}

// printClusterStatus prints a status as JSON, or as the lines that layout makes of it.
func (a *app) printClusterStatus(m *pb.ClusterStatus, layout func(*pb.ClusterStatus) []line) error {
	if a.json() {
		b, err := clusterstatus.JSON(m)
		if err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s\n", b)
		}
		return err
	}
	_, _, tty := a.terminal()
	_, err := io.WriteString(a.stdout, text(layout(m), tty && os.Getenv("NO_COLOR") == ""))
	return err
}

// text puts lines together, with their styles or without.
func text(lines []line, styled bool) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.render(styled))
		b.WriteByte('\n')
	}
	return b.String()
}

func (l line) render(styled bool) string {
	if !styled || l.style == plain {
		return l.text
	}
	return string(l.style) + l.text + reset
}

// terminal gives the size of the terminal that stdout is; ok tells whether it is one.
func (a *app) terminal() (width, height int, ok bool) {
	f, isFile := a.stdout.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return width, height, err == nil
}
