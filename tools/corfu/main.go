// Command corfu is the whole system in one binary: the daemons (layout, seq,
// unit), a cluster in one process (dev, demo), the log's command line (append,
// read, tail, fill, trim) and its benchmark.
//
// Exit status: 0 done; 1 it could not be done; 2 the request makes no sense.
// Errors are one line on stderr.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first signal asks to finish; a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// endings are the signals that ask the process to finish. A terminal that goes away is one, unless the process was started to outlive it
// (nohup): to notice an ignored signal would undo that.
func endings() []os.Signal {
	s := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		s = append(s, syscall.SIGHUP)
	}
	return s
}

// outliveReaders keeps a daemon alive when what reads its stdout or stderr goes away: what it writes there is lost then. Without it
// the next line of its log would end it (os/signal, SIGPIPE).
func outliveReaders() { signal.Ignore(syscall.SIGPIPE) }
