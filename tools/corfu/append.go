package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"corfu/client"
	"corfu/layout"
)

func (a *app) appendCommand() *cobra.Command {
	var file string
	var f appendFlags
	cmd := &cobra.Command{
		Use:   "append [ENTRY... | -]",
		Short: "Append entries and print their positions",
		Long: `Append entries and print the position of each, in the order given.

Each argument is an entry. They are appended one after another.

A lone - appends the lines of stdin, many at a time: lines that are waiting go together
as a batch, which is one entry, there as a whole or not at all. The n-th line printed
names the n-th line of stdin as POSITION/INDEX, which corfu read takes. A line that does
not fit in a page is an entry of its own, and named by its position alone. With
--batch=false each line is an entry with a position of its own, as clients and units of
older releases read them.

The lines stand in the log in the order of stdin: one batch, or with --batch=false one
entry, is under way at a time. With --ordered=false many are. One that loses its position
then, to a reader that did not wait or because a unit failed, takes a later one, and those
behind it stay where they are: stderr says so.

--file appends a file in chunks as large as a page takes, each an entry. Many are under
way at a time, as with --ordered=false, unless --ordered is given.

A signal ends it once what is under way is acknowledged, and it says how much that is.

An entry has up to 1 MiB (1048576 bytes). One that is larger than a page takes
(corfu layout show) fills several positions, and is read at the first, which is printed.`,
	}
	cmd.Flags().StringVar(&file, "file", "", "append this `file` in chunks that fill a page each")
	cmd.Flags().BoolVar(&f.batch, "batch", true, "with -: lines that wait go together as a batch")
	cmd.Flags().BoolVar(&f.ordered, "ordered", true, "with - or --file: keep the order in the log even if one loses its position")
	cmd.RunE = a.body(func(ctx context.Context, args []string) error {
		stdin := len(args) == 1 && args[0] == "-"
		given := func(flag string) bool { return cmd.Flags().Changed(flag) }
		switch {
		case file != "" && len(args) > 0:
			return usagef("append takes either --file or entries, not both")
		case !stdin && given("batch"):
			return usagef("--batch goes with -")
		case !stdin && file == "" && given("ordered"):
			return usagef("--ordered goes with - or --file")
		case file != "":
			f.batch, f.ordered = false, f.ordered && given("ordered")
			return a.appendFile(ctx, file, f)
		case len(args) == 0:
			return usagef("append needs an entry, - or --file")
		case stdin:
			return a.withLog(ctx, func(l *client.Log) error {
				return a.appendStream(ctx, l, newLineSource(a.stdin, l.MaxPayload()), f)
			})
		}
		return a.withLog(ctx, func(l *client.Log) error { return a.appendArgs(ctx, l, args) })
	})
	return cmd
}

// appendFlags say how a stream is appended.
type appendFlags struct {
	batch   bool // what fits in a page goes together
	ordered bool // the order holds whatever happens
}

func tooLarge(what string, size, limit int) error {
	return fmt.Errorf("%s is too large: %d bytes, at most %d fit into an entry", what, size, limit)
}

func (a *app) appendArgs(ctx context.Context, l *client.Log, args []string) error {
	for i, s := range args { // before the first append: nothing half done
		if len(s) > l.MaxPayload() {
			return tooLarge(fmt.Sprintf("entry %d", i+1), len(s), l.MaxPayload())
		}
	}
	for _, s := range args {
		p, err := a.appendOne(ctx, l, []byte(s))
		if err != nil {
			return err
		}
		if err := a.printName(name{p, -1}); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) appendOne(ctx context.Context, l *client.Log, payload []byte) (layout.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	p, err := l.Append(ctx, payload)
	if err != nil {
		return 0, appendFailed(err)
	}
	return p, nil
}

func (a *app) printName(n name) error {
	switch {
	case !a.json():
		_, err := fmt.Fprintln(a.stdout, n)
		return err
	case n.index < 0:
		_, err := fmt.Fprintf(a.stdout, "{\"position\":%d}\n", uint64(n.position))
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "{\"position\":%d,\"index\":%d}\n", uint64(n.position), n.index)
	return err
}

func (a *app) appendFile(ctx context.Context, path string, how appendFlags) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory", path)
	}
	return a.withLog(ctx, func(l *client.Log) error {
		return a.appendStream(ctx, l, &chunkSource{r: f, buf: make([]byte, l.PagePayload())}, how)
	})
}

// source yields entries; the bytes are good until the next call. io.EOF ends it.
type source interface{ next() ([]byte, error) }

// chunkSource cuts a stream into entries of the size of buf.
type chunkSource struct {
	r   io.Reader
	buf []byte
}

func (s *chunkSource) next() ([]byte, error) {
	n, err := io.ReadFull(s.r, s.buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return s.buf[:n], err
}

// lineSource yields the lines of a stream without their newlines.
type lineSource struct {
	r     *bufio.Reader
	limit int
	line  int
}

func newLineSource(r io.Reader, limit int) *lineSource {
	return &lineSource{r: bufio.NewReaderSize(r, limit+1), limit: limit}
}

func (s *lineSource) next() ([]byte, error) {
	s.line++
	b, err := s.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("line %d is too large: more than %d bytes, which is what fits into an entry", s.line, s.limit)
	case errors.Is(err, io.EOF) && len(b) > 0:
		return b, nil // the last line has no newline
	case err != nil:
		return nil, err
	}
	return b[:len(b)-1], nil
}

// appendStream appends every entry of src and prints their names in the order of the entries. On an error it
// prints what was acknowledged in front of it and says how much that is.
func (a *app) appendStream(ctx context.Context, l *client.Log, src source, how appendFlags) error {
	entries := 0
	var last name
	// Unbuffered: a user who types the lines wants to see where each one went.
	err := pipeline(ctx, l, a.timeout, src, how, func(n int, at name) error {
		if entries = n + 1; n > 0 && at.before(last) {
			fmt.Fprintf(a.stderr, "corfu: entry %d stands at %v, before one that was appended ahead of it, lost its position and stands at %v\n", entries, at, last)
		} else {
			last = at
		}
		return a.printName(at)
	})
	switch {
	case errors.Is(err, errInterrupted) && entries == 0:
		return fmt.Errorf("%w: nothing was appended", err)
	case errors.Is(err, errInterrupted):
		return fmt.Errorf("%w: acknowledged were the first %d of the entries, up to position %v; nothing was appended behind them", err, entries, last)
	case err != nil:
		return fmt.Errorf("after %d entries: %w", entries, err)
	}
	return nil
}
