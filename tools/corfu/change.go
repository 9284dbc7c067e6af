package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// Commands that change the members of the cluster. Each is a reconfiguration, or begins one of several; with --dry-run it prints what
// would change, and changes nothing. Each can be repeated: what is so already is said to be so.

func (a *app) unitAddCommand() *cobra.Command {
	var loss bool
	cmd := a.changeCommand(&cobra.Command{Use: "add id=host:port", Short: "Add a storage unit as a spare", Args: cobra.ExactArgs(1),
		Long: "Add a storage unit as a spare: it joins the next chain that lacks a unit. What it holds of another life is wiped then.\n" +
			"A unit that was drained is a spare again; one that is to leave stays.\n\n" +
			"With --accept-loss, the store of a member that lost its past (an old copy, an empty directory) counts as it is: what it\n" +
			"lacks, and no other member has, is lost for good. A spare that may hold what was given up before is wiped.",
	}, func(args []string) (*pb.ReconfigureRequest, error) {
		m, err := parseMember("unit", args[0])
		return &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: m.ID, Control: m.Control}}, AcceptLoss: loss}, err
	})
	cmd.Flags().BoolVar(&loss, "accept-loss", false, "take its store as it is, though entries are lost with it, or wipe what was given up")
	return cmd
}

func (a *app) unitRemoveCommand() *cobra.Command {
	var loss bool
	cmd := a.changeCommand(&cobra.Command{Use: "remove id…", Short: "Remove storage units from the cluster at once", Args: cobra.MinimumNArgs(1),
		Long: "Remove a storage unit: it leaves its chains at once, and a spare, if there is one, joins in its place. Older entries are copied\n" +
			"from the units that stay. For a unit that works, corfu unit drain is safer: it leaves once others hold what it holds. Several are\n" +
			"removed at once, where the log waits for all of them.",
	}, func(args []string) (*pb.ReconfigureRequest, error) {
		q := &pb.ReconfigureRequest{AcceptLoss: loss}
		for _, s := range args {
			id, err := parseUnitID(s)
			if err != nil {
				return nil, err
			}
			if slices.Contains(q.Remove, id) {
				return nil, usagef("unit %d is named twice", id)
			}
			q.Remove = append(q.Remove, id)
		}
		return q, nil
	})
	cmd.Flags().BoolVar(&loss, "accept-loss", false, "even if entries are lost with them, since all other copies of them are corrupt")
	return cmd
}

func (a *app) unitDrainCommand() *cobra.Command {
	var shorter bool
	cmd := a.waitingCommand(&cobra.Command{Use: "drain id", Short: "Take a storage unit out of its chains, once others hold what it holds", Args: cobra.ExactArgs(1),
		Long: "Drain a storage unit: a spare joins in its place, for new entries at once; older ones are copied to it in the background, and then\n" +
			"the unit leaves its chains. It is out of service from then on, until corfu unit add or corfu unit remove. Whether it has left,\n" +
			"corfu layout status says, or --wait.",
	}, func(args []string) (*pb.ReconfigureRequest, error) {
		id, err := parseUnitID(args[0])
		return &pb.ReconfigureRequest{Drain: []*pb.Leaving{{Unit: id}}, Shorter: shorter}, err
	})
	cmd.Flags().BoolVar(&shorter, "shorter", false, "leave at once: without a spare the chains go on with fewer units")
	return cmd
}

func (a *app) unitReplaceCommand() *cobra.Command {
	return a.waitingCommand(&cobra.Command{Use: "replace old new|new=host:port", Short: "Let one storage unit take the place of another", Args: cobra.ExactArgs(2),
		Long: "Replace a storage unit, dead or alive, by a spare, or by one that is added with its address: as corfu unit drain, with the new one named.",
	}, func(args []string) (*pb.ReconfigureRequest, error) {
		id, err := parseUnitID(args[0])
		if err != nil {
			return nil, err
		}
		q := &pb.ReconfigureRequest{}
		by, err := unitOrNew(args[1], q)
		if id == by {
			return nil, usagef("unit %d cannot take its own place", id)
		}
		q.Drain = []*pb.Leaving{{Unit: id, By: by}}
		return q, err
	})
}

func (a *app) chainCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "chain", Short: "Change the chains of the cluster"}
	cmd.AddCommand(a.changeCommand(&cobra.Command{Use: "add unit,unit,…", Short: "Add a chain", Args: cobra.ExactArgs(1),
		Long: "Add a chain of spares, or of units that are added with their addresses (id=host:port), head first. Entries from the tail on are striped\n" +
			"over the chains that there are and this one; older ones stay where they are.",
		Example: "  corfu chain add 5,6\n  corfu chain add 5=10.0.0.5:7780,6=10.0.0.6:7780",
	}, func(args []string) (*pb.ReconfigureRequest, error) {
		q := &pb.ReconfigureRequest{}
		for _, s := range strings.Split(args[0], ",") {
			id, err := unitOrNew(s, q)
			if err != nil {
				return nil, err
			}
			if slices.Contains(q.Chain, id) {
				return nil, usagef("unit %d is named twice", id)
			}
			q.Chain = append(q.Chain, id)
		}
		return q, nil
	}))
	return cmd
}

func (a *app) seqFailoverCommand() *cobra.Command {
	return a.changeCommand(&cobra.Command{Use: "failover [id]", Short: "Let a standby take over from the sequencer", Args: cobra.MaximumNArgs(1),
		Long: "Let a standby take over from the sequencer, which stands by from then on: the one named, or the first that answers. Repeated with\n" +
			"a number it changes nothing; without one, the next standby takes over.",
	}, func(args []string) (*pb.ReconfigureRequest, error) {
		q := &pb.ReconfigureRequest{Failover: true}
		if len(args) > 0 {
			id, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || id == 0 {
				return nil, usagef("%q is not the number of a sequencer", args[0])
			}
			q.FailoverTo = uint32(id)
		}
		return q, nil
	})
}

func parseUnitID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id == 0 {
		return 0, usagef("%q is not the number of a unit", s)
	}
	return uint32(id), nil
}

// unitOrNew reads the number of a unit; id=host:port adds it as well.
func unitOrNew(s string, q *pb.ReconfigureRequest) (uint32, error) {
	if !strings.Contains(s, "=") {
		return parseUnitID(s)
	}
	m, err := parseMember("unit", s)
	q.Add = append(q.Add, &pb.Unit{Id: m.ID, Control: m.Control})
	return m.ID, err
}

func (a *app) changeCommand(cmd *cobra.Command, request func(args []string) (*pb.ReconfigureRequest, error)) *cobra.Command {
	var dry bool
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would change, as a diff of the layout, and change nothing")
	cmd.RunE = a.body(func(ctx context.Context, args []string) error {
		q, err := request(args)
		if err != nil {
			return err
		}
		q.Reason, q.DryRun = cmd.CommandPath(), dry
		return a.change(ctx, q)
	})
	return cmd
}

// waitingCommand is changeCommand for changes that go on in the background.
func (a *app) waitingCommand(cmd *cobra.Command, request func(args []string) (*pb.ReconfigureRequest, error)) *cobra.Command {
	a.changeCommand(cmd, request)
	var wait time.Duration
	cmd.Flags().DurationVar(&wait, "wait", 0, "return once the unit has left its chains; fail after this time, and it goes on all the same")
	begin := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := begin(cmd, args); err != nil || wait <= 0 || cmd.Flag("dry-run").Changed {
			return err
		}
		id, _ := parseUnitID(args[0])
		return a.awaitLeft(cmd.Context(), layout.UnitID(id), wait)
	}
	return cmd
}

// awaitLeft waits until no chain names the unit.
func (a *app) awaitLeft(ctx context.Context, id layout.UnitID, wait time.Duration) error {
	for until := time.Now().Add(wait); ; {
		l, err := a.getLayout(ctx)
		switch {
		case err == nil && !l.IsMember(id):
			fmt.Fprintf(a.stderr, "unit %d has left its chains\n", id)
			return nil
		case time.Now().After(until) && err != nil:
			return err
		case time.Now().After(until):
			return fmt.Errorf("unit %d is in a chain still after %v: corfu layout status shows what is copied", id, wait)
		}
		if sleep.For(ctx, changePoll) != nil {
			return ctx.Err()
		}
	}
}

const changePoll = 200 * time.Millisecond

// change asks for a change, and prints what it changes.
func (a *app) change(ctx context.Context, q *pb.ReconfigureRequest) error {
	before, err := a.getLayout(ctx)
	if err != nil {
		return err
	}
	if q.Failover && q.FailoverTo == 0 {
		q.FailoverFrom = uint32(before.Sequencer.ID) // asked a second time it must not fail back
	}
	if q.MaxSessions != 0 {
		if err := a.understood(ctx, q); err != nil {
			return err
		}
	}
	after, err := a.reconfigure(ctx, q)
	if err != nil {
		return err
	}
	switch {
	case a.json():
		return a.printLayout(after)
	case after.Epoch == before.Epoch && len(q.Remove) > 0: // a number that never was is most likely a slip
		fmt.Fprintf(a.stdout, "nothing to do: no unit %v is listed (corfu layout show lists them): epoch %d\n", strings.Trim(fmt.Sprint(q.Remove), "[]"), after.Epoch)
	case after.Epoch == before.Epoch:
		fmt.Fprintf(a.stdout, "already so, or under way (corfu layout status): epoch %d\n", after.Epoch)
	default:
		fmt.Fprint(a.stdout, diff(describe(before), describe(after)))
	}
	return nil
}

// reconfigure asks until there is an answer: a leader that was lost in the middle may have done it or not, and the next one finds out.
func (a *app) reconfigure(ctx context.Context, q *pb.ReconfigureRequest) (l *layout.Layout, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	ctx = control.Begin(ctx)
	for {
		m, servers, err := askLeader(ctx, a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.Layout, error) {
			return c.Reconfigure(ctx, q)
		})
		if err == nil {
			return pbconv.ToLayout(m)
		}
		switch grpcstatus.Code(err) {
		case codes.Unavailable, codes.Unknown, codes.Aborted:
			if sleep.For(ctx, changePoll) == nil {
				continue
			}
		}
		return nil, explainLayout(servers, err)
	}
}

// describe is a layout as lines.
func describe(l *layout.Layout) []string {
	lines := layoutLines(l)
	for _, row := range chainRows(l)[1:] {
		lines = append(lines, fmt.Sprintf("from %s, chain %s: units %s", row[0], row[1], row[3]))
	}
	return lines
}

// diff gives the lines of both, with + and − before those that only one has. Order within a list does not matter.
func diff(before, after []string) string {
	var b strings.Builder
	for _, line := range before {
		if !slices.Contains(after, line) {
			fmt.Fprintf(&b, "- %s\n", line)
		}
	}
	for _, line := range after {
		mark := "+"
		if slices.Contains(before, line) {
			mark = " "
		}
		fmt.Fprintf(&b, "%s %s\n", mark, line)
	}
	return b.String()
}
