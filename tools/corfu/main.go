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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
