package main

import (
	"context"
	"os"
	"testing"
	"time"

	"corfu/internal/leaktest"
)

// TestMain makes the test binary be the client, too: what runs starts itself for that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		main()
		return
	}
	os.Exit(leaktest.Run(m))
}

// TestKilledOverVerbs: the processes of a small cluster are killed at random over verbs, in the lab, and nothing that clients were told is contradicted.
func TestKilledOverVerbs(t *testing.T) {
	if os.Getenv("CORFU_LAB") != "1" {
		t.Skip("the lab's: elsewhere make chaos has more to say")
	}
	o := options{
		seed: 1, faulty: 12 * time.Second, corfu: "../../bin/corfu", dir: t.TempDir(), provider: "verbs", addr: "127.0.0.1",
		plain: true, small: true, faults: []string{"kill", "kill-all", "kill-client"}, past: pastOff,
		// An emulated processor, shared by all: nobody is to be dropped because it is slow.
		failAfter: 20 * time.Second, pace: 50 * time.Millisecond, retain: 100, patience: 3 * time.Minute,
	}
	if err := runMain(context.Background(), o); err != nil {
		t.Error(err)
	}
}
