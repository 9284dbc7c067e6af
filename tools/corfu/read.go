package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"corfu/client"
	"corfu/layout"
)

func (a *app) readCommand() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "read POSITION[/RECORD]... | read --from A --to B",
		Short: "Print entries",
		Long: `Print the entries at the positions given, or all entries from A up to but not
including B (without --to: up to the end of the log). A range leaves out holes that
were filled and positions that were trimmed one by one; where a prefix was trimmed
it says so on stderr and goes on behind it. A single position that holds no entry
is an error.

A batch is printed record by record. 12/3 means the record with index 3, the fourth, of
the batch at position 12.

An entry larger than a page is printed whole, at its first position. A range that ends
inside it prints it, one that begins inside it does not.`,
	}
	cmd.Flags().StringVar(&from, "from", "", "first `position` of a range")
	cmd.Flags().StringVar(&to, "to", "", "`position` behind the last of a range (default: the tail)")
	cmd.RunE = a.body(func(ctx context.Context, args []string) error {
		ranged := from != "" || to != ""
		switch {
		case ranged && len(args) > 0:
			return usagef("read takes either positions or --from and --to, not both")
		case !ranged && len(args) == 0:
			return usagef("read needs a position, or --from and --to")
		case !ranged:
			names, err := parseNames(args)
			if err != nil {
				return err
			}
			return a.withLog(ctx, func(l *client.Log) error { return a.readEach(ctx, l, names) })
		}
		return a.readRange(ctx, from, to)
	})
	return cmd
}

func (a *app) readEach(ctx context.Context, l *client.Log, names []name) (err error) {
	out := a.newEntryPrinter()
	defer func() { err = errors.Join(err, out.flush()) }()
	for _, n := range names {
		e, err := a.readOne(ctx, l, n.position)
		switch {
		case err != nil:
			return explain(n.position, err)
		case n.index < 0 || n.index == 0 && e.Records == nil:
			err = out.print(e)
		case n.index < len(e.Records):
			err = out.record(e, n.index)
		case e.Records == nil:
			err = fmt.Errorf("position %d holds no batch: read %d alone", n.position, n.position)
		default:
			err = fmt.Errorf("the batch at position %d has %d records: 0 to %d, and no %d", n.position, len(e.Records), len(e.Records)-1, n.index)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) readOne(ctx context.Context, l *client.Log, p layout.Position) (client.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return l.ReadEntry(ctx, p)
}

func (a *app) readRange(ctx context.Context, from, to string) error {
	var first, end layout.Position
	var err error
	if from != "" {
		if first, err = parsePosition(from); err != nil {
			return err
		}
	}
	if to != "" {
		if end, err = parsePosition(to); err != nil {
			return err
		}
		if end < first {
			return usagef("the range ends at %d, before it begins at %d", end, first)
		}
	}
	return a.withLog(ctx, func(l *client.Log) error {
		tail, err := a.tail(ctx, l)
		if err != nil {
			return err
		}
		if to == "" {
			end = tail
			if first > tail {
				return fmt.Errorf("position %d is beyond the end of the log, which is at %d (corfu tail): what stood there was lost, or it is a position of another log", first, tail)
			}
		}
		if end > tail {
			return fmt.Errorf("the range ends at %d, but the log ends at %d (corfu tail): nothing is written from there on", end, tail)
		}
		return a.printEntries(ctx, l, first, end)
	})
}

func (a *app) printEntries(ctx context.Context, l *client.Log, first, end layout.Position) (err error) {
	out := a.newEntryPrinter()
	defer func() { err = errors.Join(err, out.flush()) }()
	ctx, progress, stop := stalled(ctx, a.timeout)
	defer stop()
	for e, err := range l.ReadRange(ctx, first, end, a.overTrims(end)) {
		progress()
		if err != nil {
			return explain(e.Position, cause(ctx, err))
		}
		if err := out.print(e); err != nil {
			return err
		}
	}
	return nil
}

// overTrims makes a reader up to end go on behind what a prefix trim took from it, and say so on stderr.
func (a *app) overTrims(end layout.Position) client.ReadOption {
	return client.SkipTrimmed(func(t *client.TrimmedError) {
		to := min(t.To, end)
		fmt.Fprintf(a.stderr, "corfu: positions %d to %d were trimmed: there is nothing to be read (going on at %d)\n", t.From, to-1, to)
	})
}
