package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"corfu/client"
	"corfu/layout"
)

func (a *app) fillCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fill POSITION...", Short: "Fill holes, so that readers can pass",
		Long: `Fill holes: positions that were handed out and never written become junk. A
position that holds an entry keeps it; the entry is completed at all replicas.
Positions that nobody was given yet are refused.`,
		RunE: a.body(func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				return usagef("fill needs a position")
			}
			ps, err := parsePositions(args)
			if err != nil {
				return err
			}
			return a.withLog(ctx, func(l *client.Log) error {
				return a.eachBelowTail(ctx, l, ps, "is not a hole", l.Fill, "filled")
			})
		}),
	}
}

// eachBelowTail does one thing to each position, and to none if one of them lies above the log's end: wrong says what
// that makes of it.
func (a *app) eachBelowTail(ctx context.Context, l *client.Log, ps []layout.Position, wrong string, do func(context.Context, layout.Position) error, done string) error {
	tail, err := a.tail(ctx, l)
	if err != nil {
		return err
	}
	for _, p := range ps {
		if p >= tail {
			return fmt.Errorf("position %d %s: the log ends at %d", p, wrong, tail)
		}
	}
	for _, p := range ps {
		if err := a.each(ctx, p, do, done); err != nil {
			return err
		}
	}
	return nil
}

// each does one thing to one position and says so.
func (a *app) each(ctx context.Context, p layout.Position, do func(context.Context, layout.Position) error, done string) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := do(ctx, p); err != nil {
		return explain(p, err)
	}
	if a.json() {
		return a.printJSON(struct {
			Position layout.Position `json:"position"`
			Done     string          `json:"done"`
		}{p, done})
	}
	_, err := fmt.Fprintf(a.stdout, "%s %d\n", done, uint64(p))
	return err
}
