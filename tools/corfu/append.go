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
	cmd := &cobra.Command{
		Use:   "append [ENTRY... | -]",
		Short: "Append entries and print their positions",
		Long: `Append entries and print the position of each, in the order given.

Each argument is an entry. A lone - appends each line of stdin as an entry; --file
appends a file in chunks as large as a page takes. Entries are appended one after
another from arguments. Lines and chunks are in flight together, in the order in
which they stand in the log: the n-th line printed is the position of the n-th entry.
One that loses its position, to a reader that did not wait or because a unit failed,
takes a later one, and those behind it stay where they are: stderr says so. A signal
ends it once what is in flight is acknowledged.

An entry has up to 1 MiB (1048576 bytes). One that is larger than a page takes
(corfu layout show) fills several positions, and is read at the first, which is printed.`,
	}
	cmd.Flags().StringVar(&file, "file", "", "append this `file` in chunks that fill a page each")
	cmd.RunE = a.body(func(ctx context.Context, args []string) error {
		stdin := len(args) == 1 && args[0] == "-"
		switch {
		case file != "" && len(args) > 0:
			return usagef("append takes either --file or entries, not both")
		case file != "":
			return a.appendFile(ctx, file)
		case len(args) == 0:
			return usagef("append needs an entry, - or --file")
		case stdin:
			return a.withLog(ctx, func(l *client.Log) error {
				return a.appendStream(ctx, l, newLineSource(a.stdin, l.MaxPayload()))
			})
		}
		return a.withLog(ctx, func(l *client.Log) error { return a.appendArgs(ctx, l, args) })
	})
	return cmd
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
		if err := a.printPosition(a.stdout, p); err != nil {
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

func (a *app) printPosition(w io.Writer, p layout.Position) error {
	format := "%d\n"
	if a.json() {
		format = "{\"position\":%d}\n"
	}
	_, err := fmt.Fprintf(w, format, uint64(p))
	return err
}

func (a *app) appendFile(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory", path)
	}
	return a.withLog(ctx, func(l *client.Log) error {
		return a.appendStream(ctx, l, &chunkSource{r: f, buf: make([]byte, l.PagePayload())})
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

// appendStream appends every entry of src and prints the positions in the order of the entries. On an error it
// prints what was acknowledged in front of it and says how much that is.
func (a *app) appendStream(ctx context.Context, l *client.Log, src source) error {
	entries := 0
	var last layout.Position
	// Unbuffered: a user who types the lines wants to see where each one went.
	err := pipeline(ctx, l, a.timeout, src, func(n int, p layout.Position) error {
		if entries = n + 1; n > 0 && p < last {
			fmt.Fprintf(a.stderr, "corfu: entry %d stands at %d, before one that was appended ahead of it, lost its position and stands at %d\n", entries, p, last)
		}
		last = max(last, p)
		return a.printPosition(a.stdout, p)
	})
	switch {
	case errors.Is(err, errInterrupted) && entries == 0:
		return fmt.Errorf("%w: nothing was appended", err)
	case errors.Is(err, errInterrupted):
		return fmt.Errorf("%w: acknowledged were the first %d of the entries, up to position %d; nothing was appended behind them", err, entries, last)
	case err != nil:
		return fmt.Errorf("after %d entries: %w", entries, err)
	}
	return nil
}
