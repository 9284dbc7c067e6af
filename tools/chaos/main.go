package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "chaos: %v (chaos -help lists the flags)\n", err)
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
	os.Exit(1)
}

// usageError: the request makes no sense; nothing was tried.
type usageError struct{ error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "client" {
		return clientMain(ctx, args[1:])
	}
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if !inside() && !o.plain {
		done, err := contain(ctx, args)
		if done {
			return err
		}
		fmt.Fprintf(os.Stderr, "chaos: WARNING: no namespaces here (%v): NO partitions and NO full disks; everything runs on loopback\n", err)
		o.plain = true
	}
	return runMain(ctx, o)
}
