package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"corfu/client"
)

func (a *app) trimCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use: "trim POSITION... | trim --prefix POSITION", Short: "Give up entries for ever",
		Long: `Give up the entries at the positions given, or with --prefix all entries below a
position. There is no way back. Positions that nobody was given yet are refused.
An entry larger than a page goes as a whole, whichever of its positions is given.`,
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "trim everything below this `position`")
	cmd.RunE = a.body(func(ctx context.Context, args []string) error {
		switch {
		case prefix != "" && len(args) > 0:
			return usagef("trim takes either positions or --prefix, not both")
		case prefix != "":
			return a.trimPrefix(ctx, prefix)
		case len(args) == 0:
			return usagef("trim needs a position, or --prefix")
		}
		ps, err := parsePositions(args)
		if err != nil {
			return err
		}
		return a.withLog(ctx, func(l *client.Log) error {
			return a.eachBelowTail(ctx, l, ps, "cannot be trimmed", all(l.Trim, "trimmed"))
		})
	})
	return cmd
}

func (a *app) trimPrefix(ctx context.Context, prefix string) error {
	p, err := parsePosition(prefix)
	if err != nil {
		return err
	}
	return a.withLog(ctx, func(l *client.Log) error {
		tail, err := a.tail(ctx, l)
		if err != nil {
			return err
		}
		if p > tail {
			return fmt.Errorf("cannot trim below %d: the log ends at %d", p, tail)
		}
		return a.each(ctx, p, all(l.TrimPrefix, "trimmed below"))
	})
}
