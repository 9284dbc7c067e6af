package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// Commands that change the members of the cluster. Each is one reconfiguration; with --dry-run it prints what would
// change, and changes nothing.

func (a *app) unitAddCommand() *cobra.Command {
	return a.changeCommand("add id=host:port", "Add a storage unit as a spare",
		"Add a storage unit as a spare: it joins the next chain that lacks a unit. What it holds of another life is wiped then.",
		func(arg string) (*pb.ReconfigureRequest, error) {
			m, err := parseMember("unit", arg)
			return &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: m.ID, Control: m.Control}}}, err
		})
}

func (a *app) unitRemoveCommand() *cobra.Command {
	return a.changeCommand("remove id", "Remove a storage unit from the cluster",
		"Remove a storage unit: it leaves its chains, and a spare, if there is one, joins in its place. Older entries are copied\n"+
			"from the units that stay.",
		func(arg string) (*pb.ReconfigureRequest, error) {
			id, err := strconv.ParseUint(arg, 10, 32)
			if err != nil || id == 0 {
				return nil, usagef("%q is not the number of a unit", arg)
			}
			return &pb.ReconfigureRequest{Remove: []uint32{uint32(id)}}, nil
		})
}

func (a *app) seqFailoverCommand() *cobra.Command {
	return a.changeCommand("failover", "Let a standby take over from the sequencer",
		"Let the first standby that answers take over from the sequencer, which stands by from then on.",
		func(string) (*pb.ReconfigureRequest, error) { return &pb.ReconfigureRequest{Failover: true}, nil })
}

func (a *app) changeCommand(use, short, long string, request func(arg string) (*pb.ReconfigureRequest, error)) *cobra.Command {
	var dry bool
	args := cobra.NoArgs
	if strings.Contains(use, " ") {
		args = cobra.ExactArgs(1)
	}
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: args}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would change, as a diff of the layout, and change nothing")
	cmd.RunE = a.body(func(ctx context.Context, args []string) error {
		q, err := request(strings.Join(args, ""))
		if err != nil {
			return err
		}
		q.Reason, q.DryRun = "corfu "+cmd.CommandPath(), dry
		return a.change(ctx, q)
	})
	return cmd
}

// change asks for a change, and prints what it changes.
func (a *app) change(ctx context.Context, q *pb.ReconfigureRequest) error {
	var before, after *layout.Layout
	err := a.askLayout(ctx, func(ctx context.Context, c pb.LayoutServiceClient) error {
		m, err := c.Get(ctx, &pb.GetRequest{})
		if err != nil {
			return err
		}
		if before, err = pbconv.ToLayout(m); err != nil {
			return err
		}
		if m, err = c.Reconfigure(control.Begin(ctx), q); err != nil {
			return err
		}
		after, err = pbconv.ToLayout(m)
		return err
	})
	if err != nil {
		return err
	}
	if a.json() {
		return a.printLayout(after)
	}
	fmt.Fprint(a.stdout, diff(describe(before), describe(after)))
	return nil
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
