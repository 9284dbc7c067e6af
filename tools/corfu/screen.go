package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"corfu/internal/wire/pb"
)

// Sequences of ECMA-48 terminals.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l" // another screen, no cursor
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineEnd     = "\x1b[K\r\n" // clears what stood behind
	screenRest  = "\x1b[J"     // clears what stood below
)

// show shows the status again and again: on a terminal in place, until q or Ctrl-C; elsewhere, and as JSON, one after the other. times:
// how often; 0: until it is ended. It fails if no cluster answered the last time.
func (a *app) show(ctx context.Context, every time.Duration, times int, layout func(*pb.ClusterStatus) []line) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found, err := a.findCluster()
	if err != nil {
		return err
	}
	a.cluster = strings.Join(found.LayoutServers, ",") // also when who announced it is gone
	_, _, tty := a.terminal()
	draw := func(m *pb.ClusterStatus) error { return a.printClusterStatus(m, layout) }
	if tty && !a.json() {
		restore, err := a.openScreen(cancel)
		if err != nil {
			return err
		}
		defer restore()
		draw = func(m *pb.ClusterStatus) error { return a.draw(layout(m)) }
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		m, err := a.clusterStatus(ctx)
		if ctx.Err() != nil {
			return nil // ended by who looks on
		}
		if err == nil {
			err = draw(m)
		}
		switch {
		case err == nil && n == times && len(m.Units) == 0: // it shows why: nobody told of any
			return errUnhealthy
		case err != nil || n == times:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !tty && !a.json() {
			fmt.Fprintln(a.stdout)
		}
	}
}

// openScreen takes the terminal, and calls quit at q or Ctrl-C. What it returns gives the terminal back.
func (a *app) openScreen(quit func()) (restore func(), err error) {
	keys, isFile := a.stdin.(*os.File)
	back := func() {}
	if isFile && term.IsTerminal(int(keys.Fd())) {
		was, err := term.MakeRaw(int(keys.Fd())) // keys come at once, and are not shown
		if err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		back = func() { _ = term.Restore(int(keys.Fd()), was) }
		go func() {
			for b := make([]byte, 1); ; {
				if _, err := keys.Read(b); err != nil || b[0] == 'q' || b[0] == 3 {
					quit()
					return
				}
			}
		}()
	}
	_, err = io.WriteString(a.stdout, screenOpen)
	return func() {
		_, _ = io.WriteString(a.stdout, screenClose)
		back()
	}, err
}

// draw puts as many lines on the screen as fit, and the last row says how to end it.
func (a *app) draw(lines []line) error {
	width, height, ok := a.terminal()
	if !ok || width < 1 || height < 2 {
		width, height = 80, 24
	}
	_, err := io.WriteString(a.stdout, frame(lines, width, height, os.Getenv("NO_COLOR") == ""))
	return err
}

// frame is one screen of lines. The verdict, above the first empty line, is wrapped; all else is cut at the edge.
func frame(lines []line, width, height int, styled bool) string {
	var b strings.Builder
	b.WriteString(screenHome)
	rows := 0
	put := func(l line) {
		if rows < height-1 {
			b.WriteString(l.render(styled))
			b.WriteString(lineEnd)
			rows++
		}
	}
	verdict := true
	for _, l := range lines {
		verdict = verdict && l.text != ""
		parts := wrap(l.text, width)
		if !verdict {
			parts = parts[:1]
		}
		for _, part := range parts {
			put(line{l.style, part})
		}
	}
	b.WriteString(screenRest)
	b.WriteString(fmt.Sprintf("\x1b[%d;1H", height))
	b.WriteString(line{faint, wrap(time.Now().Format(time.TimeOnly)+"  q ends", width)[0]}.render(styled))
	return b.String()
}

// wrap cuts text into parts of at most width characters, at least one.
func wrap(s string, width int) (parts []string) {
	r := []rune(s)
	for len(r) > width {
		cut := width
		for i := width; i > width/2; i-- {
			if r[i] == ' ' {
				cut = i
				break
			}
		}
		parts = append(parts, string(r[:cut]))
		r = r[cut:]
		if r[0] == ' ' {
			r = r[1:]
		}
	}
	return append(parts, string(r))
}
