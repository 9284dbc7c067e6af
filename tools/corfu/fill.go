package main

import (
	"context"
	"errors"
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
				return a.eachBelowTail(ctx, l, ps, "is not a hole", func(ctx context.Context, p layout.Position) (effect, error) { return fill(ctx, l, p) })
			})
		}),
	}
}

// fill fills p, and tells what is there then.
func fill(ctx context.Context, l *client.Log, p layout.Position) (effect, error) {
	if err := l.Fill(ctx, p); err != nil {
		return effect{}, err
	}
	switch _, err := l.Read(ctx, p); {
	case errors.Is(err, client.ErrTrimmed):
		return effect{"kept", ": it was trimmed"}, nil
	case err == nil, errors.Is(err, client.ErrFragment):
		return effect{"kept", ": it holds an entry"}, nil
	}
	return effect{"filled", ""}, nil
}

// effect is what became of a position.
type effect struct {
	done string // in one word
	more string // of the text
}

// all is the same for every position.
func all(do func(context.Context, layout.Position) error, done string) func(context.Context, layout.Position) (effect, error) {
	return func(ctx context.Context, p layout.Position) (effect, error) { return effect{done: done}, do(ctx, p) }
}

// eachBelowTail does one thing to each position, and to none if one of them lies above the log's end: wrong says what
// that makes of it.
func (a *app) eachBelowTail(ctx context.Context, l *client.Log, ps []layout.Position, wrong string, do func(context.Context, layout.Position) (effect, error)) error {
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
		if err := a.each(ctx, p, do); err != nil {
			return err
		}
	}
	return nil
}

// each does one thing to one position and says so.
func (a *app) each(ctx context.Context, p layout.Position, do func(context.Context, layout.Position) (effect, error)) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	o, err := do(ctx, p)
	if err != nil {
		return explain(p, err)
	}
	if a.json() {
		return a.printJSON(struct {
			Position layout.Position `json:"position"`
			Done     string          `json:"done"`
		}{p, o.done})
	}
	_, err = fmt.Fprintf(a.stdout, "%s %d%s\n", o.done, uint64(p), o.more)
	return err
}
