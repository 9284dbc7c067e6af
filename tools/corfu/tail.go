package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"corfu/client"
	"corfu/layout"
)

func (a *app) tailCommand() *cobra.Command {
	var follow, slow bool
	var from string
	cmd := &cobra.Command{
		Use: "tail", Args: cobra.NoArgs,
		Short: "Print the first free position, or entries as they come",
		Long: `Print the first free position, or with --follow entries as they come. Where a
trim took what it would have printed next, it says so on stderr and goes on behind it.
It is an error if --from lies above the end of the log: what stood there was lost.`,
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print entries as they are appended, until interrupted")
	cmd.Flags().StringVar(&from, "from", "", "with --follow: begin at this `position` (default: the tail)")
	cmd.Flags().BoolVar(&slow, "slow", false, "ask the units instead of the sequencer")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		switch {
		case from != "" && !follow:
			return usagef("--from goes with --follow")
		case slow && follow:
			return usagef("--slow does not go with --follow")
		}
		var first layout.Position
		if from != "" {
			var err error
			if first, err = parsePosition(from); err != nil {
				return err
			}
		}
		return a.withLog(ctx, func(l *client.Log) error {
			switch {
			case !follow && slow:
				return a.printTail(a.slowTail(ctx, l))
			case !follow:
				return a.printTail(a.tail(ctx, l))
			case from == "":
				var err error
				if first, err = a.tail(ctx, l); err != nil {
					return err
				}
			}
			return a.follow(ctx, l, first, from != "")
		})
	})
	return cmd
}

func (a *app) tail(ctx context.Context, l *client.Log) (layout.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	p, err := l.Tail(ctx)
	if err != nil {
		return 0, fmt.Errorf("tail: %w", err)
	}
	return p, nil
}

func (a *app) slowTail(ctx context.Context, l *client.Log) (layout.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	p, err := l.SlowTail(ctx)
	if err != nil {
		return 0, fmt.Errorf("slow tail: %w", err)
	}
	return p, nil
}

func (a *app) printTail(p layout.Position, err error) error {
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(map[string]layout.Position{"tail": p})
	}
	_, err = fmt.Fprintln(a.stdout, uint64(p))
	return err
}

// follow prints entries until the user interrupts, which is how it is meant to end.
// follow prints entries as they come. first is the tail if the user named no position: then a new epoch may begin below it, if what had been
// handed out was not written, and what comes there is new, too.
func (a *app) follow(ctx context.Context, l *client.Log, first layout.Position, named bool) error {
	out := a.newEntryPrinter()
	for {
		next := layout.MaxPosition
		for e, err := range l.Follow(ctx, first, a.overTrims(layout.MaxPosition)) {
			var beyond *client.BeyondTailError
			switch {
			case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
				return out.flush()
			case errors.As(err, &beyond) && !named:
				next = beyond.Tail
			case err != nil:
				return errors.Join(explain(e.Position, err), out.flush())
			}
			if err != nil {
				break
			}
			named = true
			// A reader at the tail wants to see each entry when it comes.
			if err := errors.Join(out.print(e), out.flush()); err != nil {
				return err
			}
		}
		if next == layout.MaxPosition {
			return out.flush()
		}
		first = next
	}
}
