package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

func (a *app) layoutSetCommand() *cobra.Command {
	const flag = "max-sessions"
	var sessions int
	cmd := a.changeCommand(&cobra.Command{Use: "set --max-sessions n", Short: "Change max_sessions of a running log", Args: cobra.NoArgs,
		Long: "Make an epoch with another max_sessions, which bounds the clients that a unit serves at once (docs/config.md,\n" +
			"bootstrap.geometry.max_sessions; corfu status shows how many have a session, and how many may). All sessions end, as with\n" +
			"every epoch, and clients go on by themselves.\n\n" +
			"A unit takes page_size × session_slots × max_sessions bytes for it, and some more for messages. Each takes them before the log is\n" +
			"stopped for a moment, beside those that it has. Where one does not get them nothing changes, and the command says which unit it\n" +
			"is, how much it takes and what to raise. A lower value gives memory back; clients beyond what it has room for are turned away.",
		Example: "  corfu layout set --max-sessions 512 --dry-run\n  corfu layout set --max-sessions 512",
	}, func([]string) (*pb.ReconfigureRequest, error) {
		g := layout.DefaultGeometry()
		g.MaxSessions = sessions
		if err := g.Validate(); err != nil {
			return nil, usagef("--%s: %w", flag, err)
		}
		return &pb.ReconfigureRequest{MaxSessions: uint32(sessions)}, nil
	})
	cmd.Flags().IntVar(&sessions, flag, 0, "`clients` that would have all their staging pages at a unit, 1 to 4096: half as many do, many more share the other half")
	_ = cmd.MarkFlagRequired(flag) // it is there
	return cmd
}

// understood fails if the leader does not know what max_sessions of a request says: it would make an epoch without it.
func (a *app) understood(ctx context.Context, q *pb.ReconfigureRequest) error {
	try := &pb.ReconfigureRequest{Reason: q.Reason, MaxSessions: q.MaxSessions, DryRun: true}
	l, err := a.reconfigure(ctx, try)
	if err == nil && l.Geometry.MaxSessions != int(q.MaxSessions) {
		err = fmt.Errorf("the layout servers are of a release that cannot change max_sessions of a running log: upgrade them first (docs/upgrade.md)")
	}
	return err
}
