package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// sayEvery is the time between lines about the progress of a walk, where stderr is no terminal.
const sayEvery = 3 * time.Second

// newBytesBar shows on stderr how far a transfer of n bytes got.
func (a *app) newBytesBar(n int64, what string) *progressbar.ProgressBar {
	return a.newBar(n, what, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
}

// newBar shows on stderr how far n steps got: redrawn on a terminal, a line now and then elsewhere.
func (a *app) newBar(n int64, what string, more ...progressbar.Option) *progressbar.ProgressBar {
	throttle := 5 * time.Second // in a CI log each redraw is another line's worth
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		throttle = 100 * time.Millisecond
	}
	opts := append([]progressbar.Option{
		progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription(what), progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(), progressbar.OptionThrottle(throttle), progressbar.OptionSetPredictTime(true),
		progressbar.OptionOnCompletion(func() { _, _ = a.stderr.Write([]byte("\n")) }),
	}, more...)
	return progressbar.NewOptions64(n, opts...)
}

// progress gives what shows how far a walk over pages is on stderr: a bar on a terminal, elsewhere a line every few seconds.
func (a *app) progress(what string) func(done, all uint64, waiting string, ended bool) {
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		bar := a.newBar(-1, what+", pages")
		return func(done, all uint64, waiting string, ended bool) {
			bar.ChangeMax64(int64(max(all, 1)))
			bar.Describe(what + ", pages" + waiting)
			_ = bar.Set64(int64(done))
			if ended {
				_ = bar.Finish()
			}
		}
	}
	said := time.Now()
	return func(done, all uint64, waiting string, ended bool) {
		if ended || time.Since(said) < sayEvery {
			return
		}
		said = time.Now()
		fmt.Fprintf(a.stderr, "%s: %d of %d pages, %.0f %%%s\n", what, done, all, 100*float64(done)/float64(max(all, 1)), waiting)
	}
}
