package main

import (
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

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
