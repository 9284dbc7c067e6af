package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"

	"corfu/client"
	"corfu/internal/devcluster"
)

// exampleLog opens a log of a cluster in this process.
func exampleLog() (l *client.Log, done func()) {
	dir, err := os.MkdirTemp("", "corfu-example-")
	if err != nil {
		log.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	c, err := devcluster.Start(context.Background(), devcluster.Options{Provider: "tcp", Dir: dir, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	l, err = client.Open(context.Background(), client.Options{LayoutServers: []string{c.LayoutAddr()}, Provider: "tcp", Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	return l, func() {
		if err := errors.Join(l.Close(), c.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleLog_AppendBatch() {
	l, done := exampleLog()
	defer done()
	ctx := context.Background()

	p, err := l.AppendBatch(ctx, [][]byte{[]byte("debit 5"), []byte("credit 5")}) // both or none
	if err != nil {
		log.Fatal(err)
	}
	e, err := l.ReadEntry(ctx, p)
	if err != nil {
		log.Fatal(err)
	}
	for i, r := range e.Records {
		fmt.Println(client.RecordID{Position: p, Index: i}, string(r))
	}
	// Output:
	// 0/0 debit 5
	// 0/1 credit 5
}

func ExampleProducer() {
	l, done := exampleLog()
	defer done()
	ctx := context.Background()

	p, err := client.NewProducer(l, client.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 1000 {
		if err := p.Produce(ctx, fmt.Appendf(nil, "event %d", i), nil); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Flush(ctx); err != nil { // all of them are durable, in this order
		log.Fatal(err)
	}
	n := 0
	for r, err := range l.Records(ctx, 0) {
		if err != nil {
			log.Fatal(err)
		}
		if n++; n == 1000 {
			fmt.Println(string(r.Data))
			break
		}
	}
	// Output: event 999
}

// What to do about an append that may have happened.
func ExampleUnknownError_Resolve() {
	l, done := exampleLog()
	defer done()
	ctx := context.Background()

	p, err := l.Append(ctx, []byte("once"))
	for {
		var unknown *client.UnknownError
		if !errors.As(err, &unknown) {
			break
		}
		at, found, rerr := unknown.Resolve(ctx)
		switch {
		case rerr != nil: // not known yet: ask again later
			log.Fatal(rerr)
		case found:
			p, err = at, nil
		default: // it is not in the log, and never will be
			p, err = l.Append(ctx, []byte("once"))
		}
	}
	fmt.Println(p, err)
	// Output: 0 <nil>
}

// A reader of the whole log, a part of which was trimmed.
func ExampleSkipTrimmed() {
	l, done := exampleLog()
	defer done()
	ctx := context.Background()

	for i := range 5 {
		if _, err := l.Append(ctx, fmt.Appendf(nil, "entry %d", i)); err != nil {
			log.Fatal(err)
		}
	}
	if err := l.TrimPrefix(ctx, 3); err != nil {
		log.Fatal(err)
	}
	first, err := l.FirstPosition(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("begins at", first)
	skip := client.SkipTrimmed(func(e *client.TrimmedError) { fmt.Println("not read:", e) })
	for e, err := range l.ReadRange(ctx, 0, 5, skip) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Position, string(e.Payload))
	}
	// Output:
	// begins at 3
	// not read: positions 0 to 2: position trimmed
	// 3 entry 3
	// 4 entry 4
}
