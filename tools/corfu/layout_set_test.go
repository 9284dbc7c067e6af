package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"corfu/internal/devcluster"
	"corfu/layout"
)

// TestOperatorChangesMaxSessions of a running log, with good input and bad.
func TestOperatorChangesMaxSessions(t *testing.T) {
	notInLab(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := devcluster.Start(ctx, devcluster.Options{Provider: "tcp", Dir: t.TempDir(), Chains: 1, Replicas: 1,
		Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 4096, MaxSessions: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	corfu := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(ctx, append(args, "--cluster", c.LayoutAddr()), nil, &out, &errs); got != want {
			t.Fatalf("%v: status %d, want %d: %s", args, got, want, errs.String())
		}
		return out.String() + errs.String()
	}
	has := func(text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
	}
	for _, bad := range []string{"0", "-1", "4097", "1000000000000"} {
		has(corfu(exitUsage, "layout", "set", "--max-sessions", bad), bad+": must be 1 to 4096")
	}
	has(corfu(exitUsage, "layout", "set", "--max-sessions", "many"), "many")
	has(corfu(exitUsage, "layout", "set"), "max-sessions")
	has(corfu(exitUsage, "layout", "set", "7"), "7")
	// 24 bits of an index word name a slot, and here each session has 4096 of them.
	has(corfu(exitRuntime, "layout", "set", "--max-sessions", "4096"), "16777216 staging slots, and an index word can name 16777215: must be at most 4095")

	shown := corfu(exitOK, "layout", "show")
	has(shown, "epoch       1,", "sessions    max_sessions 1, each of up to 4096 staging pages")
	has(corfu(exitOK, "layout", "set", "--max-sessions", "1"), "already so", "epoch 1")
	has(corfu(exitOK, "layout", "set", "--max-sessions", "2", "--dry-run"), "- sessions    max_sessions 1,", "+ sessions    max_sessions 2,")
	if after := corfu(exitOK, "layout", "show"); after != shown {
		t.Errorf("what changes nothing changed the layout to\n%s", after)
	}
	has(corfu(exitOK, "layout", "set", "--max-sessions", "2"), "+ epoch       2,", "+ sessions    max_sessions 2,")
	has(corfu(exitOK, "layout", "set", "--max-sessions", "2"), "already so", "epoch 2")
	has(corfu(exitOK, "status"), "max_sessions 2", "0 of 3,074", "max_sessions 1 became 2")
	has(corfu(exitOK, "layout", "set", "--max-sessions", "1", "--output", "json"), `"max_sessions":1,`)
}
